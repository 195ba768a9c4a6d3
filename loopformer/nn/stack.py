"""Layers that are many deep: stacked in one array tree, applied by a scan."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from loopformer.nn.variables import build


def stack(
  make: Callable[[nnx.Rngs], nnx.Module], depth: int, *, rngs: nnx.Rngs
) -> nnx.Module:
  """`depth` modules in one, each array with a leading axis named 'layers'.

  Raises:
    ValueError: if depth is negative.
  """
  if depth < 0:
    raise ValueError(f'depth must be >= 0, got {depth}.')
  keys = jax.random.split(rngs.params(), depth)
  stacked = jax.vmap(lambda key: build(make, key))(keys)
  for _, variable in nnx.iter_graph(stacked):
    if isinstance(variable, nnx.Variable):
      _name_layers(variable)
  return stacked


def _name_layers(variable: nnx.Variable) -> None:
  names = variable.get_metadata().get('out_sharding', None)
  rank = variable.get_value().ndim - 1
  variable.set_metadata(
    out_sharding=('layers',) + tuple(names or (None,) * rank)
  )


def apply_stack(
  stacked: nnx.Module, x: Any, call: Callable[[Any, Any], Any]
) -> Any:
  """x <- call(layer, x) for each layer in turn."""
  depth = stack_depth(stacked)
  if depth == 0:
    return x
  x, _ = jax.lax.scan(
    lambda h, layer: (call(layer, h), None),
    x,
    stacked,
    unroll=depth if depth <= UNROLLED else 1,
  )
  return x


# Short stacks are unrolled inside the scan: slicing a layer costs a copy.
UNROLLED = 4


def stack_depth(stacked: nnx.Module) -> int:
  """Number of layers."""
  return jax.tree.leaves(stacked)[0].shape[0]
