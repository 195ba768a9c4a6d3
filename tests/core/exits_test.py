"""Exits that read a head, on heads written down by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core import Cause

# Logits [B, T, V] of two rows at each step: row 0 settles before row 1.
SHARP = np.log([[0.9, 0.1], [0.5, 0.5]])
LOGITS = np.stack(
  [
    np.log([[[0.6, 0.4]] * 2, [[0.4, 0.6]] * 2]),
    np.log([[[0.7, 0.3]] * 2, [[0.8, 0.2]] * 2]),
    np.log([[[0.7, 0.3]] * 2, [[0.3, 0.7]] * 2]),
    np.log([[[0.7, 0.3]] * 2, [[0.31, 0.69]] * 2]),
    np.log([[[0.7, 0.3]] * 2, [[0.31, 0.69]] * 2]),
  ]
).astype(np.float32)


def run(halt, table, max_steps=None):
  """A loop whose state counts steps, with a head that looks them up."""
  table = jnp.asarray(table)
  state = jnp.zeros((table.shape[1],))

  def step(z, aux, args, info):
    return z + 1, aux

  loop = lambda table: core.iterate(
    step,
    state,
    table,
    halt=halt,
    max_steps=max_steps or len(table),
    adjoint=core.none(),
  )
  return jax.jit(loop)(table)


def head(state, table):
  """Row b of table[t - 1] at step t; table[0] before the first."""
  t = jnp.maximum(state.astype(jnp.int32) - 1, 0)
  return table[t, jnp.arange(len(t))]


def steps(halt, table, **kw):
  result = run(halt, table, **kw)
  assert set(np.asarray(result.cause_B)) <= {Cause.RULE, Cause.CAP}
  return list(np.asarray(result.steps_B))


def entropy(p):
  return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def kl(p, q):
  return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def test_entropy_below():
  between = (entropy(0.8) + entropy(0.7)) / 2
  assert steps(core.entropy_below(head, between), LOGITS) == [5, 2]
  assert steps(core.entropy_below(head, entropy(0.7) + 1e-3), LOGITS) == [2, 2]


def test_positions_combine_by_mean_or_max():
  table = SHARP[None, None]
  between = (entropy(0.9) + entropy(0.5)) / 2
  for over, stops in (('mean', Cause.RULE), ('max', Cause.CAP)):
    rule = core.entropy_below(head, between + 1e-3, over=over)
    assert run(rule, table).cause_B[0] == stops
  with pytest.raises(ValueError, match="over must be one of .*, got 'sum'."):
    core.entropy_below(head, 1.0, over='sum')


def test_entropy_stable_never_stops_at_the_first_recurrence():
  """Even of a uniform distribution, as which `kl_stable` begins."""
  moved = entropy(0.6) - entropy(0.7)
  assert steps(core.entropy_stable(head, moved + 1e-4), LOGITS)[0] == 2
  assert steps(core.entropy_stable(head, moved - 1e-4), LOGITS) == [3, 4]
  uniform = np.zeros((4, 1, 1, 2), np.float32)
  assert steps(core.entropy_stable(head), uniform) == [2]
  assert steps(core.kl_stable(head), uniform) == [1]


def test_kl_stable_of_what_is_not_rare():
  """Below min_p of the largest a probability counts as 1 / V."""
  one = [0.9, 0.06, 0.04]
  two = [0.9, 0.08, 0.02]
  table = np.log([[[one]], [[two]], [[two]]]).astype(np.float32)
  assert steps(core.kl_stable(head, 1e-5), table) == [3]
  assert steps(core.kl_stable(head, 1e-5, min_p=0.1), table) == [2]
  floored = np.array([0.9, 1 / 3, 1 / 3])
  floored /= floored.sum()
  first = np.sum(np.log(1 / 3 / floored)) / 3  # From uniform.
  rule = lambda share: core.kl_stable(head, share * first, min_p=0.1)
  assert steps(rule(1.01), table) == [1]
  assert steps(rule(0.99), table) == [2]
  with pytest.raises(ValueError, match=r'min_p must be in \[0, 1\], got 2.'):
    core.kl_stable(head, min_p=2.0)


@pytest.mark.parametrize(
  'direction', ['previous_to_current', 'current_to_previous']
)
def test_kl_stable_in_both_directions(direction):
  pair = (0.3, 0.31) if direction == 'previous_to_current' else (0.31, 0.3)
  moved = kl(*pair)
  rule = lambda threshold: core.kl_stable(head, threshold, direction=direction)
  assert steps(rule(1.02 * moved), LOGITS) == [3, 4]
  assert steps(rule(0.98 * moved), LOGITS) == [3, 5]


def test_the_two_directions_differ():
  """From uniform to sharp and back: only one direction is short each time."""
  table = np.log([[[[0.99, 0.01]]], [[[0.5, 0.5]]]]).astype(np.float32)
  assert kl(0.5, 0.99) > 1 > kl(0.99, 0.5)
  for stop, direction in (
    (2, 'previous_to_current'),
    (1, 'current_to_previous'),
  ):
    result = run(core.kl_stable(head, 1.0, direction=direction), table)
    assert result.steps_B[0] == stop and result.cause_B[0] == Cause.RULE
  with pytest.raises(ValueError, match='direction must be'):
    core.kl_stable(head, direction='both')


def test_masked_logits_do_not_keep_a_row_running():
  """A logit of -inf has probability 0 and adds nothing: 0 log 0 = 0."""
  table = np.array([[[[0.0, -np.inf, 1.0]]]] * 3, np.float32)
  assert steps(core.kl_stable(head, 1e-6), table) == [2]
  assert steps(core.entropy_stable(head, 1e-6), table) == [2]
  assert steps(core.entropy_below(head, 1.0), table) == [1]


def test_argmax_stable():
  """The initial read-out counts: a row that never changes stops at once."""
  assert steps(core.argmax_stable(head, 1), LOGITS) == [1, 1]
  assert steps(core.argmax_stable(head, 2), LOGITS) == [2, 5]
  assert steps(core.argmax_stable(head, 4), LOGITS) == [4, 5]
  one_moves = LOGITS.copy()
  one_moves[1, 0, 1] = one_moves[1, 0, 1, ::-1]
  assert steps(core.argmax_stable(head, 2), one_moves) == [5, 5]
  with pytest.raises(ValueError, match='patience must be >= 1, got 0.'):
    core.argmax_stable(head, 0)


HAZARDS = np.array([[0.1, 0.5], [0.2, 0.5], [0.5, 0.5], [0.6, 0.5]], np.float32)


def test_cdf_by_hand():
  """CDF of row 0: .1, .28, .64, .856; of row 1: .5, .75, .875, .9375."""
  expected = {0.05: [1, 1], 0.27: [2, 1], 0.6: [3, 2], 0.8: [4, 3]}
  for quantile, stops in expected.items():
    assert steps(core.cdf_exceeds(head, quantile), HAZARDS) == stops


def test_q_zero_stops_at_the_first_step():
  assert steps(core.cdf_exceeds(head, 0.0), np.zeros((4, 2))) == [1, 1]


@pytest.mark.parametrize('hazard', [0.5, 0.9999999, 1.0])
def test_q_one_runs_to_cap(hazard):
  """Rounding puts the CDF at 0.99999994 or at 1: neither may decide."""
  result = run(core.cdf_exceeds(head, 1.0), np.full((40, 2), hazard))
  np.testing.assert_array_equal(result.steps_B, 40)
  np.testing.assert_array_equal(result.cause_B, Cause.CAP)


def test_the_exit_is_monotone_in_q():
  rng = np.random.default_rng(0)
  table = jnp.asarray(rng.uniform(0, 0.4, size=(30, 16)), jnp.float32)
  quantiles = (0, 0.2, 0.5, 0.9, 1)
  stops = np.stack([steps(core.cdf_exceeds(head, q), table) for q in quantiles])
  assert np.all(np.diff(stops, axis=0) >= 0)
  cdf = 1 - np.cumprod(1 - np.asarray(table, np.float64), 0)
  by_hand = 1 + (cdf < 0.5).sum(0)
  np.testing.assert_array_equal(stops[2], np.minimum(by_hand, 30))
  with pytest.raises(ValueError, match=r'quantile must be in \[0, 1\], got 2.'):
    core.cdf_exceeds(head, 2)
