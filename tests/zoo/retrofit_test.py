"""Retrofitted decoders: one recurrence is the decoder they are made of."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loopformer import core
from loopformer.nn.config import BlockConfig
from loopformer.nn.variables import count_parameters
from loopformer.zoo import FAMILIES, Plan, feedforward, retrofit, run
from tests.models import family_model, row_keys

D = 8
BLOCK = BlockConfig(width=D, heads=2, hidden=12, mask='causal')
SOURCE = feedforward.Config(vocab_size=7, seq_len=4, block=BLOCK, layers=6)
CFG = retrofit.Config(
  vocab_size=7,
  seq_len=4,
  block=BLOCK,
  prelude=1,
  core=2,
  coda=1,
  embed_scale=0.0,
)
INPUTS = jnp.array([[1, 2, 3, 4], [6, 0, 6, 0]])


def test_counts_of_tinyllama_before_and_after():
  cfg = feedforward.Config(
    vocab_size=32000, block=retrofit.published_block(), layers=22
  )
  layer = 2 * 2048**2 + 2 * 2048 * 256 + 3 * 2048 * 5632 + 2 * 2048
  source = count_parameters(FAMILIES['feedforward'].abstract(cfg))
  assert source == 1_100_048_384
  ours = count_parameters(FAMILIES['retrofit'].abstract(retrofit.Config()))
  assert ours == source - 6 * layer + 2 * 2048**2


def once(model):
  """Logits after one recurrence."""
  plan = Plan(core.fixed_steps(), 1)
  result, context = run(model, INPUTS, plan, keys_B=row_keys(2))
  return model.readout(result.state, context)


compiled = jax.jit(once)


@pytest.mark.parametrize(
  ('parts', 'layers'),
  [
    ((1, 2, 1), (0, 2, 3, 5)),
    ((1, 4, 1), (0, 1, 2, 3, 4, 5)),
    ((0, 1, 0), (3,)),
  ],
)
def test_one_recurrence_is_the_source_without_what_is_dropped(parts, layers):
  cfg = dataclasses.replace(
    CFG, **dict(zip(('prelude', 'core', 'coda'), parts, strict=True))
  )
  source = family_model('feedforward', SOURCE)
  model = retrofit.from_decoder(cfg, source, layers)
  kept = dataclasses.replace(SOURCE, layers=len(layers))
  shallow = nnx.clone(family_model('feedforward', kept))
  for name in ('embedding', 'final_norm', 'head'):
    setattr(shallow, name, getattr(source, name))
  shallow.block = jax.tree.map(lambda x: x[jnp.array(layers)], source.block)
  with jax.disable_jit():  # compiled, the two may be rounded apart
    want = once(shallow)
    np.testing.assert_array_equal(once(model), want)
    if len(layers) == SOURCE.layers:
      np.testing.assert_array_equal(want, once(source))
  np.testing.assert_allclose(compiled(model), want, atol=1e-5)


def test_the_source_is_not_changed_and_nothing_is_shared():
  source = family_model('feedforward', SOURCE)
  model = retrofit.from_decoder(CFG, source, (0, 2, 3, 5))
  before = source.head.kernel[...].copy()
  model.head.kernel.set_value(0 * before)
  np.testing.assert_array_equal(source.head.kernel, before)


def test_the_state_starts_as_small_as_published():
  assert retrofit.Config().start_deviation == 0.0087039


@pytest.mark.parametrize(
  ('fields', 'layers', 'message'),
  [
    ({}, (0, 2, 3, 6), 'source.layers must be below the 6'),
    ({'vocab_size': 8}, (0, 2, 3, 5), 'model.vocab_size must be that of'),
    ({'embed_scale': 1.0}, (0, 2, 3, 5), 'model.embed_scale must be that of'),
    ({'injection': 'add'}, (0, 2, 3, 5), 'model must have injection concat'),
    ({'tied': True}, (0, 2, 3, 5), 'an untied head'),
  ],
)
def test_a_source_that_does_not_fit_is_refused(fields, layers, message):
  cfg = dataclasses.replace(CFG, **fields)
  with pytest.raises(ValueError, match=message):
    retrofit.from_decoder(cfg, family_model('feedforward', SOURCE), layers)
