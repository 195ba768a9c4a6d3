"""URM: the gradient of the last cycle, and a convolution past the prefix."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.zoo import FAMILIES, urm
from tests.models import family_model, filled, normal
from tests.reasoners import (
  TINY,
  D,
  L,
  assert_close,
  assert_unit,
  assert_zero,
  gradients,
  segment,
  start,
  with_cells,
)

CFG = urm.Config(**{**TINY, 'low_cycles': 2})


def cells(high_cycles):
  cfg = dataclasses.replace(CFG, high_cycles=high_cycles)
  return with_cells(family_model('urm', cfg))


def cycle(model, state, x_BLD):
  z_BLD = model.stack(state['hidden'], x_BLD)
  return {'hidden': model.stack(z_BLD, x_BLD)}


@pytest.mark.parametrize('high_cycles', [1, 3])
def test_the_gradient_is_that_of_the_last_cycle(high_cycles):
  model, (state, x_BLD) = cells(high_cycles), start(['hidden'])
  ours = gradients(segment, model, state, x_BLD)
  assert_zero(ours[1])
  for _ in range(high_cycles - 1):
    state = cycle(model, state, x_BLD)
  want = gradients(cycle, cells(1), state, x_BLD)
  assert_close((ours[0], ours[2]), (want[0], want[2]))


def test_states_have_unit_size_after_a_segment():
  state, x_BLD = start(['hidden'])
  assert_unit(jax.jit(segment)(family_model('urm', CFG), state, x_BLD))


@pytest.mark.parametrize('calls', [1, 2])
def test_a_token_reads_itself_and_the_one_before(calls):
  """With attention silent a call moves what changed on by one token, out of
  the prefix into the cells."""
  cfg = dataclasses.replace(CFG, high_cycles=1, low_cycles=calls)
  model = filled(FAMILIES['urm'].abstract(cfg))
  out = model.stack.layers.mixer.layer.out
  out.kernel.set_value(jnp.zeros_like(out.kernel[...]))
  state, x_BLD = start(['hidden'])
  step = jax.jit(lambda x_BLD: segment(model, state, x_BLD)['hidden'])
  for token in range(L):
    other = x_BLD.at[:, token].add(normal(D, seed=5))
    moved_T = np.abs(step(other) - step(x_BLD)).max((0, 2)) > 0
    reach = np.arange(L) - token
    np.testing.assert_array_equal(moved_T, (reach >= 0) & (reach <= calls))


def test_the_convolution_has_a_bias_and_two_taps():
  conv = family_model('urm', CFG).stack.layers.mlp.layer.convolution
  assert conv.kernel.shape == (1, 2, 1, 8)
  assert conv.bias.shape == (1, 8)


@pytest.mark.parametrize('field', ['high_cycles', 'low_cycles'])
def test_wrong_fields_are_named(field):
  with pytest.raises(ValueError, match=f'^{field} must be >= 1, got 0'):
    urm.Config(**{field: 0})
