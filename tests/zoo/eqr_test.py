"""EqR: damped and noisy calls, fresh starts, and TRM's recursion within it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.zoo import Plan, eqr, run, trm
from tests.models import family_model, row_keys
from tests.reasoners import (
  INPUTS,
  TINY,
  assert_close,
  assert_zero,
  by_hand,
  gradients,
  segment,
  start,
  with_cells,
)

CFG = eqr.Config(**{**TINY, 'low_cycles': 2})
BARE = dataclasses.replace(
  CFG, puzzle_width=0, prefix=0, noise=0.5, high_cycles=1
)
LAST = range(6, 9)


def cells(name, cfg):
  return with_cells(family_model(name, cfg))


def recursion(model, state, x_BLD):
  return by_hand(model, state, x_BLD, LAST)


def test_a_segment_is_its_damped_calls():
  """z <- 0.05 z + 0.95 f, and the gradient is that of the last recursion."""
  assert (CFG.damping, CFG.noise) == (0.95, 0.01)
  cfg = dataclasses.replace(CFG, noise=0.0)
  model, (state, x_BLD) = cells('eqr', cfg), start()
  want = by_hand(model, state, x_BLD, range(9))
  assert_close(jax.jit(segment)(model, state, x_BLD), want, 1e-5)
  ours = gradients(segment, model, state, x_BLD)
  before = by_hand(model, state, x_BLD, range(6))
  want = gradients(recursion, model, before, x_BLD)
  assert_zero(ours[1])
  assert_close((ours[0], ours[2]), (want[0], want[2]))


def test_without_damping_and_noise_it_is_trm():
  cfg = dataclasses.replace(CFG, damping=1.0, noise=0.0, start='stored')
  published = trm.Config(**{**TINY, 'low_cycles': 2})
  outs = [
    jax.jit(segment)(cells(name, cfg), *start())
    for name, cfg in (('eqr', cfg), ('trm', published))
  ]
  jax.tree.map(np.testing.assert_array_equal, *outs)


@jax.jit
def path(model, inputs_BT, keys_B):
  """The state after each of two segments, and the start."""
  result, x_BLD = run(
    model,
    inputs_BT,
    Plan(core.fixed_steps(), 2),
    keys_B=keys_B,
    trace=lambda state, args, info: state,
  )
  return result.trace.values, model.init_state(x_BLD, keys_B), x_BLD


def test_every_recurrence_has_noise_of_its_own():
  """The keys of a segment are folded with the number of it."""
  model, keys_B = cells('eqr', BARE), row_keys(2)
  states, before, x_BLD = path(model, INPUTS, keys_B)
  for t in range(2):
    folded = core.rows.fold_rows(keys_B, jnp.full(2, t))
    before = by_hand(model, before, x_BLD, range(3), folded)
    assert_close(jax.tree.map(lambda x, t=t: x[t], states), before, 1e-5)


def test_another_key_is_another_start_and_path():
  model, same = cells('eqr', BARE), jnp.tile(INPUTS[:1], (2, 1))
  high = path(model, same, row_keys(2))[0]['high']
  assert (np.abs(high[:, 0] - high[:, 1]).max((1, 2)) > 0.1).all()
  twice = path(model, same, row_keys(2)[jnp.array([1, 1])])[0]['high']
  np.testing.assert_array_equal(twice[:, 0], twice[:, 1])
  np.testing.assert_array_equal(twice[:, 0], high[:, 1])


def test_the_values_are_read_off_the_first_cell():
  model = family_model('eqr', BARE)
  assert model.embed(INPUTS).shape == (2, 4, 8)
  assert model.puzzle_rows(jnp.zeros(2, int)) is None
  state = {'high': jnp.zeros((2, 4, 8)).at[:, 0].set(1.0)}
  want = model.q_head(jnp.ones((2, 8)))
  np.testing.assert_allclose(model.q_values(state), want, rtol=1e-6)


def test_wrong_fields_are_named():
  with pytest.raises(ValueError, match='^damping must be in .* got 0'):
    eqr.Config(damping=0)
