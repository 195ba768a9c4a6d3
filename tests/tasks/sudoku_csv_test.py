"""The CSV reader: every accepted form, and every kind of bad row."""

import time

import numpy as np
import pytest

from loopformer.tasks import csv_lines, sudoku_csv
from loopformer.tasks.sudoku_pool import enumerate_4x4
from loopformer.tasks.sudoku_rules import GEOMETRIES

HEADER = b'source,question,answer,rating'
QUESTION, ANSWER = b'1.3..........4.2', b'1234432121433412'
ROW = b'me,' + QUESTION + b',' + ANSWER + b',7'


@pytest.fixture
def read(tmp_path):
  """Writes lines to a file and reads it as 4x4."""

  def run(*lines, newline=b'\n', end=b'\n', **kwargs):
    path = tmp_path / 'puzzles.csv'
    path.write_bytes(newline.join(lines) + end)
    return sudoku_csv.read(str(path), GEOMETRIES[4], **kwargs)

  return run


def test_a_row_is_read_cell_by_cell(read):
  table = read(HEADER, ROW)
  expected = [int(chr(c)) for c in QUESTION.replace(b'.', b'0')]
  assert table.questions_NC.tolist() == [expected]
  assert table.answers_NC.tolist() == [[int(chr(c)) for c in ANSWER]]
  assert table.lines_N.tolist() == [2]
  assert table.skipped == 0


@pytest.mark.parametrize('newline', [b'\n', b'\r\n'])
@pytest.mark.parametrize('end', [b'', b'\n', b'\r\n', b'\n\n\r\n'])
def test_line_ends(read, newline, end):
  table = read(HEADER, ROW, b'', ROW, newline=newline, end=end)
  assert table.lines_N.tolist() == [2, 4]
  assert (table.answers_NC[0] == table.answers_NC[1]).all()


@pytest.mark.parametrize(
  ('header', 'row'),
  [
    (b'question,answer', QUESTION + b',' + ANSWER),
    (b'answer,question', ANSWER + b',' + QUESTION),
    (b'\xef\xbb\xbfanswer,rating,question', ANSWER + b',9,' + QUESTION),
    (b'rating,source,answer,question', b'1,a,' + ANSWER + b',' + QUESTION),
    (HEADER, 'Ö,'.encode() + ROW[3:]),
    (HEADER, ROW.replace(b'.', b'0')),
  ],
)
def test_columns_in_any_order(read, header, row):
  table = read(header, row)
  assert bytes(table.answers_NC[0] + ord('0')) == ANSWER
  assert table.questions_NC[0, :5].tolist() == [1, 0, 3, 0, 0]


BAD = {
  'few columns': (b'me,' + QUESTION + b',' + ANSWER, 'must have 4 columns'),
  'many columns': (ROW + b',8', 'must have 4 columns'),
  'no commas': (b'nonsense', 'must have 4 columns'),
  'short question': (ROW.replace(b'4.2', b'42'), 'question must have 16'),
  'long answer': (ROW.replace(ANSWER, ANSWER + b'1'), 'answer must have 16'),
  'empty answer': (ROW.replace(ANSWER, b''), 'answer must have 16'),
  'symbol 5': (ROW.replace(b'4.2', b'5.2'), 'question must hold 1 to 4'),
  'space': (ROW.replace(b'4.2', b'4 2'), 'question must hold 1 to 4'),
  'letter': (ROW.replace(ANSWER, b'x' + ANSWER[1:]), 'answer must hold 1 to 4'),
  'blank': (ROW.replace(ANSWER, b'.' + ANSWER[1:]), 'answer must hold 1 to 4'),
  'invalid': (ROW.replace(ANSWER, b'2' + ANSWER[1:]), 'must be a valid grid'),
  'contradicted': (
    ROW.replace(QUESTION, b'2' + QUESTION[1:]),
    'answer must keep the clues',
  ),
  'bad byte': (ROW.replace(b'me', b'm\xff'), 'not UTF-8'),
  'cut symbol': (ROW.replace(b'me', b'\xc3'), 'not UTF-8'),
}


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_row_is_refused_by_file_line_and_reason(read, kind):
  row, reason = BAD[kind]
  with pytest.raises(ValueError) as caught:
    read(HEADER, ROW, b'', row, ROW)
  message = str(caught.value)
  assert 'puzzles.csv line 4: ' in message
  assert reason in message
  assert '\n' not in message


def test_bad_rows_are_skipped_and_counted(read):
  rows = [row for row, _ in BAD.values()]
  table = read(HEADER, ROW, *rows, ROW, on_bad_row='skip')
  assert table.lines_N.tolist() == [2, 3 + len(rows)]
  assert table.skipped == len(rows)


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    ((HEADER,), 'no puzzles in it'),
    ((ROW, ROW), "header must name column 'question'"),
    ((b'question,question,answer', ROW), "header must name column 'question'"),
    ((b'source,question', ROW), "header must name column 'answer'"),
    ((b'',), "header must name column 'question'"),
  ],
)
def test_a_file_without_header_or_rows_is_refused(read, lines, message):
  with pytest.raises(ValueError, match=message):
    read(*lines)


def test_an_empty_file_is_refused(tmp_path):
  path = tmp_path / 'empty.csv'
  path.touch()
  with pytest.raises(ValueError, match='line 1: the file is empty'):
    sudoku_csv.read(str(path), GEOMETRIES[4])


def test_a_missing_file_names_the_field(tmp_path):
  with pytest.raises(FileNotFoundError, match='heldout_path must name'):
    sudoku_csv.read(
      str(tmp_path / 'none.csv'), GEOMETRIES[4], field='heldout_path'
    )


def test_limit_stops_before_later_faults(read):
  table = read(HEADER, ROW, ROW, b'bad', ROW, limit=2)
  assert table.lines_N.tolist() == [2, 3]
  with pytest.raises(ValueError, match='line 4'):
    read(HEADER, ROW, ROW, b'bad', ROW, limit=3)


def test_uniqueness_is_checked_on_demand_and_kept(read, monkeypatch):
  loose = b'me,' + b'.' * 16 + b',' + ANSWER + b',7'
  assert len(read(HEADER, ROW, loose).lines_N) == 2
  with pytest.raises(ValueError, match='line 3: .*exactly one solution'):
    read(HEADER, ROW, loose, check_unique=True)
  monkeypatch.setattr(sudoku_csv, 'is_unique', None)  # not called again
  table = read(HEADER, ROW, loose, check_unique=True, on_bad_row='skip')
  assert (table.lines_N.tolist(), table.skipped) == ([2], 1)


@pytest.mark.parametrize('size', [1, 7, 64, 1000])
def test_pieces_are_whole_lines_and_nothing_is_lost(size):
  data = np.frombuffer(b'\n'.join([HEADER, ROW, b'', ROW * 3, b'x']), np.uint8)
  pieces = list(csv_lines.pieces(data, 0, size))
  assert b''.join(map(bytes, pieces)) == bytes(data)
  assert all(bytes(piece).endswith(b'\n') for piece in pieces[:-1])


def test_pieces_do_not_change_what_is_read(read, monkeypatch):
  whole = read(HEADER, *[ROW] * 40, b'bad', ROW, on_bad_row='skip')
  cut = csv_lines.pieces
  monkeypatch.setattr(csv_lines, 'pieces', lambda d, start: cut(d, start, 100))
  parts = read(HEADER, *[ROW] * 40, b'bad', ROW, on_bad_row='skip')
  for left, right in zip(whole, parts, strict=True):
    np.testing.assert_array_equal(left, right)


def test_speed(read):
  puzzles_NC, answers_NC = enumerate_4x4()
  rows = [
    b'me,%s,%s,0' % (bytes(puzzle + ord('0')), bytes(answer + ord('0')))
    for puzzle, answer in zip(puzzles_NC, answers_NC, strict=True)
  ]
  start = time.perf_counter()
  table = read(HEADER, *rows * 10)
  assert time.perf_counter() - start < 2.0
  assert len(table.lines_N) == 47100
