"""The exact solver against counting by hand and by brute force."""

import itertools
import time

import numpy as np
import pytest

from loopformer.tasks.sudoku_rules import GEOMETRIES, is_solved, units
from loopformer.tasks.sudoku_solver import is_unique, solve

# Top of norvig/pytudes' list of hard puzzles, and a 17-clue puzzle.
HARD = (
  '4.....8.5.3..........7......2.....6.....8.4......1.......6.3.7.5..2.....1.4......'
)  # fmt: skip
SEVENTEEN = (
  '...2....78.....3..1....5...5...4..6....3....2.............1.8...7.6......2.....1.'
)  # fmt: skip
SEVENTEEN_ANSWER = (
  '945231687862974351137865249593742168714386592286159473359417826471628935628593714'
)  # fmt: skip


def board(text):
  return [0 if symbol == '.' else int(symbol) for symbol in text]


@pytest.mark.parametrize('size', [4, 6, 9])
def test_every_cell_lies_in_one_row_column_and_box(size):
  groups = units(GEOMETRIES[size]).reshape(3, size, size)
  for kind in groups:
    assert sorted(kind.ravel()) == list(range(size * size))


def test_box_of_6x6_is_two_rows_by_three_columns():
  assert units(GEOMETRIES[6])[12].tolist() == [0, 1, 2, 6, 7, 8]


def test_there_are_288_grids_of_4x4():
  grids = solve([0] * 16, GEOMETRIES[4], limit=1000)
  assert len({tuple(grid) for grid in grids}) == 288
  assert is_solved(np.stack(grids), GEOMETRIES[4]).all()


def test_count_of_solutions_agrees_with_brute_force():
  grids = np.stack(solve([0] * 16, GEOMETRIES[4], limit=1000))
  rng = np.random.default_rng(0)
  for _ in range(60):
    clues = np.where(rng.random(16) < 0.2, rng.integers(1, 5, 16), 0)
    agree = ((clues == 0) | (clues == grids)).all(axis=1).sum()
    assert len(solve(clues, GEOMETRIES[4], limit=1000)) == agree


@pytest.mark.parametrize('limit', [1, 2, 7])
def test_limit_is_kept(limit):
  assert len(solve([0] * 36, GEOMETRIES[6], limit=limit)) == limit


def test_known_answer():
  found = solve(board(SEVENTEEN), GEOMETRIES[9])
  assert [''.join(map(str, answer)) for answer in found] == [SEVENTEEN_ANSWER]


def test_two_clues_that_clash_leave_nothing():
  for pair in itertools.combinations((0, 1, 9, 10), 2):
    clues = [0] * 81
    clues[pair[0]] = clues[pair[1]] = 5
    assert solve(clues, GEOMETRIES[9]) == []


def test_a_17_clue_puzzle_is_unique_and_minimal():
  clues = board(SEVENTEEN)
  assert is_unique(clues, GEOMETRIES[9])
  for cell in np.flatnonzero(clues):
    assert not is_unique([*clues[:cell], 0, *clues[cell + 1 :]], GEOMETRIES[9])


def test_speed():
  start = time.perf_counter()
  for text in (SEVENTEEN, HARD):
    (answer,) = solve(board(text), GEOMETRIES[9])
    assert is_solved(answer[None], GEOMETRIES[9]).all()
  assert time.perf_counter() - start < 1.0
