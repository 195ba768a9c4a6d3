"""Pools of puzzles with exactly one solution: all of 4x4, samples of others."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt64

from loopformer.tasks import cache, streams
from loopformer.tasks.sudoku_canon import canonical, class_hash, relabel
from loopformer.tasks.sudoku_rules import GEOMETRIES, Digits, Geometry
from loopformer.tasks.sudoku_solver import is_unique, solve
from loopformer.tasks.sudoku_symmetry import positions

_VERSION = 1  # of the generators: part of the name of the cached file
_PATIENCE = 300  # failures in a row before the clue range is called hopeless


class Pool(NamedTuple):
  """Puzzles, their solutions, and the class each belongs to."""

  puzzles_NC: UInt8[np.ndarray, 'N C']
  answers_NC: UInt8[np.ndarray, 'N C']
  classes_N: UInt64[np.ndarray, ' N']

  def take(self, rows: np.ndarray) -> 'Pool':
    """The rows at these indices or under this mask."""
    return Pool(*(array[rows] for array in self))


def _unique_patterns(answer_C: np.ndarray, grids_GC: np.ndarray) -> np.ndarray:
  """Bit sets of clue cells which no other grid than `answer_C` satisfies."""
  bits_C = 1 << np.arange(16)
  differ_G = (grids_GC != answer_C) @ bits_C
  patterns = np.arange(1 << 16)
  unique = np.ones(1 << 16, bool)
  for differ in differ_G[differ_G > 0]:
    unique &= (patterns & differ) != 0
  return patterns[unique]


def _least_images(patterns: np.ndarray, answer_C: np.ndarray) -> np.ndarray:
  """The patterns that are least among their images under the stabiliser."""
  group_GC = positions(GEOMETRIES[4])
  same_G = (relabel(answer_C[group_GC]) == relabel(answer_C[None])).all(axis=1)
  filled_NC = patterns[:, None] >> np.arange(16) & 1
  least = patterns.copy()
  for cells_C in group_GC[same_G]:
    least = np.minimum(least, filled_NC[:, cells_C] @ (1 << np.arange(16)))
  return patterns[least == patterns]


def enumerate_4x4() -> tuple[Digits, Digits]:
  """One puzzle of each of the 4,710 classes with one solution, and solutions.

  The 288 grids fall into two classes. For a grid of each, a set of clue cells
  gives a unique puzzle if it meets every set of cells in which another grid
  differs; two sets are equivalent if the grid's stabiliser maps one to the
  other.
  """
  grids_GC = np.stack(solve([0] * 16, GEOMETRIES[4], limit=1000))
  forms = canonical(grids_GC, GEOMETRIES[4])
  _, first = np.unique(forms, axis=0, return_index=True)
  puzzles, answers = [], []
  for answer_C in grids_GC[first]:
    patterns = _least_images(_unique_patterns(answer_C, grids_GC), answer_C)
    filled_NC = (patterns[:, None] >> np.arange(16) & 1).astype(np.uint8)
    puzzles.append(filled_NC * answer_C)
    answers.append(np.broadcast_to(answer_C, filled_NC.shape))
  return np.concatenate(puzzles), np.concatenate(answers)


def _draw_grid(rng: np.random.Generator, geometry: Geometry) -> np.ndarray:
  """A random full grid (not uniform): boxes on the diagonal, then search."""
  n, (r, c) = geometry.size, geometry
  while True:  # in 4x4 some diagonals cannot be completed
    board_nn = np.zeros((n, n), np.uint8)
    for box in range(min(r, c)):
      rows, columns = slice(box * r, box * r + r), slice(box * c, box * c + c)
      board_nn[rows, columns] = rng.permutation(n).reshape(r, c) + 1
    order = rng.permutation(n).tolist()
    if found := solve(board_nn.ravel(), geometry, limit=1, order=order):
      return found[0]


def _remove(board: list[int], cells: list[int], geometry: Geometry) -> int:
  """Blanks in place those of `cells`, in order, that uniqueness can spare.

  If all can go, so can each after those before it: halving a block that
  cannot go gives the greedy answer with few calls of the solver.
  """
  held = [board[cell] for cell in cells]
  for cell in cells:
    board[cell] = 0
  if is_unique(board, geometry):
    return len(cells)
  for cell, digit in zip(cells, held, strict=True):
    board[cell] = digit
  if len(cells) == 1:
    return 0
  half = len(cells) // 2
  first = _remove(board, cells[:half], geometry)
  return first + _remove(board, cells[half:], geometry)


def draw_puzzle(
  rng: np.random.Generator, geometry: Geometry, clues: int
) -> tuple[np.ndarray, np.ndarray]:
  """A random puzzle with one solution, and that solution, uint8 [C] each.

  Takes clues away in random order while the solution stays unique, until
  `clues` are left or none can go.
  """
  answer_C = _draw_grid(rng, geometry)
  board, left = answer_C.tolist(), geometry.cells
  waiting = rng.permutation(geometry.cells).tolist()
  while waiting and left > clues:
    size = max(1, min(left - clues, left // 4))
    left -= _remove(board, waiting[:size], geometry)
    waiting = waiting[size:]
  return np.array(board, np.uint8), answer_C


def _generate(
  geometry: Geometry, clues: tuple[int, int], count: int, seed: int
) -> tuple[Digits, Digits]:
  puzzles, answers, attempt, failures = [], [], 0, 0
  while len(puzzles) < count:
    rng = streams.generator(streams.POOL, seed, attempt)
    target = int(rng.integers(clues[0], clues[1] + 1))
    puzzle_C, answer_C = draw_puzzle(rng, geometry, target)
    attempt += 1
    if np.count_nonzero(puzzle_C) <= clues[1]:
      failures = 0
      puzzles.append(puzzle_C)
      answers.append(answer_C)
    elif (failures := failures + 1) == _PATIENCE:
      raise ValueError(
        f'max_clues must be reachable, got {clues[1]}: {_PATIENCE} puzzles in '
        f'a row kept more clues.'
      )
  return np.stack(puzzles), np.stack(answers)


def load(size: int, clues: tuple[int, int], pool_size: int, seed: int) -> Pool:
  """Returns the pool of one configuration, one puzzle per class.

  4x4 holds every class with a number of clues in the range, whatever
  `pool_size` and `seed`. Other sizes hold `pool_size` generated puzzles (less
  the few that are equivalent), made once and kept in the disk cache.

  Raises:
    ValueError: no puzzle with so few clues was found.
  """
  geometry = GEOMETRIES[size]
  if size == 4:
    puzzles_NC, answers_NC = enumerate_4x4()
  else:
    kept = cache.cached(
      f'sudoku{size}-{clues[0]}-{clues[1]}-{pool_size}-{seed}-v{_VERSION}',
      ('puzzles', 'answers'),
      lambda: dict(
        zip(
          ('puzzles', 'answers'),
          _generate(geometry, clues, pool_size, seed),
          strict=True,
        )
      ),
    )
    puzzles_NC, answers_NC = kept['puzzles'], kept['answers']
  pool = Pool(puzzles_NC, answers_NC, class_hash(puzzles_NC, geometry))
  count_N = np.count_nonzero(pool.puzzles_NC, axis=1)
  pool = pool.take((clues[0] <= count_N) & (count_N <= clues[1]))
  return pool.take(np.sort(np.unique(pool.classes_N, return_index=True)[1]))
