"""Solvers on linear maps: what they reach, in how many steps."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core import Cause, solvers
from tests.core import affine


@pytest.fixture(autouse=True)
def double_precision():
  with jax.enable_x64(True):
    yield


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def solve(args, solver, halt, max_steps, state=None):
  state = jnp.zeros_like(args[1]) if state is None else state
  return core.iterate(
    affine.step,
    state,
    args,
    halt=halt,
    max_steps=max_steps,
    adjoint=core.none(),
    solver=solver,
    trace=lambda s, a, i: s,
  )


def problem(*args, **kw):
  return jax.tree.map(jnp.asarray, affine.contraction(*args, **kw))


NEVER = core.fixed_steps()
unridged = jax.jit(functools.partial(solvers.anderson_weights, ridge=0.0))
EXACT = {d: core.anderson(d + 1, ridge=0.0) for d in (1, 2, 4)}


@hypothesis.settings(derandomize=True, max_examples=12, deadline=None)
@hypothesis.given(st.sampled_from(sorted(EXACT)), st.integers(0, 999))
def test_anderson_solves_a_d_dimensional_affine_map_in_d_plus_1_steps(d, seed):
  with jax.enable_x64(True):
    args = problem(seed, d, 0.9)
    result = solve(args, EXACT[d], NEVER, d + 1)
    limit = affine.limit(args)
    np.testing.assert_allclose(result.state, limit, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(result.steps_B, d + 1)


def test_history_is_aligned():
  """The misread ring buffer of public code stays at residual 1.0000.

  On a 40-dimensional contraction an aligned history falls at every step, and
  below Picard once there is a history to use.
  """
  args = jax.tree.map(jnp.asarray, affine.symmetric(1, 40, 0.9))
  fast = solve(args, core.anderson(6), NEVER, 12)
  slow = solve(args, core.picard(), NEVER, 12)
  ours, plain = (np.asarray(r.trace.residual_RB) for r in (fast, slow))
  np.testing.assert_array_equal(ours[0], 1)
  assert np.all(ours[1:] < 0.9 * ours[:-1])
  assert np.all(ours[2:] < plain[2:])
  assert np.all(ours[6] < 0.02)


def test_anderson_beats_picard_on_a_slow_contraction():
  args = jax.tree.map(jnp.asarray, affine.symmetric(3, 6, 0.99))
  halt = core.fixed_point(1e-6)
  fast = solve(args, core.anderson(5), halt, 2000)
  slow = solve(args, core.picard(), halt, 2000)
  assert np.all(fast.cause_B == Cause.CONVERGED)
  assert np.all(fast.steps_B < 60) and np.all(slow.steps_B > 300)


def test_the_ring_buffer_wraps():
  """More steps than history: the oldest pair is the one replaced."""
  solver = core.anderson(2)
  update = jax.jit(solver.update)
  args = problem(5, 3, 0.8)
  state = solver.init(jnp.zeros_like(args[1]), 1)
  z, pairs = jnp.zeros_like(args[1]), []
  for _ in range(5):
    mapped = affine.step(z, (), args, None)[0]
    pairs.append((z, mapped))
    state, z = update(state, z, mapped, jnp.ones(3))
  kept = {np.asarray(x).tobytes() for x in jnp.moveaxis(state.z_BmN, 1, 0)}
  assert kept == {np.asarray(p[0]).tobytes() for p in pairs[-2:]}
  np.testing.assert_array_equal(state.count_B, 5)


def grow(state, aux, args, info):
  """Every step is further from the fixed point 0 than the one before."""
  del args, info
  return -3.0 * state - state**2, aux


def test_best_iterate_defined_when_nothing_improves():
  start = jnp.array([[0.1], [0.2]])
  result = core.iterate(
    grow, start, (), halt=NEVER, max_steps=1, solver=core.anderson(1)
  )
  first = np.abs(-3 * start - start**2 - start) / np.abs(-3 * start - start**2)
  np.testing.assert_array_equal(result.state, start)
  np.testing.assert_allclose(result.residual_B, first[:, 0], 1e-12)
  still = core.iterate(
    grow, start, (), halt=NEVER, max_steps=0, solver=core.anderson(2)
  )
  np.testing.assert_array_equal(still.state, start)
  np.testing.assert_allclose(still.residual_B, first[:, 0], 1e-12)


def test_the_lowest_residual_iterate_is_returned_with_its_residual():
  """Checked against the residual of every iterate in the trace."""

  def step(state, aux, args, info):
    return 2 * jnp.cos(3 * state), aux

  start = jnp.linspace(0, 2, 5)[:, None]
  loop = lambda: core.iterate(
    step,
    start,
    (),
    halt=NEVER,
    max_steps=5,
    solver=core.anderson(2),
    trace=lambda s, a, i: s,
  )
  result = jax.jit(loop)()
  iterates = np.concatenate([start[None], result.trace.values])
  mapped = 2 * np.cos(3 * iterates)
  residual = (np.abs(mapped - iterates) / np.abs(mapped))[..., 0]
  best = residual.argmin(0)
  assert np.any(best < 5) and np.any(best == 5)
  np.testing.assert_allclose(result.residual_B, residual.min(0), 1e-9)
  chosen = np.take_along_axis(iterates[..., 0], best[None], 0)[0]
  np.testing.assert_allclose(result.state[:, 0], chosen, 1e-12)


def test_a_singular_system_falls_back_per_row():
  """A row at its fixed point and one with a repeated pair take Picard steps."""
  d = 3
  args = problem(2, d, 0.9, rows=3)
  state = jnp.zeros((3, d)).at[0].set(affine.limit(args)[0])
  matrix, offset = args
  offset = offset.at[2].set(0)
  result = solve((matrix, offset), EXACT[4], NEVER, d + 2, state)
  limit = affine.limit((matrix, offset))
  np.testing.assert_allclose(result.state, limit, atol=1e-6)
  assert np.isfinite(result.residual_B).all()
  np.testing.assert_array_equal(result.state[2], 0)
  g = jnp.array([[[1.0, 2.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]])
  weight, solved = unridged(g, jnp.ones((2, 2), bool))
  np.testing.assert_array_equal(solved, [False, True])
  np.testing.assert_allclose(weight, [[0, 0], [0.5, 0.5]])


def test_a_singular_row_does_not_poison_the_gradient():
  args = problem(2, 3, 0.9, rows=3)
  state = jnp.zeros((3, 3)).at[0].set(affine.limit(args)[0])
  args = (args[0], args[1].at[2].set(0))

  def loss(args, solver, steps):
    result = core.iterate(
      affine.step, state, args, halt=NEVER, max_steps=steps, solver=solver
    )
    return result.state.sum()

  grads = jax.jit(jax.grad(loss), static_argnums=(1, 2))(args, EXACT[4], 4)
  assert all(np.isfinite(x).all() for x in grads)


def test_the_gradient_of_anderson_weights_matches_finite_differences():
  g = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)))
  filled = jnp.ones((2, 3), bool)
  f = jax.jit(
    lambda g: jnp.sin(solvers.anderson_weights(g, filled, 1e-3)[0]).sum()
  )
  way = jnp.asarray(np.random.default_rng(1).normal(size=g.shape))
  slope = (f(g + 1e-6 * way) - f(g - 1e-6 * way)) / 2e-6
  np.testing.assert_allclose(jnp.vdot(jax.grad(f)(g), way), slope, 1e-6)


def test_anderson_weights_by_hand():
  """g = (2, -1) in one dimension: a = (1/3, 2/3) makes sum a g zero."""
  g = jnp.array([[[2.0], [-1.0], [9.0]]])
  filled = jnp.array([[True, True, False]])
  weight, solved = unridged(g, filled)
  assert solved[0]
  np.testing.assert_allclose(weight, [[1 / 3, 2 / 3, 0]], atol=1e-12)


@pytest.mark.parametrize(
  'solver', [core.damped(0.3), core.patience_damped(), core.anderson(3)]
)
def test_no_solver_changes_a_fixed_point(solver):
  args = problem(4, 3, 0.7)
  limit = affine.limit(args)
  result = solve(args, solver, core.fixed_point(1e-12), 300)
  np.testing.assert_allclose(result.state, limit, 1e-9)
  stay = solve(args, solver, NEVER, 3, jnp.asarray(limit))
  np.testing.assert_allclose(stay.state, limit, 1e-12)
  assert np.all(stay.residual_B < 1e-12)


def test_damped_by_hand():
  """z <- (1 - beta) z + beta (c z + b), so the rate is 1 - beta (1 - c)."""
  args = (jnp.full((1, 1), 0.5), jnp.ones((1, 1)))
  result = solve(args, core.damped(0.4), NEVER, 6)
  np.testing.assert_allclose(result.state, [[2 * (1 - 0.8**6)]], 1e-12)


def test_an_oscillation_converges_only_with_patience_damping():
  """h <- b - h (c = -1) has the fixed point b / 2 and never reaches it."""
  args = (-jnp.ones((1, 1)), jnp.ones((2, 1)))
  start = jnp.array([[3.0], [-1.0]])
  halt = core.fixed_point(1e-8)
  plain = solve(args, core.picard(), halt, 200, start)
  np.testing.assert_array_equal(plain.cause_B, Cause.CAP)
  np.testing.assert_array_equal(plain.state, start)
  slower = solve(args, core.patience_damped(), halt, 200, start)
  np.testing.assert_array_equal(slower.cause_B, Cause.CONVERGED)
  np.testing.assert_allclose(slower.state, 0.5, 1e-7)


def test_patience_by_hand():
  """Two steps without progress shrink s; a small residual never does."""
  solver = core.patience_damped(decay=0.5, patience=2, threshold=0.1)
  state = solver.init(jnp.zeros((1, 1)), 1)
  zero = jnp.zeros((1, 1))
  rates = []
  for residual in (0.8, 0.9, jnp.nan, 0.7, 0.9, 0.9, 0.05, 0.06, 0.06, 0.06):
    state, _ = solver.update(state, zero, zero, jnp.array([residual]))
    rates.append(float(state.rate_B[0]))
  assert rates == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_patience_against_a_plain_loop():
  """The published step, number by number: z moves by the OLD step size."""
  solver = core.patience_damped(decay=0.9, patience=2, threshold=0.1)
  rng = np.random.default_rng(0)
  residuals = rng.choice([0.05, 0.2, 0.3, 0.5], size=60) * rng.uniform(1, 2, 60)
  y, s, best, patience = 1.0, 1.0, np.inf, 2
  state, z = solver.init(jnp.ones((1, 1)), 1), jnp.ones((1, 1))
  for t, r in enumerate(residuals):
    g = np.sin(3 * t)
    y = s * g + (1 - s) * y
    improved = r < best
    best, patience = min(r, best), 2 if improved else patience - 1
    if patience <= 0 and r >= 0.1:
      s, patience = s * 0.9, 2
    state, z = solver.update(state, z, jnp.full((1, 1), g), jnp.array([r]))
    np.testing.assert_allclose(z[0, 0], y, 1e-6)
    np.testing.assert_allclose(state.rate_B[0], s, 1e-6)
  assert 0.9**29 < s < 0.9**15


def test_step_size_one_keeps_the_map_bit_for_bit():
  """6 + 1 (x - 6) is not x in bfloat16; 1 x + 0 6 is."""
  old = jnp.full((1, 1), 6, jnp.bfloat16)
  new = jnp.full((1, 1), 1.0078125, jnp.bfloat16)
  assert old + (new - old) != new
  affine.equal(solvers.blend(jnp.ones(1), new, old), new)
  half = solvers.blend(jnp.full(1, 0.5), new, old)
  affine.equal(half, jnp.full((1, 1), 3.50390625, jnp.bfloat16))


@pytest.mark.parametrize(
  'field,call',
  [
    ('beta', lambda: core.damped(0.0)),
    ('beta', lambda: core.anderson(beta=1.5)),
    ('decay', lambda: core.patience_damped(decay=0.0)),
    ('patience', lambda: core.patience_damped(patience=-1)),
    ('history', lambda: core.anderson(0)),
    ('ridge', lambda: core.anderson(ridge=-1.0)),
  ],
)
def test_bad_solvers_are_refused_by_name(field, call):
  with pytest.raises(ValueError, match=f'^{field} must be '):
    call()
