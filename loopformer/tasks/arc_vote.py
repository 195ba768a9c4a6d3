"""From many predictions of one grid to a few: votes, and pass@k."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loopformer.tasks.arc_grid import Grid


def key(grid_hw: Grid) -> bytes:
  """Equal for equal grids, shape included."""
  return bytes(grid_hw.shape) + grid_hw.tobytes()


def rank(
  grids: Sequence[Grid], scores: Sequence[float] | None = None, top: int = 2
) -> list[Grid]:
  """The `top` distinct grids with most votes, ties to the higher mean score.

  Scores are such as the Q head's halting value, squashed or not (published:
  its sigmoid). What is still tied stays in the order of first appearance.
  """
  given = [0.0] * len(grids) if scores is None else scores
  ballots: dict[bytes, tuple[Grid, list[float]]] = {}
  for grid_hw, score in zip(grids, given, strict=True):
    ballots.setdefault(key(grid_hw), (grid_hw, []))[1].append(float(score))
  ranked = sorted(
    ballots.values(),
    key=lambda ballot: (len(ballot[1]), sum(ballot[1]) / len(ballot[1])),
    reverse=True,
  )
  return [grid_hw for grid_hw, _ in ranked[:top]]


def pass_at_k(
  ranked: Mapping[Any, Sequence[Grid]],
  answers: Mapping[tuple[str, int], Grid],
  k: int,
) -> float:
  """Mean over tasks of the share of tests whose answer is in the first k.

  Keys are (task, number of the test). Every test of `answers` counts, those
  that got no vote as wrong.
  """
  solved: dict[str, list[bool]] = {}
  for test, answer_hw in answers.items():
    first = [key(grid_hw) for grid_hw in ranked.get(test, ())[:k]]
    solved.setdefault(test[0], []).append(key(answer_hw) in first)
  return float(np.mean([np.mean(tests) for tests in solved.values()]))
