"""TFDS builders: what is written comes back, and TensorFlow stays away."""

import json

import numpy as np
import pytest

from loopformer.tasks import arc_grid, builders
from tests import util

DIGITS = np.arange(9)
SOLUTION_99 = (DIGITS[:, None] * 3 + DIGITS[:, None] // 3 + DIGITS) % 9 + 1


def sudoku_csv(path, count):
  """`count` puzzles: one solution, another cell blank in each."""
  answer = ''.join(map(str, SOLUTION_99.ravel()))
  lines = ['source,question,answer,rating']
  for cell in range(count):
    question = answer[:cell] + '.' + answer[cell + 1 :]
    lines.append(f'me,{question},{answer},{cell}')
  path.write_text('\n'.join(lines))


def maze_csv(path, count):
  """`count` corridors, in another row of the grid each."""
  lines = ['source,question,answer,rating']
  for row in range(count):
    walls = ['#' * 30] * 30
    question, answer = (
      ''.join(walls[:row] + [f'S{inner * 28}G'] + walls[row + 1 :])
      for inner in ' o'
    )
    lines.append(f'me,{question},{answer},0')
  path.write_text('\n'.join(lines))


def write_all(folder):
  """Small files of every set."""
  for name, write in (('sudoku', sudoku_csv), ('maze', maze_csv)):
    (folder / name).mkdir()
    write(folder / name / 'train.csv', 20)
    write(folder / name / 'test.csv', 3)
  (folder / 'arc').mkdir()
  pairs = lambda *colours: [
    {'input': [[c]], 'output': [[c, c]]} for c in colours
  ]
  task = {'train': pairs(1, 2), 'test': pairs(3)}
  (folder / 'arc' / 'double.json').write_text(json.dumps(task))


@pytest.fixture
def files(tmp_path):
  write_all(tmp_path)
  return tmp_path


def prepare(files, builder_class, name, config=None):
  return builders.prepare(
    builder_class,
    manual_dir=str(files / name),
    data_dir=str(files / 'data'),
    config=config,
  )


def test_sudoku_round_trip_and_seeded_subset(files):
  subsets = [
    builders.SubsetConfig(name=f'7_seed{seed}', count=7, seed=seed)
    for seed in (0, 1)
  ]
  lines = {}
  for config, count in (('full', 20), (subsets[0], 7), (subsets[1], 7)):
    builder = prepare(files, builders.SudokuExtreme, 'sudoku', config)
    train = builder.as_data_source('train')
    assert (len(train), len(builder.as_data_source('test'))) == (count, 3)
    for example in train:
      np.testing.assert_array_equal(
        example['labels'], SOLUTION_99.ravel() + 1, strict=False
      )
      (blank,) = np.flatnonzero(example['inputs'] != example['labels'])
      assert example['inputs'][blank] == 1
      assert blank == example['line'] - 2
    lines[builder.builder_config.name] = [row['line'] for row in train]
  assert lines['full'] == list(range(2, 22))
  assert lines['7_seed0'] == sorted(set(lines['7_seed0']))
  assert lines['7_seed0'] != lines['7_seed1']
  with pytest.raises(ValueError, match='count must be <= 20, .*train.csv, got'):
    prepare(files, builders.SudokuExtreme, 'sudoku', '1k')


def test_maze_round_trip(files):
  builder = prepare(files, builders.MazeHard, 'maze')
  train = builder.as_data_source('train')
  assert (len(train), len(builder.as_data_source('test'))) == (20, 3)
  for row, example in enumerate(train):
    for key, inner in (('inputs', 2), ('labels', 5)):
      expected = np.ones((30, 30), np.uint8)
      expected[row] = [3, *[inner] * 28, 4]
      np.testing.assert_array_equal(example[key], expected.ravel())


def test_arc_round_trip(files):
  builder = prepare(files, builders.ArcAgi, 'arc')
  found = [
    (split, row['task'].decode(), int(row['pair']), *decoded(row))
    for split in ('train', 'test')
    for row in builder.as_data_source(split)
  ]
  assert found == [
    ('train', 'double', 0, [[1]], [[1, 1]]),
    ('train', 'double', 1, [[2]], [[2, 2]]),
    ('test', 'double', 0, [[3]], [[3, 3]]),
  ]


def decoded(row):
  return [arc_grid.decode(row[k]).tolist() for k in ('inputs', 'labels')]


def test_a_prepared_set_is_found_without_its_files(files):
  prepare(files, builders.MazeHard, 'maze')
  (files / 'maze' / 'train.csv').unlink()
  again = prepare(files, builders.MazeHard, 'maze')
  assert len(again.as_data_source('train')) == 20


@pytest.mark.parametrize(
  ('builder_class', 'message'),
  [
    (builders.SudokuExtreme, 'manual_dir must hold train.csv, got no /'),
    (builders.MazeHard, 'manual_dir must hold train.csv, got no /'),
    (builders.ArcAgi, 'manual_dir must name a JSON file or a folder of them'),
  ],
)
def test_missing_files_are_one_line(tmp_path, builder_class, message):
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'notes.txt').touch()
  with pytest.raises(FileNotFoundError) as caught:
    prepare(tmp_path, builder_class, 'other')
  assert message in str(caught.value)
  assert '\n' not in str(caught.value)
  (tmp_path / 'empty').mkdir()
  for name in ('empty', 'none'):
    with pytest.raises(FileNotFoundError, match='manual_dir must be a folder'):
      prepare(tmp_path, builder_class, name)


def test_bad_rows_are_one_line(files):
  with open(files / 'maze' / 'train.csv', 'a') as file:
    file.write('\nme,###,###,0')
  with pytest.raises(ValueError, match='train.csv line 22: .*must') as caught:
    prepare(files, builders.MazeHard, 'maze')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(count=0), 'count must be None or >= 1, got 0.'),
    (dict(seed=-1), 'seed must be >= 0, got -1.'),
  ],
)
def test_subsets_are_checked(fields, message):
  with pytest.raises(ValueError, match=message):
    builders.SubsetConfig(name='x', **fields)


WITHOUT_TENSORFLOW = """
import sys
from loopformer.tasks import builders
import tensorflow_datasets as tfds
where = dict(manual_dir=sys.argv[1] + '/sudoku', data_dir=sys.argv[1] + '/data')
built = builders.prepare(builders.SudokuExtreme, config='full', **where)
named = tfds.builder('sudoku_extreme/full', data_dir=where['data_dir'])
for builder in (built, named):
  rows = builder.as_data_source('train')
  print(len(rows), len(rows[19]['inputs']), rows[19]['line'])
print(sorted({'tensorflow', 'jax'} & set(sys.modules)))
"""


def test_nothing_needs_tensorflow(files):
  done = util.run_python(WITHOUT_TENSORFLOW, str(files), fresh=True)
  assert done.stdout.splitlines()[-3:] == ['20 81 21', '20 81 21', '[]']
