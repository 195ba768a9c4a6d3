"""Laws of the loop: two drivers, continuation, rows that do not mix."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core import Cause
from tests.core import affine

ARGS = affine.rates([0.3, 0.6, 0.9, 0.95])
ZERO = jnp.zeros((4, 1))
RULES = {
  'fixed_point': core.fixed_point(1e-2),
  'counts': core.fixed_steps(jnp.array([2, 0, 5, 3])),
  'act': core.act(lambda z, a: 0.2 * a[0][:, 0]),
  'cdf': core.cdf_exceeds(lambda z, a: jax.nn.sigmoid(z[:, 0] - 2), 0.5),
}
SOLVERS = {
  'picard': core.picard(),
  'anderson': core.anderson(3),
  'patience': core.patience_damped(patience=1, threshold=0.0),
}
CASES = [(rule, 'picard') for rule in RULES]
CASES += [('act', 'anderson'), ('fixed_point', 'patience')]


def run(rule='fixed_point', solver='picard', *, args=ARGS, **kw):
  kw = {'max_steps': 12, 'adjoint': core.none(), **kw}
  return core.iterate(
    kw.pop('step', affine.scale),
    kw.pop('state', jnp.zeros_like(args[1])),
    args,
    halt=RULES[rule] if isinstance(rule, str) else rule,
    solver=SOLVERS[solver],
    **kw,
  )


def outcome(result):
  """All but the shared clock; a row at its cap may be called live or capped."""
  carry = result.carry._replace(t=0, cause_B=result.cause_B)
  return result._replace(carry=carry)


def seen_state(state, args, info):
  del args, info
  return state


# How the quick tests are compiled, a scan rounds the damping in another way.
@pytest.mark.parametrize(
  'rule,solver',
  [
    pytest.param(*case, marks=[pytest.mark.slow] * (case[1] == 'patience'))
    for case in CASES
  ],
)
def test_scan_and_while_agree_bit_for_bit(rule, solver):
  results = [
    jax.jit(lambda a=a: run(rule, solver, adjoint=a, trace=seen_state))()
    for a in (core.none(), core.full())
  ]
  affine.equal(*map(outcome, results))


def test_a_trace_of_no_live_row_repeats_the_state():
  first = run(max_steps=200)
  more = [
    run(carry=first.carry, max_steps=3, adjoint=a, trace=seen_state)
    for a in (core.none(), core.full())
  ]
  affine.equal(*map(outcome, more))
  np.testing.assert_array_equal(more[0].trace.values[2], first.state)


@pytest.mark.parametrize('rule,solver', CASES)
def test_r_then_s_is_r_plus_s(rule, solver):
  whole = run(rule, solver, max_steps=9)
  carry = run(rule, solver, max_steps=4).carry
  parts = run(rule, solver, max_steps=5, carry=carry, state=None)
  affine.equal(outcome(whole), outcome(parts))


def test_a_longer_count_wakes_rows_that_a_count_has_stopped():
  first = run(core.fixed_steps(jnp.array([2, 1, 5, 3])))
  longer = core.fixed_steps(jnp.array([4, 1, 5, 6]))
  more = run(longer, carry=first.carry)
  affine.equal(more.state, run(longer).state)
  np.testing.assert_array_equal(more.steps_B, [4, 1, 5, 6])


def test_all_of_with_a_count_is_not_woken_once_converged():
  rule = core.all_of(core.fixed_steps(3), core.fixed_point(1e-2))
  whole = run(rule, max_steps=60)
  parts = run(rule, max_steps=30, carry=run(rule, max_steps=30).carry)
  affine.equal(outcome(whole), outcome(parts))
  assert set(np.asarray(whole.cause_B[:3])) == {Cause.CONVERGED}


@pytest.mark.parametrize('rule,solver', CASES[:1] + CASES[2:])
def test_a_row_alone_equals_that_row_in_a_batch(rule, solver):
  together = run(rule, solver)
  for i in (0, 3) if solver == 'picard' else (3,):
    alone = run(rule, solver, args=tuple(x[i : i + 1] for x in ARGS))
    for field in ('state', 'steps_B', 'cause_B'):
      affine.equal(getattr(alone, field), getattr(together, field)[i : i + 1])
    np.testing.assert_allclose(
      alone.residual_B, together.residual_B[i : i + 1], 1e-5
    )


def test_permuted_batch_mates_do_not_change_a_row():
  order = np.array([2, 0, 3, 1])
  plain = run('act', 'anderson')
  mixed = run('act', 'anderson', args=tuple(x[order] for x in ARGS))
  for field in ('state', 'mixed', 'steps_B', 'cause_B', 'residual_B'):
    affine.equal(getattr(plain, field)[order], getattr(mixed, field))


def test_jit_equals_eager():
  eager, jitted = run('act'), jax.jit(lambda: run('act'))()
  for a, b in zip(*map(jax.tree.leaves, (eager, jitted)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_per_sample_not_whole_batch_halting():
  result = run(max_steps=200)
  expected = [affine.scalar_count(float(c), 1e-2) for c in ARGS[0][:, 0]]
  np.testing.assert_array_equal(result.steps_B, expected)
  assert len(set(expected)) == 4


def test_only_rows_that_need_it_step():
  """A stopped row keeps state, solver and rule state bit for bit."""
  for rule, solver in (('fixed_point', 'patience'), ('counts', 'anderson')):
    short = run(rule, solver, max_steps=6 if solver == 'patience' else 3).carry
    long = run(rule, solver, max_steps=12).carry
    stopped = np.asarray(short.cause_B) != Cause.LIVE
    assert stopped.any() and not stopped.all()
    for a, b in zip(*map(jax.tree.leaves, (short[1:], long[1:])), strict=True):
      np.testing.assert_array_equal(a[stopped], b[stopped])


def test_returned_steps_not_initial_counter():
  first = run(core.fixed_steps(), max_steps=3)
  assert first.steps_B.dtype == jnp.int32
  np.testing.assert_array_equal(first.steps_B, [3] * 4)
  more = run(core.fixed_steps(), max_steps=2, carry=first.carry)
  np.testing.assert_array_equal(more.steps_B, [5] * 4)


def test_no_step_at_all():
  for adjoint in (core.none(), core.full(), core.full(remat=2)):
    result = run('act', max_steps=0, adjoint=adjoint, trace=seen_state)
    affine.equal(result.state, ZERO)
    affine.equal(result.mixed, ZERO)
    assert result.trace.values.shape == (0, 4, 1)
    np.testing.assert_array_equal(result.cause_B, [Cause.CAP] * 4)
    np.testing.assert_array_equal(result.residual_B, [np.inf] * 4)


@pytest.mark.parametrize('adjoint', [core.none(), core.last_k(2)])
def test_the_cap_may_be_traced(adjoint):
  loop = jax.jit(
    lambda n: run(core.fixed_steps(), max_steps=n, adjoint=adjoint)
  )
  for n in (1, 5):
    same = run(core.fixed_steps(), max_steps=n)
    affine.equal(loop(n).state, same.state)
    affine.equal(loop(n).steps_B, same.steps_B)


def test_tokens_halt_on_their_own():
  """A row may be a token: [2, 2] rows equal four rows."""
  args = jax.tree.map(lambda x: x.reshape(2, 2, 1), ARGS)
  flat, token = run(max_steps=200), run(args=args, row_ndim=2, max_steps=200)
  affine.equal(token.steps_B, flat.steps_B.reshape(2, 2))
  affine.equal(token.state, flat.state.reshape(2, 2, 1))


def test_a_state_of_several_arrays_with_counters():
  """Integers are carried and frozen, and are no part of the residual."""

  def step(state, aux, args, info):
    new, aux = affine.scale(state['z'], aux, args, info)
    return {'z': new, 'n': state['n'] + 1, 'pair': (new * 2,)}, aux

  state = {'z': ZERO, 'n': jnp.zeros(4, jnp.int32), 'pair': (ZERO,)}
  for solver in SOLVERS:
    plain = run(solver=solver, max_steps=100)
    result = run(step=step, state=state, solver=solver, max_steps=100)
    if solver == 'picard':
      affine.equal(result.state['z'], plain.state)
      affine.equal(result.steps_B, plain.steps_B)
      affine.equal(result.state['n'], result.steps_B)
    assert result.state['n'].dtype == jnp.int32
    assert np.all(result.cause_B == Cause.CONVERGED)


def test_a_state_without_floats_or_rows_is_refused():
  with pytest.raises(ValueError, match='floating-point'):
    run(state=jnp.zeros((4, 1), jnp.int32))
  with pytest.raises(ValueError, match='row axes'):
    run(state=(ZERO, jnp.zeros((3, 1))))
  with pytest.raises(ValueError, match='max_steps must be >= 0, got -1.'):
    run(max_steps=-1)


def test_aux_is_never_masked():
  def step(state, aux, args, info):
    new, _ = affine.scale(state, (), args, info)
    return new, aux + info.live_B

  everything = lambda s, aux, a, i: (affine.scale(s, (), a, i)[0], aux + 1)
  state, aux = jnp.zeros((4, 1)), jnp.zeros(4, jnp.int32)
  counts = RULES['counts']
  written = run(counts, step=step, state=state, aux=aux)
  affine.equal(written.aux, written.steps_B)
  affine.equal(run(counts, step=everything, aux=aux).aux, jnp.full(4, 5))


def noisy(state, aux, args, info):
  noise = jax.vmap(lambda k: jax.random.normal(k, (1,)))(info.keys_B)
  return affine.scale(state, aux, args, info)[0] + noise, aux


def test_key_differs_per_step_and_per_row():
  keys = affine.keys(4)
  zero = (jnp.zeros((4, 1)), jnp.zeros((4, 1)))
  result = run(
    core.fixed_steps(3), args=zero, step=noisy, keys=keys, trace=seen_state
  )
  draws = np.asarray(result.trace.values[:3])
  assert len(np.unique(draws)) == 12
  by_hand = jax.random.normal(jax.random.fold_in(keys[1], 2), (1,))
  affine.equal(draws[2, 1], by_hand)


def test_a_keyed_row_draws_by_its_own_step_wherever_it_runs():
  keys = affine.keys(4)
  loop = functools.partial(run, core.fixed_steps(), step=noisy)
  whole = loop(keys=keys, max_steps=7)
  carry = loop(keys=keys, max_steps=3).carry
  affine.equal(loop(keys=keys, max_steps=4, carry=carry).state, whole.state)
  alone = loop(keys=keys[2:3], args=tuple(x[2:3] for x in ARGS), max_steps=7)
  affine.equal(alone.state, whole.state[2:3])


@pytest.mark.parametrize('solver', list(SOLVERS))
def test_non_finite_rows_keep_their_last_state_and_spare_their_mates(solver):
  def step(state, aux, args, info):
    new, aux = affine.scale(state, aux, args, info)
    poisoned = (jnp.arange(4) == 1) & (info.steps_B == 3)
    return jnp.where(poisoned[:, None], jnp.nan, new), aux

  result = run('act', solver, step=step)
  healthy = run('act', solver)
  mates = np.array([0, 2, 3])
  np.testing.assert_array_equal(result.state[mates], healthy.state[mates])
  np.testing.assert_array_equal(result.mixed[mates], healthy.mixed[mates])
  assert result.cause_B[1] == Cause.NON_FINITE
  assert result.steps_B[1] == 3
  assert np.isfinite(result.state).all() and np.isfinite(result.mixed).all()
  np.testing.assert_array_equal(result.carry.weight_B[1], 1.0)
  if solver == 'picard':
    kept = run(core.fixed_steps(3)).state[1]
    np.testing.assert_array_equal(result.state[1], kept)


def test_drivers_and_last_k_agree_on_non_finite_rows():
  def step(state, aux, args, info):
    new, aux = affine.scale(state, aux, args, info)
    poisoned = (jnp.arange(4) == 1) & (info.steps_B == 3)
    return jnp.where(poisoned[:, None], jnp.inf, new), aux

  adjoints = (core.none(), core.full(), core.last_k(2))
  first, *rest = [run('act', step=step, adjoint=a) for a in adjoints]
  for other in rest:
    for field in ('state', 'mixed', 'steps_B', 'cause_B', 'residual_B'):
      affine.equal(getattr(first, field), getattr(other, field))


def test_weakly_typed_and_narrow_states_keep_their_type():
  args = jax.tree.map(lambda x: x.astype(jnp.bfloat16), ARGS)
  result = run(core.fixed_point(0.05), args=args)
  assert result.state.dtype == jnp.bfloat16
  assert result.residual_B.dtype == jnp.float32
  weak = run(state=jnp.full((4, 1), 0.0), adjoint=core.full())
  assert weak.state.dtype == jnp.float32
