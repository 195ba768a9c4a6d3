"""The symmetry group of Sudoku, drawn at random or listed in full.

A symmetry permutes digits, bands, rows inside a band, stacks and columns inside
a stack, and transposes where boxes are square. It carries puzzles to puzzles
and solutions to solutions; blanks stay blank.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Integer, UInt8

from loopformer.tasks.sudoku_rules import Digits, Geometry


class Symmetry(NamedTuple):
  """One symmetry per row: new[c] = digits[old[cells[c]]].

  cells_BC: int, the source of every cell. digits_BM: uint8, the new digit of
  each old one, M = size + 1 and digits[0] = 0.
  """

  cells_BC: Int[np.ndarray, 'B C']
  digits_BM: UInt8[np.ndarray, 'B M']

  def apply(self, boards_BC: Digits) -> Digits:
    """Transforms row b of the boards by symmetry b."""
    moved_BC = np.take_along_axis(boards_BC, self.cells_BC, axis=1)
    return np.take_along_axis(self.digits_BM, moved_BC.astype(np.intp), axis=1)


def _place_lines(
  first_Bn: Integer[np.ndarray, 'B n'],
  second_Bn: Integer[np.ndarray, 'B n'],
) -> Int[np.ndarray, 'B n n']:
  n = first_Bn.shape[1]
  return first_Bn[:, :, None] * n + second_Bn[:, None, :]


def _draw_lines(
  blocks_BK: Float64[np.ndarray, 'B K'], lines_Bn: Float64[np.ndarray, 'B n']
) -> Int[np.ndarray, 'B n']:
  """Random order of blocks of lines and of the lines inside each of them."""
  batch, blocks = blocks_BK.shape
  inside_BKL = lines_Bn.reshape(batch, blocks, -1).argsort(axis=2)
  order_BK = blocks_BK.argsort(axis=1)
  return (order_BK[:, :, None] * inside_BKL.shape[2] + inside_BKL).reshape(
    batch, -1
  )


def draw(rng: np.random.Generator, count: int, geometry: Geometry) -> Symmetry:
  """`count` uniform symmetries; fewer of them are the first of more."""
  n, (r, c) = geometry.size, geometry
  uniform_BK = rng.random((count, 3 * n + r + c + 1))
  ends = np.cumsum([n, n, n, c, r])
  digits_Bn, rows_Bn, columns_Bn, bands_B, stacks_B, flip_B1 = np.split(
    uniform_BK, ends, axis=1
  )
  cells_Bnn = _place_lines(
    _draw_lines(bands_B, rows_Bn), _draw_lines(stacks_B, columns_Bn)
  )
  if geometry.square:
    flip_B11 = flip_B1[:, :, None] < 0.5
    cells_Bnn = np.where(flip_B11, cells_Bnn.swapaxes(1, 2), cells_Bnn)
  digits_BM = np.zeros((count, n + 1), np.uint8)
  digits_BM[:, 1:] = digits_Bn.argsort(axis=1) + 1
  return Symmetry(cells_Bnn.reshape(count, n * n), digits_BM)


def _all_lines(blocks: int, length: int) -> np.ndarray:
  inner = list(itertools.permutations(range(length)))
  lines = [
    [
      block * length + line
      for block, inside in zip(order, chosen, strict=True)
      for line in inside
    ]
    for order in itertools.permutations(range(blocks))
    for chosen in itertools.product(inner, repeat=blocks)
  ]
  return np.array(lines)


@functools.cache
def positions(geometry: Geometry) -> Int[np.ndarray, 'G C']:
  """Every positional symmetry as source cells: 128 for 4x4, 3,456 for 6x6."""
  if geometry.size > 6:
    raise ValueError(f'size must be 4 or 6 to be listed, got {geometry.size}.')
  rows = _all_lines(geometry.box_cols, geometry.box_rows)
  columns = _all_lines(geometry.box_rows, geometry.box_cols)
  pairs = np.indices((len(rows), len(columns))).reshape(2, -1)
  cells_Gnn = _place_lines(rows[pairs[0]], columns[pairs[1]])
  if geometry.square:
    cells_Gnn = np.concatenate([cells_Gnn, cells_Gnn.swapaxes(1, 2)])
  return cells_Gnn.reshape(len(cells_Gnn), geometry.cells)
