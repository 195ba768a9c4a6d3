"""Q-heads and exploration, on heads written down by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core import Cause
from tests.core import affine

ALWAYS = core.q_halts(lambda state, args: jnp.ones(state.shape + (2,)))


def count_up(state, aux, args, info):
  del args, info
  return state + 1, aux


def run(halt, table=(), rows=1, max_steps=16, **kw):
  """A loop whose state counts its own steps."""
  loop = lambda table: core.iterate(
    count_up,
    jnp.zeros(rows),
    table,
    halt=halt,
    max_steps=max_steps,
    adjoint=core.none(),
    **kw,
  )
  return jax.jit(loop)(table)


def head(state, table):
  """Row b of table[t - 1] at step t."""
  t = state.astype(jnp.int32) - 1
  return table[t, jnp.arange(len(t))]


# (q_halt, q_continue) of three rows over four steps.
LOGITS = jnp.array(
  [
    [[-1.0, -2.0], [0.0, 1.0], [-5.0, -5.0]],
    [[-1.0, 3.0], [0.5, 1.0], [-5.0, -5.0]],
    [[2.0, 3.0], [0.0, 0.0], [-5.0, -5.0]],
    [[2.0, 1.0], [1.0, 0.5], [-5.0, -5.0]],
  ]
)


def test_q_halts_above_zero():
  """Row 0 at step 3, row 1 at 2 (zero is not above zero), row 2 never."""
  result = run(core.q_halts(head), LOGITS, rows=3, max_steps=4)
  np.testing.assert_array_equal(result.steps_B, [3, 2, 4])
  causes = [Cause.RULE, Cause.RULE, Cause.CAP]
  np.testing.assert_array_equal(result.cause_B, causes)


def test_q_halts_over_continue_is_strict():
  """Row 1 meets 0 = 0 at step 3 and goes on; -5 = -5, as at the start, too."""
  rule = core.q_halts_over_continue(head)
  result = run(rule, LOGITS, rows=3, max_steps=4)
  np.testing.assert_array_equal(result.steps_B, [1, 4, 4])
  causes = [Cause.RULE, Cause.RULE, Cause.CAP]
  np.testing.assert_array_equal(result.cause_B, causes)


def explored(rows=20_000, longest=16, probability=0.1, seed=0):
  halt = core.any_of(
    core.fixed_steps(longest), core.explore(ALWAYS, probability, longest)
  )
  return run(halt, rows=rows, keys=affine.keys(rows, seed))


def test_a_tenth_of_the_halts_is_refused_and_drawn_afresh_every_time():
  """Refused at n with probability p P(m > n) = p (M - n) / (M - 1), M = 16.

  p = 0.1 at n = 1, 0.0933 at n = 2; four standard deviations are allowed.
  """
  steps_B = np.asarray(explored().steps_B)
  for n, expected in ((1, 0.1), (2, 0.1 * 14 / 15)):
    reached = steps_B >= n
    refused = np.mean(steps_B[reached] > n)
    slack = 4 * np.sqrt(expected * (1 - expected) / reached.sum())
    assert abs(refused - expected) < slack


def test_the_minimum_is_uniform():
  """Certain to draw, M = 4: refused at n = 1, 2, 3 with 1, 2/3, 1/3."""
  steps_B = np.asarray(explored(longest=4, probability=1.0).steps_B)
  shares = [np.mean(steps_B == n) for n in range(1, 5)]
  by_hand = [0, 1 / 3, 2 / 3 * 2 / 3, 2 / 3 * 1 / 3]
  np.testing.assert_allclose(shares, by_hand, atol=0.015)


def test_exploration_never_passes_the_cap():
  """Without a cap of its own, too: m is at most `longest`."""
  rule = core.explore(ALWAYS, 1.0, 3)
  result = run(rule, rows=500, keys=affine.keys(500))
  assert set(np.asarray(result.steps_B)) == {2, 3}
  capped = core.any_of(core.fixed_steps(3), core.explore(ALWAYS, 1.0, 16))
  result = run(capped, rows=500, keys=affine.keys(500))
  assert np.asarray(result.steps_B).max() == 3


def test_no_probability_changes_nothing():
  result = explored(rows=50, probability=0.0)
  np.testing.assert_array_equal(result.steps_B, 1)
  np.testing.assert_array_equal(result.cause_B, Cause.RULE)


def test_a_row_draws_the_same_among_any_mates():
  rule = core.explore(ALWAYS, 0.7, 16)
  keys, order = affine.keys(40), np.random.default_rng(0).permutation(40)
  together = run(rule, rows=40, keys=keys).steps_B
  assert len(set(np.asarray(together))) > 3
  permuted = run(rule, rows=40, keys=keys[order]).steps_B
  affine.equal(permuted, together[order])
  alone = run(rule, rows=1, keys=keys[7:8]).steps_B
  affine.equal(alone, together[7:8])


def test_exploration_goes_on_from_a_carry():
  rule, keys = core.explore(ALWAYS, 0.9, 8), affine.keys(30)
  whole = run(rule, rows=30, keys=keys)
  part = run(rule, rows=30, keys=keys, max_steps=3)
  rest = run(rule, rows=30, keys=keys, carry=part.carry)
  affine.equal(rest.steps_B, whole.steps_B)
  assert np.asarray(whole.steps_B).max() > 3


def test_the_rule_is_held_back_but_its_state_and_bound_go_on():
  """A count of 2 is refused by m = 3 and kept by m = 2."""
  inner = core.explore(core.fixed_steps(2), 1.0, 3)
  assert inner.count == 3 and not inner.counts_only
  assert core.explore(core.fixed_steps(5), 0.5, 3).count == 5
  assert core.explore(ALWAYS, 0.5, 3).count is None
  result = run(inner, rows=200, keys=affine.keys(200))
  assert set(np.asarray(result.steps_B)) == {2, 3}
  np.testing.assert_array_equal(result.cause_B, Cause.CAP)


@pytest.mark.parametrize(
  ('says', 'call'),
  [
    (r'probability must be in \[0, 1\], got 1.5.', (ALWAYS, 1.5, 16)),
    (r'probability must be in \[0, 1\], got nan.', (ALWAYS, float('nan'), 16)),
    ('longest must be >= 2, got 1.', (ALWAYS, 0.1, 1)),
  ],
)
def test_what_explore_refuses(says, call):
  with pytest.raises(ValueError, match=f'^{says}$'):
    core.explore(*call)


def test_exploration_without_keys_is_refused():
  with pytest.raises(ValueError, match='keys must be given to explore'):
    run(core.explore(ALWAYS, 0.1, 16))
