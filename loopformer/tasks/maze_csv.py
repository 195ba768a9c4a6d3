"""Reader of the published maze files: source,question,answer,rating.

Columns may come in any order, and only question and answer must be there. Both
hold the squares of a grid row by row, of '# SG' and '# SGo'. Lines end in LF or
CRLF, empty lines are passed over, quotes are not interpreted.
"""

from typing import NamedTuple

import numpy as np

from loopformer.tasks import csv_lines
from loopformer.tasks.maze_grid import (
  CHARACTERS,
  GOAL,
  OPEN,
  PAD,
  PATH,
  START,
  Grids,
  is_solved,
  path_length,
)


class Table(NamedTuple):
  """Rows of a file, and how many bad ones were skipped."""

  questions_Nnn: Grids
  answers_Nnn: Grids
  skipped: int


def _tokens(raw_LC: np.ndarray) -> np.ndarray:
  """Token ids of the bytes, PAD for those that are none of '# SGo'."""
  table = np.full(256, PAD, np.uint8)
  table[list(CHARACTERS.encode())] = np.arange(len(CHARACTERS)) + 1
  return table[raw_LC]


def _check_form(
  lines: csv_lines.Lines, columns: csv_lines.Columns, size: int
) -> tuple[Grids, Grids, list[tuple[np.ndarray, str]]]:
  """The two grids of each line, and what is wrong with their characters."""
  cells = f'must have {size * size} cells for size {size}'
  raw_LC, right_L = lines.field(columns.question, size * size)
  questions_LC = _tokens(raw_LC)
  raw_LC, fits_L = lines.field(columns.answer, size * size)
  answers_LC = _tokens(raw_LC)
  illegal_LC = (questions_LC == PAD) | (questions_LC == PATH)
  faults = [
    (lines.undecodable(), 'not UTF-8'),
    (lines.fields_L != columns.count, f'must have {columns.count} columns'),
    (~right_L, f'question {cells}'),
    (~fits_L, f'answer {cells}'),
    (illegal_LC.any(axis=1), "question must hold '#', ' ', S and G only"),
    ((answers_LC == PAD).any(axis=1), "answer must hold '# SGo' only"),
  ]
  for token, symbol in ((START, 'S'), (GOAL, 'G')):
    count_L = (questions_LC == token).sum(axis=1)
    faults.append((count_L != 1, f'question must hold one {symbol}'))
  shape = (-1, size, size)
  return questions_LC.reshape(shape), answers_LC.reshape(shape), faults


def _check_mazes(
  questions_Nnn: Grids, answers_Nnn: Grids
) -> list[tuple[np.ndarray, str]]:
  """What is wrong with mazes and answers whose characters are right."""
  bare_Nnn = np.where(answers_Nnn == PATH, np.uint8(OPEN), answers_Nnn)
  moved_N = (bare_Nnn != questions_Nnn).any(axis=(1, 2))
  return [
    (moved_N, 'answer must keep the walls, S and G'),
    (path_length(questions_Nnn) < 0, 'question must have a way from S to G'),
    (
      ~is_solved(questions_Nnn, answers_Nnn),
      'answer must mark a shortest path from S to G',
    ),
  ]


def _parse(
  lines: csv_lines.Lines, columns: csv_lines.Columns, size: int
) -> tuple[Grids, Grids, np.ndarray, list[str]]:
  """Questions, answers, and per line which reason it is bad for, 0 if none."""
  questions_Lnn, answers_Lnn, faults = _check_form(lines, columns, size)
  codes_L = np.zeros(len(questions_Lnn), np.int64)
  reasons = ['']
  for bad_L, reason in faults:
    codes_L[bad_L & (codes_L == 0)] = len(reasons)
    reasons.append(reason)
  rows = np.flatnonzero(codes_L == 0)
  for bad_N, reason in _check_mazes(questions_Lnn[rows], answers_Lnn[rows]):
    bad = rows[bad_N]
    codes_L[bad[codes_L[bad] == 0]] = len(reasons)
    reasons.append(reason)
  return questions_Lnn, answers_Lnn, codes_L, reasons


def read(path: str, size: int, *, on_bad_row: str = 'refuse') -> Table:
  """Reads and checks the mazes of a file and the shortest paths marked there.

  Raises:
    FileNotFoundError: no such file.
    ValueError: a bad row under on_bad_row = 'refuse', named by its line, or no
      good row.
  """
  data = csv_lines.open_bytes(path, 'path')
  columns, start = csv_lines.read_header(path, data)
  questions, answers, skipped, number = [], [], 0, 2
  for piece in csv_lines.pieces(data, start):
    lines = csv_lines.split(piece)
    questions_Lnn, answers_Lnn, codes_L, reasons = _parse(lines, columns, size)
    bad = np.flatnonzero(codes_L)
    if len(bad) and on_bad_row == 'refuse':
      line = number + int(lines.index_L[bad[0]])
      raise ValueError(f'{path} line {line}: {reasons[codes_L[bad[0]]]}.')
    questions.append(questions_Lnn[codes_L == 0])
    answers.append(answers_Lnn[codes_L == 0])
    skipped += len(bad)
    number += lines.total
  if not sum(map(len, questions)):
    more = f', {skipped} bad rows skipped' if skipped else ''
    raise ValueError(f'{path}: no mazes in it{more}.')
  return Table(np.concatenate(questions), np.concatenate(answers), skipped)
