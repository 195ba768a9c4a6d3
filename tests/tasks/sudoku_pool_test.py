"""Pools: the exact count of 4x4, uniqueness and purity of the others."""

import time

import numpy as np
import pytest

from loopformer.tasks import sudoku_pool
from loopformer.tasks.sudoku_canon import canonical
from loopformer.tasks.sudoku_rules import GEOMETRIES, agrees, is_solved
from loopformer.tasks.sudoku_solver import is_unique


def test_all_4x4_puzzles_up_to_symmetry():
  start = time.perf_counter()
  puzzles_NC, answers_NC = sudoku_pool.enumerate_4x4()
  assert time.perf_counter() - start < 5.0
  assert len(puzzles_NC) == 4710
  clues_N = np.count_nonzero(puzzles_NC, axis=1)
  assert ((clues_N >= 4) & (clues_N <= 8)).sum() == 2236
  assert clues_N.min() == 4
  assert is_solved(answers_NC, GEOMETRIES[4]).all()
  assert agrees(puzzles_NC, answers_NC).all()
  assert len(np.unique(canonical(puzzles_NC, GEOMETRIES[4]), axis=0)) == 4710
  for row in range(0, 4710, 47):
    assert is_unique(puzzles_NC[row], GEOMETRIES[4])


@pytest.mark.parametrize(('size', 'clues'), [(6, (10, 18)), (9, (26, 34))])
def test_generated_puzzles_are_unique_and_in_range(size, clues):
  geometry = GEOMETRIES[size]
  pool = sudoku_pool.load(size, clues, 8, seed=1)
  assert is_solved(pool.answers_NC, geometry).all()
  assert agrees(pool.puzzles_NC, pool.answers_NC).all()
  for puzzle_C in pool.puzzles_NC:
    assert clues[0] <= np.count_nonzero(puzzle_C) <= clues[1]
    assert is_unique(puzzle_C, geometry)
  assert len(np.unique(pool.classes_N)) == len(pool.classes_N)


def test_a_pool_is_pure_and_a_smaller_one_its_beginning(monkeypatch, tmp_path):
  large = sudoku_pool.load(6, (10, 18), 8, seed=2)
  monkeypatch.setenv('LOOPFORMER_CACHE', str(tmp_path))
  small = sudoku_pool.load(6, (10, 18), 4, seed=2)
  other = sudoku_pool.load(6, (10, 18), 4, seed=3)
  rows = len(small.classes_N)
  np.testing.assert_array_equal(small.puzzles_NC, large.puzzles_NC[:rows])
  assert not np.isin(small.classes_N, other.classes_N).all()


def test_puzzle_without_spare_clues_is_minimal():
  geometry = GEOMETRIES[6]
  puzzle_C, _ = sudoku_pool.draw_puzzle(np.random.default_rng(0), geometry, 0)
  for cell in np.flatnonzero(puzzle_C):
    fewer_C = puzzle_C.copy()
    fewer_C[cell] = 0
    assert not is_unique(fewer_C, geometry)


def test_hopeless_range_is_refused(monkeypatch):
  monkeypatch.setattr(sudoku_pool, '_PATIENCE', 1)
  with pytest.raises(ValueError, match='max_clues must be reachable, got 17'):
    sudoku_pool.load(9, (17, 17), 2, seed=0)
