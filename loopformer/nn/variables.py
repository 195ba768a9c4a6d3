"""The four kinds of array a model may hold, and who may change each.

Only `Param` enters gradients, weight decay, averaging and the published count.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

Param = nnx.Param


class Frozen(nnx.Variable):
  """Saved with the model, never trained: a stored initial state."""


class Table(nnx.Variable):
  """Id embeddings of which only gathered rows are differentiated."""


class Adapted(nnx.Variable):
  """Moved by a rule of its own, not by gradients: a router's bias."""


KINDS = (Param, Frozen, Table, Adapted)


def named(
  init: Callable[..., jax.Array], *names: str | None
) -> Callable[..., Any]:
  """An initialiser whose array carries logical axis names."""
  return nnx.with_partitioning(init, names)


def build(make: Callable[[nnx.Rngs], Any], key: jax.Array) -> Any:
  """Constructs a module from a key; the one place where modules are made.

  Construction is pure, so it can be jitted, sharded or shape-evaluated.
  """
  with nnx.use_eager_sharding(False):
    return make(nnx.Rngs(key))


def abstract(make: Callable[[nnx.Rngs], Any]) -> Any:
  """The module with shapes instead of arrays; nothing is allocated."""
  return jax.eval_shape(lambda key: build(make, key), jax.random.key(0))


def count_parameters(module: Any) -> int:
  """Numbers in all `Param`s, each tied array once; works on shapes too."""
  leaves = jax.tree.leaves(nnx.state(module, Param))
  return sum(leaf.size for leaf in leaves)


def axis_names(module: Any) -> Any:
  """Logical axis names of each `Param`: a state of tuples."""
  params = nnx.state(module, Param)

  def names(variable):
    known: Sequence[str | None] = (
      variable.get_metadata().get('out_sharding', None) or ()
    )
    missing = variable.get_value().ndim - len(known)
    return tuple(known) + (None,) * missing

  is_variable = lambda x: isinstance(x, nnx.Variable)
  return jax.tree.map(names, params, is_leaf=is_variable)
