"""Splits pieces of a CSV file into lines and fields without a Python loop."""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

_NEWLINE, _RETURN, _COMMA = b'\n\r,'


class Columns(NamedTuple):
  """How many columns a file of puzzles has, and which ones are read."""

  count: int
  question: int
  answer: int


def open_bytes(path: str, field: str) -> UInt8[np.ndarray, ' n']:
  """The bytes of a file, mapped and not read yet.

  Raises:
    FileNotFoundError: naming the field if there is no such file.
    ValueError: if it is empty.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise FileNotFoundError(f'{field} must name a CSV file, got {path!r}.')
  if file.stat().st_size == 0:
    raise ValueError(f'{path} line 1: the file is empty.')
  return np.memmap(file, np.uint8, mode='r')


def read_header(
  path: str, data: UInt8[np.ndarray, ' n']
) -> tuple[Columns, int]:
  """The columns, and the offset of the first row.

  Raises:
    ValueError: if question or answer is not named exactly once.
  """
  ends = np.flatnonzero(data[: 1 << 16] == _NEWLINE)
  start = int(ends[0]) + 1 if len(ends) else min(len(data), 1 << 16)
  line = data[:start].tobytes().decode('utf-8-sig', 'replace').strip()
  names = [name.strip() for name in line.split(',')]
  for name in ('question', 'answer'):
    if names.count(name) != 1:
      raise ValueError(
        f'{path} line 1: the header must name column {name!r} once, got '
        f'{line[:60]!r}.'
      )
  found = names.index('question'), names.index('answer')
  return Columns(len(names), *found), start


class Lines(NamedTuple):
  """The lines of `piece` that are not empty, and where their commas are.

  Line l is bytes [begins, stops) and was number index_l of `total` lines; its
  commas are commas_K from first_l on.
  """

  piece: UInt8[np.ndarray, ' n']
  begins_L: Int[np.ndarray, ' L']
  stops_L: Int[np.ndarray, ' L']
  commas_K: Int[np.ndarray, ' K']
  first_L: Int[np.ndarray, ' L']
  fields_L: Int[np.ndarray, ' L']
  index_L: Int[np.ndarray, ' L']
  total: int

  def bounds(self, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and stop of a field; nonsense where a line has too few of them."""
    last = len(self.commas_K) - 1
    before_L = self.commas_K[np.clip(self.first_L + column - 1, 0, last)] + 1
    after_L = self.commas_K[np.clip(self.first_L + column, 0, last)]
    ends = self.fields_L == column + 1
    return (
      before_L if column else self.begins_L,
      np.where(ends, self.stops_L, after_L),
    )

  def field(
    self, column: int, width: int
  ) -> tuple[UInt8[np.ndarray, 'L {width}'], Bool[np.ndarray, ' L']]:
    """The bytes of a field, and which lines have it at exactly that width."""
    begins_L, stops_L = self.bounds(column)
    right_L = stops_L - begins_L == width
    short = max(0, width - len(self.piece))
    padded = np.pad(self.piece, (0, short)) if short else self.piece
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    return windows[np.where(right_L, begins_L, 0)], right_L

  def undecodable(self) -> Bool[np.ndarray, ' L']:
    """Lines that are not UTF-8; only those with bytes over 127 are decoded."""
    bad_L = np.zeros(len(self.begins_L), bool)
    high = np.flatnonzero(self.piece > 127)
    lines = np.searchsorted(self.begins_L, high, side='right') - 1
    for line in np.unique(lines):
      text = self.piece[self.begins_L[line] : self.stops_L[line]].tobytes()
      try:
        text.decode()
      except UnicodeDecodeError:
        bad_L[line] = True
    return bad_L


def split(piece: UInt8[np.ndarray, ' n']) -> Lines:
  """Finds lines (ending in LF, CRLF or the end of the piece) and commas."""
  ends_L = np.flatnonzero(piece == _NEWLINE)
  if not len(ends_L) or ends_L[-1] != len(piece) - 1:
    ends_L = np.append(ends_L, len(piece))
  begins_L = np.concatenate([[0], ends_L[:-1] + 1])
  returns_L = (ends_L > begins_L) & (piece[ends_L - 1] == _RETURN)
  stops_L = ends_L - returns_L
  index_L = np.flatnonzero(stops_L > begins_L)
  begins_L, stops_L = begins_L[index_L], stops_L[index_L]
  commas_K = np.flatnonzero(piece == _COMMA)
  first_L = np.searchsorted(commas_K, begins_L)
  fields_L = np.searchsorted(commas_K, stops_L) - first_L + 1
  if not len(commas_K):  # so that looking one up stays legal
    commas_K = np.zeros(1, np.intp)
  return Lines(
    piece, begins_L, stops_L, commas_K, first_L, fields_L, index_L, len(ends_L)
  )


def pieces(
  data: UInt8[np.ndarray, ' n'], start: int, size: int = 1 << 21
) -> Iterator[UInt8[np.ndarray, ' m']]:
  """Cuts the bytes from `start` on into whole lines, about `size` at a time."""
  while start < len(data):
    stop, reach = start + size, size
    while stop < len(data):
      ends = np.flatnonzero(data[stop - reach : stop] == _NEWLINE)
      if len(ends):
        stop += int(ends[-1]) + 1 - reach
        break
      stop += size  # a line longer than a piece
    yield np.asarray(data[start:stop])
    start = stop
