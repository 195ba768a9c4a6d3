"""The feed-forward baseline, and looped models unrolled into it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loopformer import core
from loopformer.nn.config import BlockConfig
from loopformer.nn.variables import count_parameters
from loopformer.zoo import FAMILIES, Plan, feedforward, output_logits, run
from tests.models import family_model

BLOCK = BlockConfig(width=8, heads=2, hidden=12, mask='causal')
CFG = feedforward.Config(vocab_size=7, seq_len=5, block=BLOCK, layers=3)
INPUTS = jnp.array([[1, 2, 3, 4, 5], [6, 0, 6, 0, 6]])


def logits(model, steps):
  plan = Plan(core.fixed_steps(), steps)

  @jax.jit
  def read(model):
    result, context = run(model, INPUTS, plan)
    return output_logits(model, result, context)

  return read(model)


def layer_size(block):
  """Attention 2 D^2 + 2 D G K, SwiGLU 3 D F, and a gain per norm."""
  D, F = block.width, block.hidden_width
  kv = block.groups * block.head_width
  norms = 4 if 'sandwich' in block.style else 2
  return 2 * D * D + 2 * D * kv + 3 * D * F + norms * D


@pytest.mark.parametrize('positions', ['none', 'learned'])
@pytest.mark.parametrize('kv_heads', [0, 1])
@pytest.mark.parametrize('style', ['pre', 'sandwich_sum'])
def test_parameter_count(positions, kv_heads, style):
  block = dataclasses.replace(BLOCK, kv_heads=kv_heads, style=style)
  cfg = dataclasses.replace(
    CFG, block=block, positions=positions, num_classes=4
  )
  want = 7 * 8 + 3 * layer_size(block) + 8 + 8 * 4
  want += 5 * 8 if positions == 'learned' else 0
  assert count_parameters(FAMILIES['feedforward'].abstract(cfg)) == want


def unrolled(looped, cfg, parts):
  """A feed-forward model whose layers are the looped model's, in order."""
  family = FAMILIES['feedforward']
  model = family.abstract(cfg)
  graph, params, rest = nnx.split(model, nnx.Param, ...)
  source = nnx.state(looped, nnx.Param)
  layers = [source[name]['layers'] for name in parts]
  params['embedding'] = source['embedding']
  params['head'] = source['head']
  params['final_norm'] = source['final_norm']
  params['block']['layers'] = jax.tree.map(
    lambda *xs: jnp.concatenate(xs), *layers
  )
  return nnx.merge(graph, params, rest)


def test_a_universal_transformer_is_shared_layers():
  universal = family_model(
    'universal',
    FAMILIES['universal'].config(
      vocab_size=7,
      seq_len=5,
      block=BLOCK,
      layers=2,
      step_signal=False,
      final_norm=True,
    ),
  )
  cfg = dataclasses.replace(CFG, layers=6)
  deep = unrolled(universal, cfg, ['block'] * 3)
  np.testing.assert_allclose(
    logits(universal, 3), logits(deep, 1), rtol=1e-5, atol=1e-5
  )
  assert count_parameters(deep) - count_parameters(universal) == (
    4 * layer_size(BLOCK)
  )


def test_recurrent_depth_is_prelude_shared_core_and_coda():
  looped = family_model(
    'recurrent_depth',
    FAMILIES['recurrent_depth'].config(
      vocab_size=7,
      seq_len=5,
      block=BLOCK,
      core=1,
      injection='none',
      start='embed',
      loop_norm='none',
    ),
  )
  cfg = dataclasses.replace(CFG, layers=5)
  deep = unrolled(looped, cfg, ['prelude', 'core', 'core', 'core', 'coda'])
  np.testing.assert_allclose(
    logits(looped, 3), logits(deep, 1), rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'layers': 0}, 'layers must be >= 1, got 0.'),
    ({'vocab_size': 0}, 'vocab_size must be >= 1, got 0.'),
    ({'num_classes': -1}, 'num_classes must be >= 0, got -1.'),
    (
      {'positions': 'rope'},
      "positions must be one of ('none', 'learned', 'sinusoidal'), got 'rope'.",
    ),
  ],
)
def test_errors_name_the_field(fields, message):
  with pytest.raises(ValueError) as error:
    feedforward.Config(**fields)
  assert str(error.value) == message
