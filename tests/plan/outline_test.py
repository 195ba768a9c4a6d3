"""Outlines against the traced program of every family, product by product."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from loopformer.nn.config import CHOICES, BlockConfig
from loopformer.nn.mlp import MLP
from loopformer.nn.place import mask_of
from loopformer.nn.variables import build
from loopformer.plan.cost import mlp_cost, unmasked_pairs
from loopformer.plan.outline import OUTLINES, outline
from loopformer.zoo import FAMILIES
from tests.models import info, row_keys
from tests.plan.dots import dot_flops
from tests.plan.tiny import TINY, B, tiny, tokens

# `recurrent_depth` stands for those on its chassis where programs compile long.
ON_CHASSIS = ('huginn', 'parcae', 'retrofit')
EACH = pytest.mark.parametrize(
  ('name', 'index'),
  [(name, i) for name, configs in TINY.items() for i in range(len(configs))],
)


def begin(model, inputs_BT):
  context = model.embed(inputs_BT)
  return model.init_state(context, row_keys(B)), context


def step(model, state, context):
  told = info([0] * B, row_keys(B))
  return model.step(state, (), context, told)[0]


def read_head(head, model, state, context):
  return head(state, (model, context))


def test_every_family_has_an_outline():
  assert list(OUTLINES) == list(FAMILIES) == list(TINY)


@EACH
def test_forward_products(name, index):
  family, cfg, model, made = tiny(name, index)
  state, context = jax.eval_shape(begin, model, tokens(cfg))
  given = model, state, context
  parts = {
    'read': (dot_flops(begin, model, tokens(cfg)), made.read),
    'step': (dot_flops(step, *given), made.step()),
  }
  for key, head in family.heads(cfg).items():
    read = functools.partial(read_head, head)
    parts[key] = dot_flops(read, *given), made.heads[key]
  for part, (counted, cost) in parts.items():
    assert counted == B * cost.total, part
  assert set(made.heads) == set(family.heads(cfg))
  numbers = sum(leaf.size for leaf in jax.tree.leaves(state))
  assert numbers == B * made.state


@pytest.mark.parametrize('kind', CHOICES['mlp'])
def test_products_of_every_mlp(kind):
  block = BlockConfig(width=8, hidden=12, mlp=kind)
  model = build(lambda rngs: MLP(block, rngs=rngs), jax.random.key(0))
  flops = dot_flops(model, jnp.ones((B, 3, 8)))
  assert flops == mlp_cost(block, B * 3).total
  assert mlp_cost(block, 1).saved > 0


def test_products_of_a_spectral_scale():
  """On top of the rows', two power methods: 50 (W u, W^T v), then v^T W u."""
  family = FAMILIES['fprm']
  cfg = family.config(**TINY['fprm'][1] | {'residual_scale': 'spectral'})
  model, inputs_BT = family.abstract(cfg), tokens(cfg)
  state, context = jax.eval_shape(begin, model, inputs_BT)
  rows = B * outline('fprm', cfg, cfg.seq_len).step().total
  method = 101 * 2 * 8**2 + 2 * 8
  assert dot_flops(step, model, state, context) == rows + 2 * method


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ON_CHASSIS))
    for name in TINY
  ],
)
def test_gradient_products(name):
  _, cfg, model, made = tiny(name)
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  def loss(params, rest, inputs_BT):
    model = nnx.merge(graph, params, rest)
    state, context = begin(model, inputs_BT)
    state = step(model, state, context)
    return jnp.sum(model.readout(state, context) ** 2)

  back = made.read + made.backward(0) + made.write
  want = B * (made.forward(1) + back * 2).total
  assert dot_flops(jax.grad(loss), params, rest, tokens(cfg)) == want


def test_what_the_cost_of_a_published_model_is():
  cfg = FAMILIES['huginn'].config()
  made = outline('huginn', cfg, 1)
  width, hidden = 5280, 17920
  layer = 4 * width**2 + 3 * width * hidden
  assert made.step().weights == 2 * (4 * layer + 2 * width**2)
  assert made.write.weights == 2 * (2 * layer + width * 65536)
  # A read-out after every recurrence costs two thirds of one.
  assert 0.65 < made.write.total / made.step().total < 0.71


@pytest.mark.parametrize(
  ('name', 'index', 'length', 'named'),
  [
    ('trm', 1, 5, 'seq_len = 4'),
    ('feedforward', 1, 6, 'seq_len = 5'),
    ('ouro', 0, 0, 'tokens'),
  ],
)
def test_a_length_the_model_cannot_read(name, index, length, named):
  _, cfg, *_ = tiny(name, index)
  with pytest.raises(ValueError, match=named):
    outline(name, cfg, length)


@pytest.mark.parametrize('mask', ['none', 'causal', 'window', 'prefix'])
@pytest.mark.parametrize(('length', 'reach'), [(1, 1), (7, 3), (7, 9)])
def test_unmasked_pairs(mask, length, reach):
  block = BlockConfig(mask=mask, window=reach, prefix=reach)
  mask_TS = mask_of(mask, length, window=reach, prefix=reach)
  pairs = length**2 if mask_TS is None else int(mask_TS.sum())
  assert unmasked_pairs(block, length, length) == pairs
  # Token by token behind a cache nothing ahead is read, in no mask.
  ahead = {'none': length, 'prefix': min(reach, length)}.get(mask, 0)
  one = sum(unmasked_pairs(block, 1, t + 1) for t in range(length))
  assert one == pairs - ahead * (ahead - 1) // 2
