"""Reader of the published Sudoku CSV files: source,question,answer,rating.

Columns may come in any order, and only question and answer must be there. A
blank cell is '.' or '0'. Lines end in LF or CRLF, empty lines are passed over,
quotes are not interpreted (the published files have none).
"""

import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from loopformer.tasks import cache, csv_lines
from loopformer.tasks.sudoku_rules import Digits, Geometry, agrees, is_solved
from loopformer.tasks.sudoku_solver import is_unique

_ILLEGAL = 255


class Table(NamedTuple):
  """Rows of a file. lines_N: 1-based line numbers; skipped: bad rows."""

  questions_NC: UInt8[np.ndarray, 'N C']
  answers_NC: UInt8[np.ndarray, 'N C']
  lines_N: Int[np.ndarray, ' N']
  skipped: int


class _Faults:
  """The first thing wrong with each row, if any."""

  def __init__(self, count: int):
    self.reasons = ['']
    self.codes = np.zeros(count, np.uint8)

  def add(self, bad: np.ndarray, reason: str) -> None:
    self.codes[bad & (self.codes == 0)] = len(self.reasons)
    self.reasons.append(reason)

  def refuse(self, path: str, lines: np.ndarray) -> None:
    if self.codes.any():
      row = int(np.flatnonzero(self.codes)[0])
      reason = self.reasons[self.codes[row]]
      raise ValueError(f'{path} line {lines[row]}: {reason}.')


def _symbols(geometry: Geometry) -> np.ndarray:
  """Digit of each byte, `_ILLEGAL` for the others."""
  table = np.full(256, _ILLEGAL, np.uint8)
  table[[ord('.'), ord('0')]] = 0
  table[ord('1') : ord('1') + geometry.size] = np.arange(geometry.size) + 1
  return table


def _parse(
  lines: csv_lines.Lines, columns: csv_lines.Columns, geometry: Geometry
) -> tuple[Digits, Digits, _Faults]:
  cells, size = geometry.cells, geometry.size
  faults = _Faults(len(lines.begins_L))
  faults.add(lines.undecodable(), 'not UTF-8')
  wrong_L = lines.fields_L != columns.count
  faults.add(wrong_L, f'must have {columns.count} columns')
  raw_LC, right_L = lines.field(columns.question, cells)
  faults.add(~right_L, f'question must have {cells} cells for size {size}')
  questions_LC = _symbols(geometry)[raw_LC]
  raw_LC, right_L = lines.field(columns.answer, cells)
  faults.add(~right_L, f'answer must have {cells} cells for size {size}')
  answers_LC = _symbols(geometry)[raw_LC]
  wrong_L = (questions_LC == _ILLEGAL).any(axis=1)
  faults.add(wrong_L, f'question must hold 1 to {size} and . or 0 only')
  wrong_L = ((answers_LC == _ILLEGAL) | (answers_LC == 0)).any(axis=1)
  faults.add(wrong_L, f'answer must hold 1 to {size} only')
  answers_LC[faults.codes > 0] = 1  # keeps the checks below inside the alphabet
  wrong_L = ~is_solved(answers_LC, geometry)
  faults.add(wrong_L, 'answer must be a valid grid')
  wrong_L = ~agrees(questions_LC, answers_LC)
  faults.add(wrong_L, 'answer must keep the clues')
  return questions_LC, answers_LC, faults


def _count_lines(data: np.ndarray) -> int:
  return sum(
    int(np.count_nonzero(data[low : low + (1 << 24)] == ord('\n')))
    for low in range(0, len(data), 1 << 24)
  )


def _read_rows(
  path: str, geometry: Geometry, data: np.ndarray, skip: bool, limit: int | None
) -> Table:
  columns, start = csv_lines.read_header(path, data)
  most = _count_lines(data)  # at least the rows: the header has a newline too
  most = most if limit is None else min(most, limit)
  boards = np.empty((2, most, geometry.cells), np.uint8)
  numbers_N = np.empty(most, np.int64)
  found, skipped, number = 0, 0, 2
  for piece in csv_lines.pieces(data, start):
    lines = csv_lines.split(piece)
    number_L, number = number + lines.index_L, number + lines.total
    questions_LC, answers_LC, faults = _parse(lines, columns, geometry)
    good = np.flatnonzero(faults.codes == 0)[: most - found]
    rows = slice(found, found + len(good))
    found += len(good)
    if found == most and len(good):  # what follows is past the limit
      faults.codes[good[-1] + 1 :] = 0
    if not skip:
      faults.refuse(path, number_L)
    np.take(questions_LC, good, axis=0, out=boards[0, rows], mode='clip')
    np.take(answers_LC, good, axis=0, out=boards[1, rows], mode='clip')
    numbers_N[rows] = number_L[good]
    skipped += int(np.count_nonzero(faults.codes))
    if found == limit:
      break
  return Table(boards[0, :found], boards[1, :found], numbers_N[:found], skipped)


def _unique_rows(questions_NC: Digits, geometry: Geometry) -> np.ndarray:
  """Which rows have one solution, kept in the cache by content."""
  digest = hashlib.sha256(questions_NC.tobytes()).hexdigest()
  return cache.cached(
    f'sudoku{geometry.size}-unique-{digest}',
    ('unique',),
    lambda: {
      'unique': np.array([is_unique(row, geometry) for row in questions_NC])
    },
  )['unique']


def read(
  path: str,
  geometry: Geometry,
  *,
  field: str = 'path',
  on_bad_row: str = 'refuse',
  check_unique: bool = False,
  limit: int | None = None,
) -> Table:
  """Reads and checks the puzzles of a file, at most `limit` good ones.

  The file is mapped, not loaded, and parsed in pieces: the memory taken is
  little more than that of the boards, two bytes per cell. With `check_unique`
  every puzzle is solved too, once per content of a file.

  Raises:
    FileNotFoundError: no such file; names `field`.
    ValueError: a bad row under on_bad_row = 'refuse', or no good row.
  """
  skip = on_bad_row == 'skip'
  table = _read_rows(
    path, geometry, csv_lines.open_bytes(path, field), skip, limit
  )
  if check_unique:
    unique_N = _unique_rows(table.questions_NC, geometry)
    faults = _Faults(len(unique_N))
    faults.add(~unique_N, 'question must have exactly one solution')
    if not skip:
      faults.refuse(path, table.lines_N)
    table = Table(
      *(array[unique_N] for array in table[:3]),
      skipped=table.skipped + int(np.count_nonzero(~unique_N)),
    )
  if not len(table.lines_N):
    bad = f', {table.skipped} bad rows skipped' if table.skipped else ''
    raise ValueError(f'{path}: no puzzles in it{bad}.')
  return table
