"""ARC grids as tokens: the canvas, the square's symmetries, colours.

A grid is uint8 [h, w] of colours 0..9. Token ids as published
(arXiv:2506.21734): PAD 0, EOS 1, colour c as c + 2. EOS fills the row just
below the grid and the column just right of it, without the corner between
them, and is left out where the grid touches the edge of the canvas.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer, UInt8

PAD, EOS, FIRST_COLOUR = 0, 1, 2
COLOURS, VOCAB, SIDE = 10, 12, 30

Grid = UInt8[np.ndarray, '_ _']  # of any size, each of its own

# Numbered as published; a quarter turn is anticlockwise.
DIHEDRAL = (
  lambda grid: grid,
  lambda grid: np.rot90(grid, 1),
  lambda grid: np.rot90(grid, 2),
  lambda grid: np.rot90(grid, 3),
  np.fliplr,
  np.flipud,
  np.transpose,
  lambda grid: np.fliplr(np.rot90(grid, 1)),
)
INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)


class Augmentation(NamedTuple):
  """g -> pi(D g): a symmetry of the square and a permutation of colours.

  dihedral: 0..7, which D. colours_C: pi(c) for c in 0..9, with pi(0) = 0.
  """

  dihedral: int
  colours_C: UInt8[np.ndarray, '10']

  def apply(self, grid_hw: Grid) -> Grid:
    return DIHEDRAL[self.dihedral](self.colours_C[grid_hw])

  def invert(self, grid_hw: Grid) -> Grid:
    inverse_C = np.argsort(self.colours_C).astype(np.uint8)
    return DIHEDRAL[INVERSE[self.dihedral]](inverse_C[grid_hw])


IDENTITY = Augmentation(0, np.arange(COLOURS, dtype=np.uint8))


def encode(
  grid_hw: Grid, offset: tuple[int, int] = (0, 0), side: int = SIDE
) -> Int[np.ndarray, '{side}*{side}']:
  """Tokens of a canvas, the grid's first cell at row and column `offset`.

  Raises:
    ValueError: the grid does not fit there.
  """
  (top, left), (height, width) = offset, grid_hw.shape
  bottom, right = top + height, left + width
  if min(top, left) < 0 or max(bottom, right) > side:
    raise ValueError(
      f'grid must fit into {side} x {side} at {tuple(offset)}, got '
      f'{height} x {width}.'
    )
  canvas_SS = np.full((side, side), PAD, np.int32)
  canvas_SS[bottom : bottom + 1, left:right] = EOS
  canvas_SS[top:bottom, right : right + 1] = EOS
  canvas_SS[top:bottom, left:right] = grid_hw
  canvas_SS[top:bottom, left:right] += FIRST_COLOUR
  return canvas_SS.reshape(-1)


def decode(
  tokens_S: Integer[np.ndarray, ' S'], offset: tuple[int, int] = (0, 0)
) -> Grid:
  """The largest rectangle of colours whose first cell is at `offset`.

  Inverts `encode`, and crops any prediction: of rectangles equally large the
  one with fewest rows, as published, and 0 x 0 if there is no colour at all.
  """
  side = int(len(tokens_S) ** 0.5)
  canvas_SS = tokens_S.reshape(side, side)[offset[0] :, offset[1] :]
  colour_SS = (canvas_SS >= FIRST_COLOUR) & (canvas_SS < VOCAB)
  run_S = np.logical_and.accumulate(colour_SS, axis=1).sum(axis=1)
  width_S = np.minimum.accumulate(run_S)
  area_S = width_S * np.arange(1, len(width_S) + 1)
  if not area_S.any():
    return np.zeros((0, 0), np.uint8)
  height = int(area_S.argmax()) + 1
  crop_hw = canvas_SS[:height, : width_S[height - 1]]
  return (crop_hw - FIRST_COLOUR).astype(np.uint8)
