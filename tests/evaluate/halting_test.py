"""Where rules stop, against ranks, answers and means by hand."""

import numpy as np
import pytest

from loopformer.evaluate import halting


def test_equal_values_share_their_mean_place():
  np.testing.assert_array_equal(
    halting.ranks(np.array([30, 10, 30, 20, 30])), [4, 1, 4, 2, 4]
  )


def test_spearman_by_hand():
  """Places 1 2 3 4 and 2 1 4 3: rho = 1 - 6 * 4 / (4 * 15) = 0.6."""
  x, y = np.array([1, 5, 6, 90]), np.array([0.2, 0.1, 0.4, 0.3])
  assert halting.spearman(x, y) == pytest.approx(0.6)
  assert halting.spearman(x, np.exp(x)) == pytest.approx(1)
  assert halting.spearman(x, -(x**3)) == pytest.approx(-1)


def test_spearman_with_ties_by_hand():
  """Places 1.5 1.5 3 and 1 2 3: (0.5 + 0 + 1) / sqrt(1.5 * 2)."""
  rho = halting.spearman(np.array([1, 1, 2]), np.array([1, 2, 3]))
  assert rho == pytest.approx(1.5 / 3**0.5)


@pytest.mark.parametrize('constant', [[2, 2, 2], [0, 0, 0]])
def test_nothing_correlates_with_what_does_not_vary(constant):
  assert halting.spearman(np.array(constant), np.arange(3)) is None
  assert halting.spearman(np.arange(3), np.array(constant)) is None


def test_answers_saturate_after_their_last_change():
  """Constant; changed at the third; back to the last one but not for good."""
  answers_NR = np.array([[7, 7, 7, 7], [1, 2, 3, 3], [5, 4, 5, 5]])
  answers_RNT = np.stack([answers_NR.T, np.ones((4, 3), int)], -1)
  np.testing.assert_array_equal(halting.saturation(answers_RNT), [1, 3, 3])
  answers_RNT[3, 0, 1] = 0  # One cell of the last answer: all earlier differ.
  np.testing.assert_array_equal(halting.saturation(answers_RNT), [4, 3, 3])


def test_thinking_on_loses_what_was_won():
  facts = halting.overthinking(np.array([0.1, 0.75, 0.5, 0.625]), 2)
  assert facts == {
    'peak': 0.75,
    'peak_steps': 2,
    'at_cap': 0.625,
    'overthinking': 0.125,
  }
  assert halting.overthinking(np.array([0.1, 0.5]), 2)['overthinking'] == 0


def test_four_times_the_trained_depth_against_the_trained_depth():
  """Trained with 2, so s_8 - s_2, wherever the best and the cap are."""
  score_R = np.array([0.1, 0.75, 0.875, 0.5, 0.5, 0.5, 0.5, 0.625, 0.25])
  facts = halting.overthinking(score_R, 2)
  assert facts['overthinking'] == 0.625
  assert (facts['at_trained'], facts['at_4x_trained']) == (0.75, 0.625)
  assert facts['change_at_4x_trained'] == -0.125
  gain = halting.overthinking(np.array([0.25, 0.5, 0.5, 1.0]), 1)
  assert gain['change_at_4x_trained'] == 0.75 and gain['overthinking'] == 0
  assert 'change_at_4x_trained' not in halting.overthinking(score_R, 3)


def test_distance_and_lag_of_a_rule():
  facts = halting.compare(
    np.array([4, 2, 6]),
    np.array([3, 4, 5]),
    {'blanks': np.array([8, 6, 12]), 'path': np.array([1, 1, 1])},
  )
  assert facts['spearman'] == {'blanks': pytest.approx(1), 'path': None}
  assert facts['saturation_distance'] == pytest.approx(4 / 3)
  assert facts['saturation_lag'] == 0
