"""What two equivalent puzzles have in common: a canonical form or a hash.

Train and held-out puzzles are told apart by the hash of their class, so that
no held-out puzzle is a disguise of one that was trained on.
"""

import functools

import numpy as np
from jaxtyping import UInt8, UInt32, UInt64

from loopformer.tasks import streams
from loopformer.tasks.sudoku_rules import GEOMETRIES, Digits, Geometry
from loopformer.tasks.sudoku_symmetry import positions

_CHUNK = 2048  # boards whose colours stay in the processor's cache


def relabel(boards_NC: Digits) -> Digits:
  """Renames digits by first appearance; blanks stay 0."""
  rows_N = np.arange(len(boards_NC))
  names_NM = np.zeros((len(boards_NC), 10), np.uint8)
  used_N = np.zeros(len(boards_NC), np.uint8)
  out_NC = np.zeros_like(boards_NC)
  for cell, digits_N in enumerate(boards_NC.T):
    new_N = (digits_N > 0) & (names_NM[rows_N, digits_N] == 0)
    used_N = used_N + new_N.astype(np.uint8)
    names_NM[rows_N[new_N], digits_N[new_N]] = used_N[new_N]
    out_NC[:, cell] = names_NM[rows_N, digits_N]
  return out_NC


@functools.cache
def _bit_of_image(geometry: Geometry) -> np.ndarray:
  """w[c, g] = 2^(where symmetry g puts cell c): a clue pattern as a number."""
  inverse_GC = positions(geometry).argsort(axis=1)
  return np.exp2(geometry.cells - 1.0 - inverse_GC).T


def _sort_keys(boards_NC: Digits) -> list[np.ndarray]:
  """Numbers that order boards lexicographically, most significant first."""
  keys = []
  for start in range(0, boards_NC.shape[1], 18):
    part = boards_NC[:, start : start + 18].astype(np.uint64)
    shifts = np.arange(part.shape[1])[::-1].astype(np.uint64) * np.uint64(3)
    keys.append((part << shifts).sum(axis=1))
  return keys


def _canonical_chunk(boards_NC: Digits, geometry: Geometry) -> Digits:
  patterns_NG = (boards_NC > 0).astype(np.float64) @ _bit_of_image(geometry)
  least_N1 = patterns_NG.min(axis=1, keepdims=True)
  row_M, group_M = np.nonzero(patterns_NG == least_N1)
  images_MC = relabel(boards_NC[row_M[:, None], positions(geometry)[group_M]])
  order_M = np.lexsort((*_sort_keys(images_MC)[::-1], row_M))
  _, first_N = np.unique(row_M[order_M], return_index=True)
  return images_MC[order_M[first_N]]


def canonical(boards_NC: Digits, geometry: Geometry) -> Digits:
  """The least of all images under the full group (4x4 and 6x6).

  Least by clue pattern first, as a binary number (exact in float64: at most
  36 bits), then by digits renamed in order of appearance. Two boards have the
  same canonical form if and only if a symmetry carries one to the other.

  Raises:
    ValueError: for 9x9, whose 3,359,232 positional symmetries are too many.
  """
  chunk = max(1, (1 << 22) // len(positions(geometry)))
  parts = [
    _canonical_chunk(boards_NC[start : start + chunk], geometry)
    for start in range(0, len(boards_NC), chunk)
  ]
  return np.concatenate([boards_NC[:0], *parts])


def _mix(x: UInt32[np.ndarray, '*shape']) -> UInt32[np.ndarray, '*shape']:
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
  return x ^ (x >> np.uint32(16))


def _refine(
  colours: UInt32[np.ndarray, 'n n N'], digits: UInt32[np.ndarray, 'D n n N']
) -> UInt32[np.ndarray, 'n n N']:
  """New colour of a cell: its own, its units' sums and its digit's sum.

  Rows and columns enter by a symmetric sum, since a transposition swaps them.
  """
  n, _, count = colours.shape
  box = int(n**0.5)
  row_n1N = _mix(colours.sum(axis=1, keepdims=True, dtype=np.uint32))
  column_1nN = _mix(colours.sum(axis=0, keepdims=True, dtype=np.uint32))
  blocks = colours.reshape(box, box, box, box, count)
  box_sums = blocks.sum(axis=(1, 3), keepdims=True, dtype=np.uint32)
  same = np.zeros_like(colours)
  for cells in digits:
    total_N = (colours & cells).sum(axis=(0, 1), dtype=np.uint32)
    same |= cells & _mix(total_N)
  new = colours * np.uint32(3) + (row_n1N + column_1nN) + same
  new.reshape(blocks.shape)[:] += box_sums * np.uint32(0x9E3779B1)
  return _mix(new)


def _invariant_chunk(boards_NC: Digits, n: int) -> UInt64[np.ndarray, ' N']:
  board = np.ascontiguousarray(boards_NC.T).reshape(n, n, -1)
  digits = np.stack([board == digit for digit in range(1, n + 1)])
  digits = -digits.astype(np.uint32)  # all bits where it stands
  colours = _mix((board > 0).astype(np.uint32) + np.uint32(1))
  for _ in range(3):
    colours = _refine(colours, digits)
  other = _mix(colours ^ np.uint32(0x85EBCA6B))
  low_N = colours.sum(axis=(0, 1), dtype=np.uint32).astype(np.uint64)
  high_N = other.sum(axis=(0, 1), dtype=np.uint32).astype(np.uint64)
  return streams.mix((high_N << np.uint64(32)) | low_N)


def class_hash(
  boards_NC: UInt8[np.ndarray, 'N C'], geometry: Geometry
) -> UInt64[np.ndarray, ' N']:
  """Equal for equivalent puzzles, always.

  4x4 and 6x6: the hash of the canonical form. 9x9: three rounds of colour
  refinement over rows, columns, boxes and equal digits; it may merge classes
  that are not equivalent, which never puts one class on both sides of a split.
  """
  if geometry != GEOMETRIES[9]:
    return streams.row_hash(canonical(boards_NC, geometry))
  hashes_N = np.zeros(len(boards_NC), np.uint64)
  for start in range(0, len(boards_NC), _CHUNK):
    part = slice(start, start + _CHUNK)
    hashes_N[part] = _invariant_chunk(boards_NC[part], geometry.size)
  return hashes_N
