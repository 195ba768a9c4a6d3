"""Four kinds of array: who is counted, differentiated and named."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from loopformer.nn.config import BlockConfig
from loopformer.nn.variables import (
  KINDS,
  Adapted,
  Frozen,
  Param,
  Table,
  axis_names,
  build,
  count_parameters,
  named,
)
from loopformer.zoo import FAMILIES


class Four(nnx.Module):
  """One array of each kind."""

  def __init__(self, rngs):
    init = named(nnx.initializers.ones, 'embed', 'mlp')
    self.trained = Param(init(rngs.params(), (2, 3)))
    self.start = Frozen(jnp.ones(5))
    self.ids = Table(jnp.ones((7, 3)))
    self.bias = Adapted(jnp.ones(11))

  def __call__(self, x):
    parts = self.trained.sum(), self.start.sum(), self.ids.sum()
    return x * (sum(parts) + self.bias.sum())


def four():
  return build(Four, jax.random.key(0))


def test_only_parameters_are_counted():
  assert count_parameters(four()) == 2 * 3


def test_only_parameters_are_differentiated():
  graph, params, rest = nnx.split(four(), nnx.Param, ...)
  loss = lambda params: nnx.merge(graph, params, rest)(1.0) ** 2
  grads = jax.tree.leaves(jax.grad(loss)(params))
  assert [leaf.shape for leaf in grads] == [(2, 3)]
  # 2 (6 + 5 + 21 + 11)
  np.testing.assert_array_equal(grads[0], 86.0)
  assert {leaf.size for leaf in jax.tree.leaves(rest)} == {5, 21, 11}


def test_kinds_are_apart():
  for kind in KINDS:
    leaves = jax.tree.leaves(nnx.state(four(), kind))
    assert len(leaves) == 1, kind


def test_axes_are_named():
  names = jax.tree.leaves(
    axis_names(four()), is_leaf=lambda x: isinstance(x, tuple)
  )
  assert names == [('embed', 'mlp')]


def test_building_is_a_pure_function_of_the_key():
  init = nnx.initializers.normal()
  make = lambda rngs: nnx.Linear(2, 3, kernel_init=init, rngs=rngs)
  first, same = (build(make, jax.random.key(1)) for _ in range(2))
  jitted = jax.jit(lambda key: build(make, key))(jax.random.key(1))
  other = build(make, jax.random.key(2))
  np.testing.assert_array_equal(first.kernel, same.kernel)
  np.testing.assert_allclose(first.kernel, jitted.kernel, rtol=1e-6)
  assert (first.kernel[...] != other.kernel[...]).all()


def test_shapes_need_no_memory():
  before = len(jax.live_arrays())
  block = BlockConfig(width=2**16, heads=2**9, hidden=2**18)
  for family in FAMILIES.values():
    model = family.abstract(family.config(vocab_size=2**17, block=block))
    leaves = jax.tree.leaves(model)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    # Every layer has 4 D^2 + 3 D F numbers: 68.7 thousand million.
    assert count_parameters(model) > 68e9
  assert len(jax.live_arrays()) <= before + 1
