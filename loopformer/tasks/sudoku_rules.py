"""Sudoku boards: shapes, units, and what makes a grid valid."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

Digits = UInt8[np.ndarray, 'N C']  # flattened boards, 0 where blank


class Geometry(NamedTuple):
  """Boxes of box_rows x box_cols cells; size = their product."""

  box_rows: int
  box_cols: int

  @property
  def size(self) -> int:
    return self.box_rows * self.box_cols

  @property
  def cells(self) -> int:
    return self.size**2

  @property
  def square(self) -> bool:
    return self.box_rows == self.box_cols


GEOMETRIES = {4: Geometry(2, 2), 6: Geometry(2, 3), 9: Geometry(3, 3)}
FEWEST_CLUES = {4: 4, 6: 8, 9: 17}  # below these no puzzle is unique


@functools.cache
def units(geometry: Geometry) -> Int[np.ndarray, 'U n']:
  """Cell indices of all rows, then all columns, then all boxes."""
  n, (r, c) = geometry.size, geometry
  rows_nn = np.arange(n * n).reshape(n, n)
  boxes = rows_nn.reshape(c, r, r, c).transpose(0, 2, 1, 3).reshape(n, n)
  return np.concatenate([rows_nn, rows_nn.T, boxes])


def is_solved(boards_NC: Digits, geometry: Geometry) -> Bool[np.ndarray, ' N']:
  """Every row, column and box holds every digit once."""
  full = np.uint16((2 << geometry.size) - 2)
  bits_CN = np.uint16(1) << np.ascontiguousarray(boards_NC.T).astype(np.uint16)
  solved_N = np.ones(len(boards_NC), bool)
  for cells in units(geometry):
    solved_N &= np.bitwise_or.reduce(bits_CN[cells], axis=0) == full
  return solved_N


def agrees(clues_NC: Digits, answers_NC: Digits) -> Bool[np.ndarray, ' N']:
  """Every clue stands in the answer."""
  return ((clues_NC == 0) | (clues_NC == answers_NC)).all(axis=1)
