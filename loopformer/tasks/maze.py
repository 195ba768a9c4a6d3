"""Mazes: the whole grid in, the grid with a shortest path marked out.

Token ids as published (arXiv:2506.21734): PAD 0, then '# SGo' as 1 to 5. Kinds:
`unique` has one path (Maze-Unique of EqR: perfect mazes), `hard` random walls
and often several shortest paths (Maze-Hard), of which the label is one.
"""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Shaped, UInt8, UInt64

from loopformer.tasks import cache, maze_csv, maze_draw, scoring, streams
from loopformer.tasks.maze_draw import KINDS, default_lengths
from loopformer.tasks.maze_grid import (
  CHARACTERS,
  Grids,
  canonical,
  is_solved,
  path_length,
  solve,
  transform,
)
from loopformer.tasks.task import Batch, require, require_policy, require_split

_VERSION = 1  # of the generators: part of the name of the cached file


@dataclasses.dataclass(frozen=True, kw_only=True)
class MazeConfig:
  """Which mazes, and what is held out.

  size: of the grid's side. kind: 'unique' or 'hard', of generated mazes.
  min_path, max_path: bounds on the moves from S to G, None for
    `maze_draw.default_lengths`; on the rows of files only where given.
  border: a ring of walls around unique mazes; None for from size 29 on, as
    published. Without it 7 x 7 holds 4 x 4 rooms and not 3 x 3.
  pool: mazes generated, no two equal up to symmetry, fewer if there are none.
  train_puzzles: most mazes trained on, 0 for all that are not held out.
  heldout_fraction: share of the classes up to symmetry that is held out.
  seed: of the pool and of the held-out rows.
  symmetries: draw one of the 8 for every row (published: off).
  path: in place of the pool, a CSV of mazes or a folder with train.csv and
    test.csv; the classes of test.csv are taken out of training.
  on_bad_row: 'refuse' or 'skip'.
  """

  size: int = 7
  kind: str = 'unique'
  min_path: int | None = None
  max_path: int | None = None
  border: bool | None = None
  pool: int = 2000
  train_puzzles: int = 1000
  heldout_fraction: float = 0.2
  seed: int = 0
  symmetries: bool = False
  path: str | None = None
  on_bad_row: str = 'refuse'

  def __post_init__(self):
    require(self.size >= 5, 'size', self.size, '>= 5')
    require(self.kind in KINDS, 'kind', self.kind, "'unique' or 'hard'")
    low, high = self.lengths
    require(low >= 1, 'min_path', low, '>= 1')
    most = maze_draw.longest(self.size, self.kind, self.ringed)
    most = self.size**2 - 1 if self.path else most
    fits = low <= high <= most
    require(fits, 'max_path', high, f'in {low}..{most}')
    require(self.pool >= 2, 'pool', self.pool, '>= 2')
    require(
      self.train_puzzles >= 0, 'train_puzzles', self.train_puzzles, '>= 0'
    )
    require_split(self.seed, self.heldout_fraction)
    require_policy(self.on_bad_row)

  @property
  def ringed(self) -> bool:
    """Whether unique mazes have a border, default filled in."""
    return self.size >= 29 if self.border is None else self.border

  @property
  def lengths(self) -> tuple[int, int]:
    """Fewest and most moves from S to G, defaults filled in."""
    if self.path:
      low, high = 1, self.size**2 - 1
    else:
      low, high = default_lengths(self.size, self.kind, self.ringed)
    low = low if self.min_path is None else self.min_path
    return low, high if self.max_path is None else self.max_path


class Pool(NamedTuple):
  """Mazes, the same with a shortest path marked, and the class of each."""

  mazes_Nnn: UInt8[np.ndarray, 'N n n']
  answers_Nnn: UInt8[np.ndarray, 'N n n']
  classes_N: UInt64[np.ndarray, ' N']

  def take(self, rows: np.ndarray | slice) -> 'Pool':
    """The rows at these indices or under this mask."""
    return Pool(*(array[rows] for array in self))


def generate(config: MazeConfig) -> Pool:
  """The pool of a config, made once and kept in the disk cache.

  Raises:
    ValueError: no maze has a path of such a length.
  """

  def build():
    mazes_Nnn = maze_draw.draw(
      config.size,
      config.kind,
      config.lengths,
      config.pool,
      config.seed,
      border=config.ringed,
    )
    return {'mazes': mazes_Nnn, 'answers': solve(mazes_Nnn)}

  ring = 'ringed' if config.ringed else 'bare'
  name = f'maze{config.size}-{config.kind}-{ring}'
  low, high = config.lengths
  key = f'{name}-{low}-{high}-{config.pool}-{config.seed}-v{_VERSION}'
  kept = cache.cached(key, ('mazes', 'answers'), build)
  return Pool(kept['mazes'], kept['answers'], canonical(kept['mazes'])[1])


class Maze:
  """Mazes of training classes, each weighing the same.

  A class is a maze up to the 8 symmetries of the square. Held-out classes are
  never trained on, turned or mirrored either.
  """

  causal = False

  def __init__(self, config: MazeConfig):
    self.config = config
    self.vocab_size = self.num_classes = len(CHARACTERS) + 1
    self.seq_len = config.size**2
    self._skipped = 0
    self.train_pool, self.heldout_pool = self._split()

  def _split(self) -> tuple[Pool, Pool]:
    config = self.config
    folder = pathlib.Path(config.path) if config.path else None
    if folder and folder.is_dir():
      pool = self._read(str(folder / 'train.csv'))
      held = self._read(str(folder / 'test.csv'))
      out_N = np.isin(pool.classes_N, held.classes_N)
    else:
      pool = self._read(config.path) if config.path else generate(config)
      out_N = streams.is_heldout(pool.classes_N, config.heldout_fraction)
      held = pool.take(out_N)
    train = pool.take(~out_N).take(slice(config.train_puzzles or None))
    for part, side in ((train, 'training'), (held, 'held-out')):
      if not len(part.classes_N):
        raise ValueError(
          f'heldout_fraction {config.heldout_fraction} leaves no {side} mazes '
          f'of {len(pool.classes_N)}.'
        )
    return train, held

  def _read(self, path: str) -> Pool:
    config = self.config
    table = maze_csv.read(path, config.size, on_bad_row=config.on_bad_row)
    self._skipped += table.skipped
    pool = Pool(
      table.questions_Nnn,
      table.answers_Nnn,
      canonical(table.questions_Nnn)[1],
    )
    low, high = config.lengths
    length_N = path_length(pool.mazes_Nnn)
    kept_N = (low <= length_N) & (length_N <= high)
    require(bool(kept_N.any()), 'min_path', low, f'met by some row of {path}')
    return pool.take(kept_N)

  @property
  def skipped(self) -> int:
    """Rows of the files that were left out because something is wrong."""
    return self._skipped

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """`size` rows drawn with replacement, a pure function of (seed, step)."""
    rng = streams.generator(streams.TRAIN, seed, step)
    rows_B = rng.integers(len(self.train_pool.classes_N), size=size)
    rows = self.train_pool.take(rows_B)
    mazes_Bnn, answers_Bnn = rows.mazes_Nnn, rows.answers_Nnn
    if self.config.symmetries:
      which_B = rng.integers(8, size=size)
      mazes_Bnn = transform(mazes_Bnn, which_B)
      answers_Bnn = transform(answers_Bnn, which_B)
    return _batch(mazes_Bnn, answers_Bnn)

  def heldout(self, count: int) -> Batch:
    """Every held-out maze once, then all of them again.

    Those of a pool or of a split file come in a fixed random order, those of
    test.csv as they stand there.
    """
    order_N = np.arange(len(self.heldout_pool.classes_N))
    if not self.config.path or not pathlib.Path(self.config.path).is_dir():
      rng = streams.generator(streams.HELDOUT, self.config.seed)
      order_N = rng.permutation(order_N)
    rows = self.heldout_pool.take(np.resize(order_N, count))
    return _batch(rows.mazes_Nnn, rows.answers_Nnn)

  def score(
    self, predictions_NT: Int[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Shaped[np.ndarray, ' N']]:
    """Figures per row.

    `exact`: equal to the label. `token`: share of squares that are.
    `valid`: walls, S and G are kept and some shortest path is marked.
    """
    labels_NT, side = batch['labels'], self.config.size
    legal_NT = (predictions_NT >= 0) & (predictions_NT < self.vocab_size)
    guess_NT = np.where(legal_NT, predictions_NT, 0)
    return {
      'exact': scoring.exact(predictions_NT, labels_NT),
      'token': scoring.accuracy(predictions_NT, labels_NT),
      'valid': is_solved(
        to_grids(batch['inputs'], side), to_grids(guess_NT, side)
      ),
    }

  def difficulty(self, batch: Batch) -> dict[str, Shaped[np.ndarray, ' N']]:
    """`path`: moves from S to G."""
    return {'path': path_length(to_grids(batch['inputs'], self.config.size))}

  def describe(self) -> str:
    config = self.config
    train, held = self.train_pool.classes_N, self.heldout_pool.classes_N
    length_N = path_length(self.train_pool.mazes_Nnn)
    source = 'of a file' if config.path else config.kind
    lines = [
      f'maze {config.size}x{config.size} ({source}): {len(train):,} mazes '
      f'trained on, {len(held):,} held out, none of them equal to one trained '
      f'on up to symmetry; {length_N.min()} to {length_N.max()} moves, mean '
      f'{length_N.mean():.1f}.'
    ]
    if config.path:
      lines.append(f'{self._skipped:,} bad rows skipped.')
    return '\n'.join(lines)


def _batch(mazes_Bnn: Grids, answers_Bnn: Grids) -> Batch:
  shape = (len(mazes_Bnn), -1)
  inputs_BT = mazes_Bnn.reshape(shape).astype(np.int32)
  labels_BT = answers_Bnn.reshape(shape).astype(np.int32)
  ids_B = streams.row_ids(inputs_BT)
  return Batch(inputs=inputs_BT, labels=labels_BT, ids=ids_B)


def to_grids(tokens_NT: Int[np.ndarray, 'N T'], size: int) -> Grids:
  """Token ids as grids."""
  return tokens_NT.astype(np.uint8).reshape(-1, size, size)
