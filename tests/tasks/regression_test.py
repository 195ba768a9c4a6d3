"""In-context regression: its rows, its oracle and its errors."""

import numpy as np
import pytest

from loopformer.tasks.regression import (
  ASKED,
  Regression,
  RegressionConfig,
  least_squares,
)
from loopformer.tasks.task import IGNORE
from tests.tasks import laws


@pytest.mark.parametrize(
  'config', [RegressionConfig(), RegressionConfig(dims=1)]
)
def test_contract(config):
  task = Regression(config)
  laws.assert_contract(task)
  assert task.causal and task.features == config.dims


def test_rows_are_linear_and_interleaved():
  """One w explains all pairs of a row; y stands first, then zeros."""
  batch = Regression(RegressionConfig(dims=3, points=8)).train_batch(0, 0, 20)
  x_BPI, y_BP = batch['inputs'][:, 0::2], batch['inputs'][:, 1::2, 0]
  assert (batch['inputs'][:, 1::2, 1:] == 0).all()
  np.testing.assert_array_equal(batch['labels'][:, 0::2], y_BP)
  assert (batch['labels'][:, 1::2] == IGNORE).all()
  for x_PI, y_P in zip(x_BPI, y_BP, strict=True):
    w_I, *_ = np.linalg.lstsq(x_PI, y_P, rcond=None)
    np.testing.assert_allclose(x_PI @ w_I, y_P, atol=1e-5)


@pytest.mark.parametrize('pairs', ASKED)
def test_training_may_start_with_fewer_numbers(pairs):
  """Two numbers and, growing, five pairs, then three and seven, then all."""
  start = {'start_dims': 2, 'stage': 10, 'asked': pairs}
  config = RegressionConfig(dims=4, points=9, **start)
  task = Regression(config)
  for step, used in ((0, 2), (9, 2), (10, 3), (20, 4), (1000, 4)):
    assert config.dims_at(step) == used
    batch = task.train_batch(0, step, 6)
    x_BPI, labels_BP = batch['inputs'][:, 0::2], batch['labels'][:, 0::2]
    assert (x_BPI[..., :used] != 0).all() and not x_BPI[..., used:].any()
    asked = labels_BP != IGNORE
    count = 9 if pairs == 'all' else 2 * used + 1
    assert asked[:, :count].all() and not asked[:, count:].any()
  assert (task.heldout(3)['inputs'][:, 0::2] != 0).all()
  assert RegressionConfig().dims_at(0) == 5


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'start_dims': 6}, r'start_dims must be in \[0, dims = 5\], got 6'),
    ({'stage': 0}, 'stage must be >= 1, got 0'),
    ({'asked': 'few'}, r"asked must be one of \('all', .* got 'few'"),
  ],
)
def test_a_wrong_start_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    RegressionConfig(**fields)


def test_least_squares_by_hand():
  """y = 2 a - b. From (1, 0) -> 2 the shortest w is (2, 0); then (2, -1)."""
  x_NPI = np.array([[[1.0, 0.0], [1.0, 1.0], [3.0, 1.0]]])
  y_NP = np.array([[2.0, 1.0, 5.0]])
  np.testing.assert_allclose(
    least_squares(x_NPI, y_NP), [[0.0, 2.0, 5.0]], atol=1e-12
  )


def test_the_oracle_needs_as_many_pairs_as_there_are_numbers():
  """Its mean error at point i + 1 is 1 - i / d, and 0 from i = d on.

  i pairs leave a direction of d - i dimensions of w unseen.
  """
  task = Regression(RegressionConfig(dims=4, points=7))
  batch = task.heldout(20_000)
  scores = task.score(np.zeros_like(batch['labels']), batch)
  found = [scores[f'least_squares_{point}'].mean() for point in range(1, 8)]
  np.testing.assert_allclose(found, [1, 0.75, 0.5, 0.25, 0, 0, 0], atol=0.04)
  nothing = [scores[f'error_{point}'].mean() for point in range(1, 8)]
  np.testing.assert_allclose(nothing, 1, atol=0.06)


def test_errors_by_hand():
  """Off by 3 at the last of two points in two dimensions: 9 / 2."""
  task = Regression(RegressionConfig(dims=2, points=2))
  batch = task.heldout(5)
  scores = task.score(batch['labels'] + np.float32([0, 7, 3, 7]), batch)
  np.testing.assert_allclose(scores['error'], 4.5, rtol=1e-5)
  np.testing.assert_array_equal(scores['error_2'], scores['error'])
  np.testing.assert_array_equal(scores['error_1'], 0)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(dims=0), 'dims must be >= 1, got 0.'),
    (dict(points=1), 'points must be >= 2, got 1.'),
    (dict(seed=-1), 'seed must be >= 0, got -1.'),
  ],
)
def test_config_is_checked(fields, message):
  with pytest.raises(ValueError, match=message):
    RegressionConfig(**fields)
