"""TFDS builders of the published puzzle sets, kept as ArrayRecord.

The files are brought by hand (`manual_dir`); nothing is downloaded. TFDS 4.9.10
writes and reads ArrayRecord with no TensorFlow installed, so these are plain
`GeneratorBasedBuilder`s. They hold what the files hold: augmentation is the
task's. Every example has `inputs` and `labels`, token ids of `length` cells
(PAD 0), and more where named.

  builder = prepare(SudokuExtreme, manual_dir='~/sudoku', data_dir='~/data')
  source = builder.as_data_source('train')       # len(source), source[i]

Prepared data is found by name too: `tfds.builder('sudoku_extreme/1k',
data_dir=...)`. The classes are not entered in TFDS's registry, so importing
this module twice (a notebook's reload) is harmless.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from loopformer.tasks import arc_json, maze_csv, streams, sudoku_csv
from loopformer.tasks.arc_grid import SIDE, encode
from loopformer.tasks.sudoku_rules import GEOMETRIES
from loopformer.tasks.task import require

Example = dict[str, Any]


def _info(builder, length: int, **features: Any) -> tfds.core.DatasetInfo:
  """Info of a data set of `inputs` and `labels` of `length` cells and more."""
  cells = lambda: tfds.features.Tensor(shape=(length,), dtype=np.uint8)
  return tfds.core.DatasetInfo(
    builder=builder,
    description=builder.__doc__,
    features=tfds.features.FeaturesDict(
      {'inputs': cells(), 'labels': cells(), **features}
    ),
    disable_shuffling=True,
  )


def _file(dl_manager: Any, name: str) -> str:
  """Path of a file in manual_dir.

  Raises:
    FileNotFoundError: one line naming manual_dir.
  """
  path = pathlib.Path(dl_manager.manual_dir) / name
  if not path.exists():
    raise FileNotFoundError(f'manual_dir must hold {name}, got no {path}.')
  return str(path)


@dataclasses.dataclass(kw_only=True)
class SubsetConfig(tfds.core.BuilderConfig):
  """How many training puzzles (None for all), and the seed they are drawn by.

  The published 1k runs drew theirs by an unseeded np.random.choice, each its
  own; these are the same wherever they are built, and equal to none of those.
  """

  name: str
  description: str | None = None
  count: int | None = None
  seed: int = 42

  def __post_init__(self):
    some = self.count is None or self.count >= 1
    require(some, 'count', self.count, 'None or >= 1')
    require(self.seed >= 0, 'seed', self.seed, '>= 0')


class SudokuExtreme(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Sudoku-Extreme: 9 x 9 puzzles and solutions; blank 1, digit d as d + 1.

  From train.csv and test.csv of the hub's sapientinc/sudoku-extreme, columns
  source,question,answer,rating; `line` is the line of the CSV. Config '1k' has
  a seeded thousand of the training puzzles and all test puzzles.
  """

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS = (
    SubsetConfig(name='1k', description='1,000 to train on.', count=1000),
    SubsetConfig(name='full', description='Everything.'),
  )
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'train.csv and test.csv of the hub data set.'

  def _info(self) -> tfds.core.DatasetInfo:
    return _info(self, 81, line=np.int64)

  def _split_generators(self, dl_manager):
    config = self.builder_config
    return {
      'train': self._generate_examples(
        _file(dl_manager, 'train.csv'), config.count
      ),
      'test': self._generate_examples(_file(dl_manager, 'test.csv'), None),
    }

  def _generate_examples(
    self, path: str, count: int | None
  ) -> Iterator[tuple[int, Example]]:
    table = sudoku_csv.read(path, GEOMETRIES[9])
    rows = np.arange(len(table.lines_N))
    if count is not None:
      require(count <= len(rows), 'count', count, f'<= {len(rows)}, {path}')
      rng = streams.generator(streams.POOL, self.builder_config.seed)
      rows = np.sort(rng.choice(rows, count, replace=False))
    for key, row in enumerate(rows):
      yield (
        key,
        {
          'inputs': table.questions_NC[row] + np.uint8(1),
          'labels': table.answers_NC[row] + np.uint8(1),
          'line': int(table.lines_N[row]),
        },
      )


class MazeHard(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Maze-Hard: 30 x 30 mazes; the characters '# SGo' as 1 to 5.

  From train.csv and test.csv of the hub's sapientinc/maze-30x30-hard-1k, the
  columns as for Sudoku-Extreme and in the file's order; the answer is the maze
  with one shortest path marked o.
  """

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'train.csv and test.csv of the hub data set.'

  def _info(self) -> tfds.core.DatasetInfo:
    return _info(self, 900)

  def _split_generators(self, dl_manager):
    return {
      split: self._generate_examples(_file(dl_manager, f'{split}.csv'))
      for split in ('train', 'test')
    }

  def _generate_examples(self, path: str) -> Iterator[tuple[int, Example]]:
    table = maze_csv.read(path, 30)
    inputs_NS = table.questions_Nnn.reshape(-1, 900)
    labels_NS = table.answers_Nnn.reshape(-1, 900)
    for key, cells in enumerate(zip(inputs_NS, labels_NS, strict=True)):
      yield key, dict(zip(('inputs', 'labels'), cells, strict=True))


class ArcAgi(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """ARC-AGI: 'train' has the demonstrations of all tasks, 'test' their tests.

  From every JSON file in manual_dir, in either published form. Grids lie at
  the first cell of a 30 x 30 canvas (EOS 1, colour c as c + 2); `task` is the
  name of the task and `pair` the number of the pair in it.
  """

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = 'JSON files of ARC tasks with their solutions.'

  def _info(self) -> tfds.core.DatasetInfo:
    return _info(self, SIDE**2, task=tfds.features.Text(), pair=np.int32)

  def _split_generators(self, dl_manager):
    puzzles = arc_json.read(str(dl_manager.manual_dir), field='manual_dir')
    return {
      split: self._generate_examples(puzzles, split)
      for split in ('train', 'test')
    }

  def _generate_examples(
    self, puzzles: tuple[arc_json.Puzzle, ...], split: str
  ) -> Iterator[tuple[int, Example]]:
    pairs = (
      (puzzle.name, number, pair)
      for puzzle in puzzles
      for number, pair in enumerate(getattr(puzzle, split))
    )
    for key, (name, number, pair) in enumerate(pairs):
      yield (
        key,
        {
          'inputs': encode(pair.input).astype(np.uint8),
          'labels': encode(pair.output).astype(np.uint8),
          'task': name,
          'pair': number,
        },
      )


def prepare(
  builder_class: type, *, manual_dir: str, data_dir: str, config: Any = None
) -> tfds.core.DatasetBuilder:
  """Builds a data set below `data_dir`, or finds it there already built.

  config: the name of a config, or one of one's own.

  Raises:
    FileNotFoundError, ValueError: one line on the files in `manual_dir`.
  """
  source = pathlib.Path(manual_dir).expanduser()
  if not source.is_dir() or not any(source.iterdir()):
    raise FileNotFoundError(
      f'manual_dir must be a folder with the files, got {manual_dir!r}.'
    )
  builder = builder_class(
    data_dir=str(pathlib.Path(data_dir).expanduser()),
    config=config,
    file_format='array_record',
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=str(source))
  )
  return builder
