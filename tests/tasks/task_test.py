"""The table of tasks, the scores and the error of a bad field."""

import dataclasses

import numpy as np
import pytest

from loopformer.tasks import TASKS, scoring, task
from tests.tasks import laws


@pytest.mark.parametrize('name', TASKS)
def test_every_task_is_built_from_its_default_config(name):
  config = TASKS[name].config()
  assert dataclasses.is_dataclass(config)
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.seed = 1
  laws.assert_contract(TASKS[name].build(config))


def test_scores_leave_ignored_positions_out():
  ignore = task.IGNORE
  labels_NT = np.array([[1, 2, ignore], [1, ignore, 3], [ignore] * 3])
  guess_NT = np.array([[1, 2, 9], [1, 9, 9], [9, 9, 9]])
  assert scoring.exact(guess_NT, labels_NT).tolist() == [True, False, True]
  share_N = scoring.accuracy(guess_NT, labels_NT)
  np.testing.assert_array_equal(share_N, [1.0, 0.5, 1.0])
  where_NT = np.array([[True, False, True]] * 3)
  share_N = scoring.accuracy(guess_NT, labels_NT, where_NT)
  np.testing.assert_array_equal(share_N, [1.0, 0.5, 1.0])


def test_a_bad_field_is_named_with_value_and_range():
  task.require(True, 'width', 3, '>= 1')
  with pytest.raises(ValueError) as caught:
    task.require(False, 'width', 0, '>= 1')
  assert str(caught.value) == 'width must be >= 1, got 0.'
