"""FPRM: a map whose fixed point is known, its norms, and its windows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.zoo import FAMILIES, Plan, fprm, run
from loopformer.zoo.family import step as loop_step
from tests.models import f64, family_model, filled, normal, row_keys
from tests.reasoners import (
  BLOCK,
  INPUTS,
  TINY,
  D,
  L,
  P,
  assert_close,
  assert_unit,
  assert_zero,
  gradients,
  segment,
  start,
  with_cells,
)

PRE = dataclasses.replace(BLOCK, style='pre')
CFG = fprm.Config(**{**TINY, 'block': PRE})
PLAIN = dataclasses.replace(CFG, conv='none')
go = jax.jit(lambda model, y, x: segment(model, {'y': y}, x)['y'])
A1, A2 = 0.75, 0.25


def cells(cfg):
  return with_cells(family_model('fprm', cfg))


def silent(cfg):
  """Branches that add nothing, a convolution that is the identity."""
  model = filled(FAMILIES['fprm'].abstract(cfg))
  layers = model.stack.layers
  for last in (layers.mixer.layer.out, layers.mlp.layer.down):
    last.kernel.set_value(jnp.zeros_like(last.kernel[...]))
  kernel = jnp.zeros_like(model.convolution.kernel[...])
  here = (1, 1) if cfg.conv == 'square' else (-1,)
  model.convolution.kernel.set_value(kernel.at[here].set(1.0))
  for alpha, value in ((model.scale.inner, A1), (model.scale.outer, A2)):
    alpha.set_value(jnp.full(D, np.log(value / (1 - value))))
  return model


@pytest.mark.parametrize('conv, taps', [('square', 3), ('line', 4)])
def test_with_silent_branches_the_fixed_point_is_known(conv, taps):
  """g(y) = a1^4 (a2 y + b2 x): slope 0.0791015625, fixed point a1^4 x."""
  cfg = dataclasses.replace(CFG, layers=2, conv=conv, conv_taps=taps)
  model, slope = silent(cfg), 0.0791015625
  y, x, other = (normal(2, L, D, seed=seed) for seed in range(3))
  here, there = f64(go(model, y, x)), f64(go(model, other, x))
  want = slope * f64(y) + A1**4 * (1 - slope) * f64(x)
  np.testing.assert_allclose(here, want, atol=1e-6)
  np.testing.assert_allclose(here - there, slope * f64(y - other), atol=1e-6)
  still = A1**4 * x
  np.testing.assert_allclose(go(model, still, x), still, atol=1e-6)


def test_the_published_solver_finds_it_from_noise():
  """Damping moves no fixed point: 6 sigma shrink below 1e-4 in a few steps."""
  model = silent(dataclasses.replace(CFG, layers=2))
  halt = core.fixed_point(1e-4, norm='token_max')
  solver = core.patience_damped()
  plan = Plan(halt, 30, core.none(), solver, 'token_max')
  solve = jax.jit(lambda m: run(m, INPUTS, plan, keys_B=row_keys(2)))
  result, x_BLD = solve(model)
  assert (np.asarray(result.steps_B) < 10).all()
  np.testing.assert_allclose(result.state['y'], A1**4 * x_BLD, atol=1e-3)


def test_the_prefix_is_not_convolved():
  """A cell of the prefix does not reach the grid, nor the grid the prefix."""
  cfg = dataclasses.replace(CFG, conv='line', conv_taps=4)
  model = family_model('fprm', cfg)
  y, change = normal(2, L, D), normal(D, seed=5)
  convolved = jax.jit(lambda y_BLD: model._convolved(y_BLD))
  np.testing.assert_array_equal(convolved(y)[:, :P], y[:, :P])
  for token in (0, P - 1, P):
    moved = convolved(y.at[:, token].add(change)) != convolved(y)
    moved_T = np.asarray(moved).any((0, 2))
    reach = np.arange(L) >= token
    want = np.arange(L) == token if token < P else reach
    np.testing.assert_array_equal(moved_T, want)


def test_where_the_map_normalises():
  y, x = normal(2, L, D), normal(2, L, D, seed=1)
  model = cells(dataclasses.replace(PLAIN, map_norm='output'))
  assert_unit(go(model, y, x))
  # Doubling what is normalised changes nothing.
  for fields, doubled in (
    ({'map_norm': 'input', 'residual_scale': 'fixed'}, (2 * y, x)),
    ({'inject_norm': True}, (y, 2 * x)),
  ):
    model = cells(dataclasses.replace(PLAIN, **fields))
    out = go(model, y, x)
    np.testing.assert_allclose(go(model, *doubled), out, atol=1e-4)
    assert np.abs(go(cells(PLAIN), *doubled) - out).max() > 0.1


def test_a_window_keeps_the_gradient_of_its_own_recurrences():
  """None reaches the state before it; the window's is that of plain calls."""
  model, (state, x_BLD) = cells(PLAIN), start(['y'])

  def window(model, state, x_BLD):
    result = core.iterate(
      loop_step,
      state,
      (model, x_BLD),
      halt=core.fixed_steps(),
      max_steps=3,
      adjoint=core.last_k(2),
    )
    return result.state

  ours = gradients(window, model, state, x_BLD)
  assert_zero(ours[1])
  before = {'y': go(model, state['y'], x_BLD)}
  want = gradients(twice, model, before, x_BLD)
  assert_close((ours[0], ours[2]), (want[0], want[2]))


def twice(model, state, x_BLD):
  return segment(model, segment(model, state, x_BLD), x_BLD)


def test_the_map_itself_has_a_gradient_of_the_state():
  state, x_BLD = start(['y'])
  grads = gradients(segment, cells(PLAIN), state, x_BLD)
  assert np.abs(grads[1]['y'][:, P:]).min() > 0


def test_spectral_scales_bound_the_map_and_keep_their_vectors():
  """|g| <= max(|y|, |x|, 1): each number is a mean of y, x and branches."""
  model = cells(dataclasses.replace(PLAIN, residual_scale='spectral'))
  state, x_BLD = start(['y'])
  y_BLD = go(model, 9 * state['y'], x_BLD)
  assert np.abs(y_BLD).max() <= 9 * np.abs(state['y']).max()
  grads = gradients(segment, model, state, x_BLD)[0]['scale']
  assert set(grads['inner']) == {'kernel', 'bias', 'scale'}
  assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(grads))


def test_without_a_convolution_no_taps_are_needed():
  assert dataclasses.replace(PLAIN, conv_taps=0).conv_taps == 0


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'conv': 'round'}, 'conv must be one of .* got .round.'),
    ({'conv_taps': 0}, 'conv_taps must be >= 1, got 0'),
    ({'conv_taps': 4}, 'conv_taps must be odd on a square, got 4'),
    ({'residual_scale': 'tied'}, 'residual_scale must be one of'),
    ({'alpha_inner': 1.0}, 'alpha_inner must be in .* got 1.0'),
    ({'alpha_outer': 0.0}, 'alpha_outer must be in .* got 0.0'),
    ({'map_norm': 'both'}, 'map_norm must be one of .* got .both.'),
  ],
)
def test_wrong_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=f'^{message}'):
    FAMILIES['fprm'].abstract(fprm.Config(**fields))
