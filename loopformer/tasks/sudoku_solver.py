"""An exact Sudoku solver on bit boards: one Python integer per digit."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from loopformer.tasks.sudoku_rules import Geometry, units

Board = Sequence[int] | Integer[np.ndarray, ' C']  # digits, 0 where blank

_CONTRADICTION = -1


class _Tables(NamedTuple):
  size: int
  all_cells: int
  peers: tuple[int, ...]  # per cell: the other cells of its three units
  units: tuple[int, ...]


@functools.cache
def _tables(geometry: Geometry) -> _Tables:
  masks = tuple(
    sum(1 << int(cell) for cell in unit) for unit in units(geometry)
  )
  peers = [0] * geometry.cells
  for mask in masks:
    for cell in range(geometry.cells):
      if mask >> cell & 1:
        peers[cell] |= mask & ~(1 << cell)
  everything = (1 << geometry.cells) - 1
  return _Tables(geometry.size, everything, tuple(peers), masks)


def _place(boards: list[int], digit: int, cells: int, tables: _Tables) -> None:
  """Writes `digit` into every cell of the bit set `cells`, in place."""
  for other in range(tables.size):
    if other != digit:
      boards[other] &= ~cells
  while cells:
    low = cells & -cells
    boards[digit] &= ~tables.peers[low.bit_length() - 1]
    cells ^= low


def _count_candidates(boards: list[int]) -> tuple[int, int, int]:
  """Bit sets of the cells with >= 1, >= 2 and >= 3 candidates."""
  one = two = three = 0
  for board in boards:
    three |= two & board
    two |= one & board
    one |= board
  return one, two, three


def _hidden_singles(
  boards: list[int], tables: _Tables, fixed: int
) -> tuple[int, int]:
  """A digit and the open cells where alone it can stand in some unit."""
  for digit, board in enumerate(boards):
    open_cells, found = board & ~fixed, 0
    if not open_cells:
      continue
    for unit in tables.units:
      here = board & unit
      if not here:
        return _CONTRADICTION, 0
      if not here & (here - 1):
        found |= here
    found &= open_cells
    if found:
      return digit, found
  return 0, 0


def _propagate(boards: list[int], tables: _Tables) -> tuple[int, int] | None:
  """Places naked, then hidden singles until none is left.

  Returns the open cells and those of them with exactly two candidates, or
  None if the boards contradict themselves.
  """
  done = 0
  while True:
    one, two, three = _count_candidates(boards)
    if one != tables.all_cells:
      return None
    new = one & ~two & ~done
    if new:
      done |= new
      for digit in range(tables.size):
        if cells := new & boards[digit]:
          _place(boards, digit, cells, tables)
      continue
    if not two:
      return 0, 0
    digit, cells = _hidden_singles(boards, tables, done)
    if digit == _CONTRADICTION:
      return None
    if not cells:
      return two, two & ~three
    _place(boards, digit, cells, tables)


def _branch(boards: list[int], state: tuple[int, int], tables: _Tables) -> int:
  """The open cell with the fewest candidates; of pairs, the best connected."""
  open_cells, pairs = state
  best, lowest = 0, len(boards) + 1
  cells = pairs or open_cells
  while cells:
    low = cells & -cells
    if pairs:
      score = -(tables.peers[low.bit_length() - 1] & pairs).bit_count()
    else:
      score = sum(1 for board in boards if board & low)
    if score < lowest:
      best, lowest = low, score
    cells ^= low
  return best


def _search(
  boards: list[int], tables: _Tables, limit: int, order: Sequence[int]
) -> list[list[int]]:
  state = _propagate(boards, tables)
  if state is None:
    return []
  if not state[0]:
    return [boards]
  cell, found = _branch(boards, state, tables), []
  for digit in order:
    if boards[digit] & cell:
      child = boards.copy()
      _place(child, digit, cell, tables)
      found += _search(child, tables, limit - len(found), order)
      if len(found) >= limit:
        break
  return found


def solve(
  board_C: Board,
  geometry: Geometry,
  limit: int = 2,
  order: Sequence[int] | None = None,
) -> list[np.ndarray]:
  """Returns up to `limit` solutions, each uint8 [C].

  An empty list means none; one solution under limit = 2 means that the puzzle
  is unique. `order` is the order in which digits (0-based) are tried.

  Depth-first search with fewest candidates first; between branches, cells
  with one candidate and digits with one place in a unit are filled in.
  """
  tables = _tables(geometry)
  boards = [tables.all_cells] * tables.size
  for cell, digit in enumerate(map(int, board_C)):
    if digit:
      if not boards[digit - 1] >> cell & 1:
        return []
      _place(boards, digit - 1, 1 << cell, tables)
  tried = range(tables.size) if order is None else order
  found = _search(boards, tables, limit, tried)
  return [_to_digits(solution, geometry.cells) for solution in found]


def is_unique(board_C: Board, geometry: Geometry) -> bool:
  """Exactly one solution."""
  return len(solve(board_C, geometry, limit=2)) == 1


def _to_digits(boards: list[int], cells: int) -> np.ndarray:
  board_C = np.zeros(cells, np.uint8)
  for digit, board in enumerate(boards):
    while board:
      low = board & -board
      board_C[low.bit_length() - 1] = digit + 1
      board ^= low
  return board_C
