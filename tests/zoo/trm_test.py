"""TRM: the gradient of a whole recursion, one stack, MLP across the tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loopformer.nn.q_learning import Supervised
from loopformer.zoo import FAMILIES, trm
from tests.models import family_model, normal
from tests.reasoners import (
  INPUTS,
  TINY,
  D,
  L,
  assert_close,
  assert_unit,
  assert_zero,
  by_hand,
  gradients,
  segment,
  start,
  with_cells,
)

CFG = trm.Config(**{**TINY, 'low_cycles': 2})
ACROSS = dataclasses.replace(CFG, mixer='mlp', mixer_hidden=8)
ONCE = dataclasses.replace(CFG, high_cycles=1, low_cycles=1)


def cells(high_cycles):
  cfg = dataclasses.replace(CFG, high_cycles=high_cycles)
  return with_cells(family_model('trm', cfg))


def recursion(model, state, x_BLD):
  return by_hand(model, state, x_BLD, (0, 1, 2))


@pytest.mark.parametrize('high_cycles', [1, 2, 3])
def test_the_gradient_is_that_of_the_last_recursion(high_cycles):
  """However many recursions led to the state that it starts from."""
  model, (state, x_BLD) = cells(high_cycles), start()
  ours = gradients(segment, model, state, x_BLD)
  assert_zero(ours[1])
  before = by_hand(model, state, x_BLD, range(3 * (high_cycles - 1)))
  want = gradients(recursion, cells(1), before, x_BLD)
  assert_close((ours[0], ours[2]), (want[0], want[2]))


def test_one_stack_serves_both_states():
  assert not hasattr(family_model('trm', CFG), 'high')


def test_the_value_of_going_on_is_not_trained():
  state = {'high': normal(2, L, D)}
  told = Supervised(state, jnp.array([True, False]), jnp.zeros(2, bool), None)
  loss = lambda model: FAMILIES['trm'].terms(model, told).sum()
  grads = nnx.grad(loss)(family_model('trm', CFG))['q_head']
  for array in (grads['kernel'][...], grads['bias'][...]):
    assert_zero(array[..., 1])
    assert (np.abs(array[..., 0]) > 0).all()


@jax.jit
def answers(model, inputs_BT):
  """Logits and Q-values after a segment, and its state."""
  x_BLD = model.embed(inputs_BT)
  after = segment(model, model.init_state(x_BLD, None), x_BLD)
  return model.readout(after, x_BLD), model.q_values(after), after


@pytest.mark.parametrize('cfg', [ONCE, ACROSS], ids=['attention', 'mlp'])
def test_cells_without_positions_are_a_set_to_attention_alone(cfg):
  """Only attention moves the answers with the cells; states have size 1."""
  model, order = family_model('trm', cfg), np.array([2, 0, 3, 1])
  logits, q_B2, state = answers(model, INPUTS)
  moved, moved_q_B2, _ = answers(model, INPUTS[:, order])
  off = np.abs(moved - logits[:, order]).max()
  off_q = np.abs(moved_q_B2 - q_B2).max()
  if cfg.mixer == 'attention':
    assert max(off, off_q) < 1e-5
  else:
    assert min(off, off_q) > 1e-2
  assert_unit(state)


def test_an_mlp_across_the_tokens_takes_one_length():
  model = family_model('trm', ACROSS)
  assert model.low.layers.mixer.layer.up.kernel.shape == (1, L, 2 * 8)
  with pytest.raises(ValueError, match="seq_len = 4 tokens.*'mlp'.* got 3"):
    model.embed(INPUTS[:, :3])


def test_wrong_fields_are_named():
  with pytest.raises(ValueError, match='^low_cycles must be >= 1, got 0'):
    trm.Config(low_cycles=0)
