"""Shares of a layer add up to the layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loopformer.nn.attention import Attention
from loopformer.nn.block import Block
from loopformer.nn.config import BlockConfig
from loopformer.nn.mlp import MLP
from loopformer.nn.shares import are_shared, check_shares, layer_bytes, share
from loopformer.nn.value_embedding import ValueEmbedding
from loopformer.nn.variables import build

SIZE = {'width': 16, 'heads': 4, 'hidden': 8, 'mask': 'causal'}


def blocks():
  return {
    'plain': BlockConfig(**SIZE),
    'groups': BlockConfig(kv_heads=2, **SIZE),
    'head_size': BlockConfig(head_size=6, gated=True, qk_norm=True, **SIZE),
    'biases': BlockConfig(
      head_size=6, qk_bias=True, attention_bias=True, mlp_bias=True, **SIZE
    ),
    'relu2': BlockConfig(mlp='relu2', rotary='none', **SIZE),
  }


def perturbed(module):
  """The module with every array random, biases too."""
  leaves, structure = jax.tree.flatten(module)
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype)
  return jax.tree.unflatten(structure, [draw(x) for x in leaves])


def added(module, count, call):
  """What each of the shares returns; they run at once and exchange sums."""
  shares = [share(module, i, count, axis='devices') for i in range(count)]
  leaves = [jax.tree.leaves(one) for one in shares]
  stacked = [jnp.stack(each) for each in zip(*leaves, strict=True)]
  structure = jax.tree.structure(shares[0])
  run = lambda arrays: call(jax.tree.unflatten(structure, arrays))
  return jax.vmap(run, axis_name='devices')(stacked)


@pytest.mark.parametrize('make', [Attention, MLP])
@pytest.mark.parametrize('name', blocks())
def test_the_shares_of_a_layer_are_the_layer(make, name):
  cfg = blocks()[name]
  module = perturbed(build(lambda r: make(cfg, rngs=r), jax.random.key(0)))
  x_BTD = jax.random.normal(jax.random.key(1), (2, 5, 16))
  want = module(x_BTD)
  found = added(module, 2, lambda layer: layer(x_BTD))
  for each in found:
    np.testing.assert_allclose(each, want, rtol=1e-5, atol=1e-4)


def test_the_shares_of_value_embeddings_are_their_heads():
  cfg = BlockConfig(kv_heads=2, **SIZE)
  values = perturbed(
    build(
      lambda r: ValueEmbedding(7, {0: cfg}, (0,), (0,), idle=cfg, rngs=r),
      jax.random.key(0),
    )
  )
  tokens_BT = jnp.asarray([[1, 6, 3]])
  x_BTD = jax.random.normal(jax.random.key(1), (1, 3, 16))
  add = lambda v: v.extras(v.rows(tokens_BT), 0, 1)[0](x_BTD)
  found = added(values, 2, add)
  np.testing.assert_allclose(
    jnp.concatenate(list(found), axis=2), add(values), rtol=1e-6
  )


def test_bytes_of_a_layer():
  """Four matrices of 16 by 16 and three of 16 by 8; in float32."""
  model = build(
    lambda r: Block(BlockConfig(**SIZE), 3, rngs=r), jax.random.key(0)
  )
  assert layer_bytes(model) == 4 * (4 * 16 * 16 + 3 * 16 * 8)


def test_what_does_not_divide_is_refused():
  model = build(
    lambda r: nnx.List([MLP(BlockConfig(**SIZE), rngs=r)]), jax.random.key(0)
  )
  with pytest.raises(ValueError, match='devices must divide hidden = 8'):
    check_shares(model, 3)
  assert are_shared(model, 4)
  grouped = BlockConfig(kv_heads=2, **SIZE)
  attention = build(lambda r: Attention(grouped, rngs=r), jax.random.key(0))
  with pytest.raises(ValueError, match='devices must divide kv_heads = 2'):
    check_shares(attention, 4)
  taps = build(
    lambda r: MLP(BlockConfig(**SIZE), taps=2, rngs=r), jax.random.key(0)
  )
  with pytest.raises(ValueError, match='devices must be one for an MLP with'):
    check_shares(taps, 2)
