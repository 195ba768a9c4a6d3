"""HRM: the one-step gradient, unit states, and halting that starts shut."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.nn.q_learning import halt_and_continue_terms
from loopformer.zoo import FAMILIES, Plan, hrm, run
from tests.models import family_model
from tests.reasoners import (
  INPUTS,
  TINY,
  D,
  assert_close,
  assert_unit,
  assert_zero,
  by_hand,
  gradients,
  segment,
  start,
  with_cells,
)

CFG = hrm.Config(**{**TINY, 'high_layers': 1})


def cells(high_cycles, low_cycles):
  cfg = dataclasses.replace(CFG, high_cycles=high_cycles, low_cycles=low_cycles)
  return with_cells(family_model('hrm', cfg))


@pytest.mark.parametrize('cycles', [(1, 1), (2, 2), (1, 3)])
def test_the_gradient_is_that_of_the_last_two_calls(cycles):
  """The last fast and the last slow one, from a state that is given."""
  model, (state, x_BLD) = cells(*cycles), start()
  ours = gradients(segment, model, state, x_BLD)
  assert_zero(ours[1])
  warm = range(cycles[0] * (cycles[1] + 1) - 2)
  before = by_hand(model, state, x_BLD, warm)
  want = gradients(suffix, cells(1, 1), before, x_BLD)
  assert_close((ours[0], ours[2]), (want[0], want[2]))


def suffix(model, state, x_BLD):
  return by_hand(model, state, x_BLD, (0, 1))


def test_states_have_unit_size_after_a_segment():
  state, x_BLD = start()
  assert_unit(jax.jit(segment)(family_model('hrm', CFG), state, x_BLD))


def test_at_the_start_no_row_halts():
  """Both values are -5, and only a larger one halts."""
  model = cells(1, 1)
  model.q_head.kernel.set_value(jnp.zeros((D, 2)))
  model.q_head.bias.set_value(jnp.full(2, -5.0))
  halt = core.q_halts_over_continue(FAMILIES['hrm'].heads(CFG)['q'])
  result, _ = jax.jit(lambda m: run(m, INPUTS, Plan(halt, 3)))(model)
  np.testing.assert_array_equal(result.steps_B, 3)
  np.testing.assert_array_equal(model.q_values(result.state), -5.0)
  assert FAMILIES['hrm'].terms is halt_and_continue_terms


def test_wrong_fields_are_named():
  with pytest.raises(ValueError, match='^gradient must be one of .* got .all.'):
    hrm.Config(gradient='all')
