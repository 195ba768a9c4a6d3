"""From many predictions of one grid to a few: votes, and pass@k."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from loopformer.tasks.arc_grid import Grid
from loopformer.tasks.task import require

Test = tuple[str, int]  # a task's name and the number of its test
Ballot = tuple[Test, Grid, float]


class Ranked(NamedTuple):
  """Grids of each test by votes, the first of them; no more than `top`."""

  grids: dict[Test, list[Grid]]
  top: int


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


def tally(ballots: Iterable[Ballot], top: int = 2) -> Ranked:
  """`rank` of the votes on each test, in whatever order they come."""
  boxes: dict[Test, tuple[list[Grid], list[float]]] = {}
  for test, grid_hw, score in ballots:
    grids, scores = boxes.setdefault(test, ([], []))
    grids.append(grid_hw)
    scores.append(score)
  return Ranked({test: rank(*box, top) for test, box in boxes.items()}, top)


def pass_at_k(ranked: Ranked, answers: Mapping[Test, Grid], k: int) -> float:
  """Mean over tasks of the share of tests whose answer is in the first k.

  Every test of `answers` counts, those that got no vote as wrong.

  Raises:
    ValueError: k is not in 1 .. the number of grids that were kept of a test.
  """
  kept = f'in 1..{ranked.top}, the grids kept of each test'
  require(1 <= k <= ranked.top, 'k', k, kept)
  solved: dict[str, list[bool]] = {}
  for test, answer_hw in answers.items():
    first = [key(grid_hw) for grid_hw in ranked.grids.get(test, ())[:k]]
    solved.setdefault(test[0], []).append(key(answer_hw) in first)
  return float(np.mean([np.mean(tests) for tests in solved.values()]))
