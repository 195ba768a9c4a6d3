"""Stopping rules against closed forms of the scalar and the affine map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core import Cause
from tests.core import affine

RATES = (0.2, 0.5, 0.7)
ARGS = affine.rates(list(RATES))


def run(halt, max_steps=60, args=ARGS, state=None, **kw):
  state = jnp.zeros_like(args[1]) if state is None else state
  step = kw.pop('step', affine.scale)
  kw = {'adjoint': core.none(), **kw}
  loop = lambda args: core.iterate(
    step, state, args, halt=halt, max_steps=max_steps, **kw
  )
  return jax.jit(loop)(args)


def ratio(rate, t, rtol, atol):
  """|h_t - h_{t-1}| / (atol + rtol |h_t|) of the scalar map from zero."""
  height = (1 - rate**t) / (1 - rate)
  return rate ** (t - 1) / (atol + rtol * height)


def count(rate, rtol, atol=0.0, patience=1):
  t = 1
  while ratio(rate, t, rtol, atol) > 1:
    t += 1
  return t + patience - 1


def check(result, expected, cause):
  np.testing.assert_array_equal(result.steps_B, expected)
  np.testing.assert_array_equal(result.cause_B, np.broadcast_to(cause, 3))


@pytest.mark.parametrize(
  'rtol,atol,patience',
  [(1e-2, 0.0, 1), (0.0, 0.03, 1), (1e-2, 0.03, 1), (1e-2, 0.0, 4)],
)
def test_step_counts_in_closed_form(rtol, atol, patience):
  rule = core.fixed_point(rtol, atol=atol, patience=patience)
  result = run(rule)
  expected = [count(c, rtol, atol, patience) for c in RATES]
  check(result, expected, Cause.CONVERGED)
  if atol == 0 and patience == 1:
    assert expected == [affine.scalar_count(c, rtol) for c in RATES]
  heights = [(1 - c**n) / (1 - c) for c, n in zip(RATES, expected, strict=True)]
  np.testing.assert_allclose(result.state[:, 0], heights, 1e-6)
  last = [ratio(c, n, 1, 0) for c, n in zip(RATES, expected, strict=True)]
  np.testing.assert_allclose(result.residual_B, last, 1e-3)


@pytest.mark.parametrize('norm', sorted(core.rows.NORMS))
def test_every_norm_stops_a_row_of_equal_entries_at_the_same_step(norm):
  args = jax.tree.map(lambda x: jnp.broadcast_to(x[..., None], (3, 4, 2)), ARGS)
  result = run(core.fixed_point(1e-2, norm=norm), args=args, norm=norm)
  check(result, [count(c, 1e-2) for c in RATES], Cause.CONVERGED)


def test_the_worst_token_keeps_its_row_running_and_the_mean_lets_it_go():
  rate = jnp.array([0.2, 0.2, 0.2, 0.9])[None, :, None]
  args = (rate, jnp.ones_like(rate))
  steps = {
    n: int(run(core.fixed_point(0.05, norm=n), args=args).steps_B[0])
    for n in ('token_l2', 'token_inf', 'token_l2_mean')
  }
  assert steps['token_l2'] == steps['token_inf'] == count(0.9, 0.05)
  assert steps['token_l2_mean'] < steps['token_l2']


def test_patience_asks_for_consecutive_steps():
  """A map that stalls at every third step never satisfies patience 2."""

  def stall(state, aux, args, info):
    moving_B = info.steps_B % 3 > 0
    return state + moving_B[:, None], aux

  loop = lambda p: run(core.fixed_point(1e-6, patience=p), 9, step=stall)
  check(loop(1), [1] * 3, Cause.CONVERGED)
  check(loop(2), [9] * 3, Cause.CAP)


def test_residual_not_of_damped_map():
  """Damping by 0.01 moves a state by 1 % of what the map would."""
  start = jnp.ones((3, 1))
  kw = {'state': start, 'max_steps': 1, 'solver': core.damped(0.01)}
  result = run(core.fixed_point(0.1), **kw)
  residual = [c / (1 + c) for c in RATES]
  np.testing.assert_allclose(result.residual_B, residual, 1e-6)
  check(result, [1] * 3, Cause.CAP)


def test_a_tolerance_below_the_precision_of_the_state_is_refused():
  for dtype, rtol in ((jnp.bfloat16, 1e-3), (jnp.float32, 1e-8)):
    args = jax.tree.map(lambda x, d=dtype: x.astype(d), ARGS)
    with pytest.raises(ValueError, match='rtol must be >= .* precision'):
      run(core.fixed_point(rtol), args=args)
  with pytest.raises(ValueError, match='precision of the bfloat16'):
    run(core.fixed_point(0.0), state=jnp.zeros((3, 1), jnp.bfloat16))
  exact = run(core.fixed_point(0.0), 400)
  check(exact, exact.steps_B, Cause.CONVERGED)
  assert exact.residual_B.max() == 0


def test_bfloat16_freezes_off_its_fixed_point():
  """Why: h <- 0.98 h + 0.02 stands still 2 % and more from its limit."""
  rate, offset = (jnp.full((1, 1), x, jnp.bfloat16) for x in (0.98, 0.02))
  states = [
    run(core.fixed_steps(), n, args=(rate, offset)).state for n in (300, 400)
  ]
  affine.equal(*states)
  limit = float(offset[0, 0]) / (1 - float(rate[0, 0]))
  assert abs(float(states[0][0, 0]) - limit) > 0.02 * limit


@pytest.mark.parametrize(
  'field,call',
  [
    ('rtol', lambda: core.fixed_point(-1.0)),
    ('atol', lambda: core.fixed_point(atol=float('nan'))),
    ('patience', lambda: core.fixed_point(patience=0)),
    ('count', lambda: core.fixed_steps(-1)),
    ('count', lambda: core.after(-1, core.fixed_steps())),
    ('k', lambda: core.at_multiples(0, core.fixed_steps())),
    ('rtol', lambda: core.second_difference(0.0)),
    ('threshold', lambda: core.cosine(0.0)),
    ('threshold', lambda: core.step_size_below(0.0)),
    ('threshold', lambda: core.step_size_below(1.0)),
    ('a combination', core.any_of),
    ('a combination', core.all_of),
  ],
)
def test_bad_rules_are_refused_by_name(field, call):
  with pytest.raises(ValueError, match=f'^{field} '):
    call()


def test_counts_per_row():
  counts = jnp.array([3, 0, 7])
  result = run(core.fixed_steps(counts))
  check(result, counts, Cause.CAP)
  heights = [(1 - c**n) / (1 - c) for c, n in zip(RATES, counts, strict=True)]
  np.testing.assert_allclose(result.state[:, 0], heights, 1e-6)
  check(run(core.fixed_steps(2)), [2] * 3, Cause.CAP)
  check(run(core.fixed_steps(), 5), [5] * 3, Cause.CAP)


def test_any_of_stops_at_the_first_and_names_it():
  counts = [count(c, 1e-2) for c in RATES]
  rule = core.any_of(core.fixed_point(1e-2), core.fixed_steps(counts[1] + 1))
  causes = [Cause.CONVERGED, Cause.CONVERGED, Cause.CAP]
  check(run(rule), [counts[0], counts[1], counts[1] + 1], causes)


def test_all_of_stops_at_the_last():
  counts = [count(c, 1e-2) for c in RATES]
  rule = core.all_of(core.fixed_steps(counts[1]), core.fixed_point(1e-2))
  assert counts[0] < counts[1] < counts[2]
  check(run(rule), [counts[1], counts[1], counts[2]], Cause.CONVERGED)
  both = core.all_of(core.fixed_steps(3), core.fixed_steps(5))
  check(run(both), [5] * 3, Cause.CAP)


def test_after_holds_a_rule_back():
  counts = [count(c, 1e-2) for c in RATES]
  result = run(core.after(counts[1], core.fixed_point(1e-2)))
  check(result, [counts[1], counts[1], counts[2]], Cause.CONVERGED)
  check(run(core.after(4, core.fixed_steps(2))), [4] * 3, Cause.CAP)


def test_at_multiples_waits_for_the_end_of_a_window():
  counts = [count(c, 1e-2) for c in RATES]
  assert len({n % 4 for n in counts}) > 1
  result = run(core.at_multiples(4, core.fixed_point(1e-2)))
  check(result, [-(-n // 4) * 4 for n in counts], Cause.CONVERGED)
  same = run(core.at_multiples(1, core.fixed_point(1e-2)))
  check(same, counts, Cause.CONVERGED)


def test_at_multiples_counts_over_a_carry():
  """The windows are those of the row, not of the call."""
  rule = core.at_multiples(4, core.fixed_point(1e-2))
  whole = run(rule)
  first = run(rule, 3)
  rest = run(rule, carry=first.carry)
  affine.equal(rest.steps_B, whole.steps_B)


def test_at_multiples_rounds_counts_up():
  rule = core.at_multiples(3, core.fixed_steps(5))
  assert rule.count == 6 and rule.counts_only
  check(run(rule), [6] * 3, Cause.CAP)
  check(run(rule, adjoint=core.last_k(2)), [6] * 3, Cause.CAP)
  per_row = core.at_multiples(3, core.fixed_steps(jnp.array([0, 3, 4])))
  np.testing.assert_array_equal(per_row.count, [0, 3, 6])
  check(run(per_row), [0, 3, 6], Cause.CAP)
  assert core.at_multiples(3, core.fixed_point(1e-2)).count is None


def test_at_multiples_keeps_a_convex_mixture():
  """ACT is done at the third step; the fourth has nothing left to get."""
  act = core.act(lambda z, a: jnp.full(z.shape[:1], 0.4))
  rule = core.at_multiples(4, act)
  result = run(rule, trace=lambda s, a, i: (), max_steps=8)
  weight_RB = np.asarray(result.trace.weight_RB)
  np.testing.assert_allclose(weight_RB[:4, 0], [0.4, 0.4, 0.2, 0], atol=1e-6)
  check(result, [4] * 3, Cause.RULE)


def test_the_cosine_of_a_turning_state():
  """z turns by half the angle before at every step and grows all the time."""
  angle = lambda t: 0.8 * (2 - 0.5 ** (t - 1))

  def step(z_BD, aux, args, info):
    del z_BD, args
    t_B = (info.steps_B + 1).astype(jnp.float32)
    turned = jnp.stack([jnp.cos(angle(t_B)), jnp.sin(angle(t_B))], -1)
    return 2 ** t_B[:, None] * turned, aux

  state = jnp.broadcast_to(jnp.array([1.0, 0.0]), (3, 2))
  moved = [1 - np.cos(0.8 * 0.5 ** (t - 1)) for t in range(2, 12)]
  wanted = next(t for t, m in enumerate(moved, 2) if m < 1e-3)
  check(
    run(core.cosine(1e-3), 20, state=state, step=step),
    [wanted] * 3,
    Cause.CONVERGED,
  )


def test_second_difference_in_closed_form():
  """Of h' = c h + 1 from zero it is (1 - c) c^(t-2); h is (1-c^t)/(1-c)."""
  rtol = 0.04

  def expected(c):
    t = 2
    while (1 - c) * c ** (t - 2) > rtol * (1 - c**t) / (1 - c):
      t += 1
    return t

  result = run(core.second_difference(rtol))
  check(result, [expected(c) for c in RATES], Cause.CONVERGED)
  assert len({int(n) for n in result.steps_B}) > 1


def test_an_even_drift_has_no_second_difference():
  """It stops at the second recurrence, where a fixed point is never near."""
  drift = lambda z, aux, args, info: (z + 1.0, aux)
  rule = core.second_difference(1e-6)
  result = run(rule, step=drift)
  check(result, 2, Cause.CONVERGED)
  assert int(run(core.fixed_point(1e-2), 20, step=drift).steps_B[0]) == 20
  halves = core.any_of(rule, core.fixed_steps(1))
  assert int(run(halves, step=drift).steps_B[0]) == 1


def test_a_step_size_below_the_threshold_stops_its_row():
  """z <- -2 z has residual 3/2 for ever: with patience 1 and decay 1/2 the

  second recurrence is the first without progress, so s = 2^-(t - 1) after t.
  A row at the fixed point has residual zero and keeps s = 1.
  """
  double = lambda state, aux, args, info: (-2 * state, aux)
  start = jnp.array([[1.0], [0.0], [-8.0]])
  solver = core.patience_damped(decay=0.5, patience=1, threshold=0.1)
  kw = {'state': start, 'step': double, 'solver': solver}
  result = run(core.step_size_below(0.2), 10, **kw)
  check(result, [4, 10, 4], [Cause.RULE, Cause.CAP, Cause.RULE])
  np.testing.assert_array_equal(result.carry.solver.rate_B, [0.125, 1, 0.125])


def test_a_step_size_needs_a_solver_that_has_one():
  for solver in (None, core.damped(0.5)):
    with pytest.raises(ValueError, match='solver must be patience_damped'):
      run(core.step_size_below(), solver=solver)


def test_combinations_nest():
  inner = core.any_of(core.fixed_steps(3), core.fixed_point(0.5))
  rule = core.any_of(core.after(6, inner), core.fixed_steps(20))
  check(run(rule), [6] * 3, run(rule).cause_B)
  both = core.all_of(inner, core.fixed_steps(4))
  assert both.count == 4 and rule.count == 6


def test_two_weighing_rules_are_refused():
  act = core.act(lambda z, a: jax.nn.sigmoid(z[:, 0]))
  with pytest.raises(ValueError, match='at most one'):
    run(core.any_of(act, act))


def test_held_back_weights_stay_a_convex_mixture():
  """ACT that may not stop yet has nothing left to give, never less."""
  act = core.act(lambda z, a: jnp.full(z.shape[:1], 0.4))
  result = run(core.after(6, act), trace=lambda s, a, i: (), max_steps=8)
  weight_RB = np.asarray(result.trace.weight_RB)
  np.testing.assert_allclose(weight_RB[:3, 0], [0.4, 0.4, 0.2], 1e-6)
  assert weight_RB.min() >= 0 and result.steps_B[0] == 6
  np.testing.assert_allclose(weight_RB.sum(0), 1, 1e-6)


@pytest.mark.parametrize(
  'rule,steps',
  [
    (core.after(5, core.at_multiples(4, core.fixed_steps(3))), 8),
    (core.after(3, core.at_multiples(4, core.fixed_steps(3))), 4),
    (
      core.all_of(
        core.at_multiples(2, core.fixed_steps(2)),
        core.at_multiples(3, core.fixed_steps(2)),
      ),
      6,
    ),
    (core.at_multiples(2, core.at_multiples(3, core.fixed_steps(1))), 6),
    (
      core.after(
        5,
        core.any_of(
          core.at_multiples(4, core.fixed_steps(4)), core.fixed_steps(6)
        ),
      ),
      6,
    ),
    (
      core.explore(core.at_multiples(4, core.fixed_steps(4)), 0.0, 6),
      4,
    ),
  ],
)
@pytest.mark.parametrize('adjoint', [core.none(), core.last_k(2)])
def test_a_count_is_a_step_at_which_the_rule_stops(rule, steps, adjoint):
  """By the bound known beforehand as by the rule's own answers."""
  keys = affine.keys(3)
  result = run(rule, 40, adjoint=adjoint, keys=keys)
  check(result, [steps] * 3, Cause.CAP)
  blind = rule._replace(count=None, counts_only=False)
  check(run(blind, 40, keys=keys), [steps] * 3, Cause.CAP)


def test_rows_held_back_stop_at_a_multiple():
  rule = core.explore(core.at_multiples(4, core.fixed_steps(4)), 1.0, 6)
  result = run(rule, 40, keys=affine.keys(3))
  assert set(np.asarray(result.steps_B).tolist()) <= {4, 8}
  np.testing.assert_array_equal(result.cause_B, [Cause.CAP] * 3)
