"""How well a rule chooses where to stop: plain figures from plain arrays.

A row's answer saturates at the first recurrence from which it does not change
any more up to the cap. A good rule stops rows there: later ones cost time, and
a model that thinks on may lose what it had.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num, Shaped


def ranks(values_N: Num[np.ndarray, ' N']) -> Float[np.ndarray, ' N']:
  """Places 1 .. N in ascending order, equal values sharing their mean place."""
  _, group_N, count_G = np.unique(
    values_N, return_inverse=True, return_counts=True
  )
  last_G = np.cumsum(count_G)
  return (last_G - (count_G - 1) / 2)[group_N]


def spearman(
  x_N: Num[np.ndarray, ' N'], y_N: Num[np.ndarray, ' N']
) -> float | None:
  """Correlation of the ranks; None where one side is the same in all rows."""
  x_N, y_N = ranks(x_N), ranks(y_N)
  x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
  size = np.sqrt((x_N**2).sum() * (y_N**2).sum())
  return float((x_N * y_N).sum() / size) if size > 0 else None


def saturation(
  predictions_RNT: Int[np.ndarray, 'R N T'],
) -> Int[np.ndarray, ' N']:
  """The first recurrence, from 1, from which the answer is the last one."""
  is_last_RN = np.logical_and.reduce(
    predictions_RNT == predictions_RNT[-1], axis=2
  )
  until_end_RN = np.logical_and.accumulate(is_last_RN[::-1])
  return len(predictions_RNT) + 1 - until_end_RN.sum(0)


def overthinking(
  score_R: Num[np.ndarray, ' R'], trained_depth: int
) -> dict[str, Any]:
  """What is lost by going on, up to the cap and to 4 times the trained depth.

  Args:
    score_R: mean score s_r when every row stops after r = 1 .. R recurrences.
    trained_depth: recurrences D in training.

  Returns:
    overthinking: max_r s_r - s_R, never below zero; beside it both scores.
    change_at_4x_trained: s_4D - s_D, below zero where something is lost;
    beside it both scores. Absent if R < 4 D.
  """
  peak, last = float(score_R.max()), float(score_R[-1])
  facts = {
    'peak': peak,
    'peak_steps': int(score_R.argmax()) + 1,
    'at_cap': last,
    'overthinking': peak - last,
  }
  if len(score_R) < 4 * trained_depth:
    return facts
  trained, late = (float(score_R[k * trained_depth - 1]) for k in (1, 4))
  return {
    **facts,
    'at_trained': trained,
    'at_4x_trained': late,
    'change_at_4x_trained': late - trained,
  }


def compare(
  steps_N: Num[np.ndarray, ' N'],
  saturated_N: Num[np.ndarray, ' N'],
  difficulty: Mapping[str, Shaped[np.ndarray, ' N']],
) -> dict[str, Any]:
  """What the steps of a rule have to do with the rows they were spent on.

  Returns:
    spearman: rank correlation of steps with each measure of difficulty.
    saturation_distance: mean of |steps - saturated|.
    saturation_lag: mean of steps - saturated; below zero it stops too early.
  """
  late_N = np.asarray(steps_N, np.float64) - saturated_N
  return {
    'spearman': {k: spearman(steps_N, x) for k, x in difficulty.items()},
    'saturation_distance': float(np.abs(late_N).mean()),
    'saturation_lag': float(late_N.mean()),
  }
