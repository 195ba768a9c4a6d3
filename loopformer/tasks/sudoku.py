"""Sudoku 4x4, 6x6 and 9x9: the whole board in, the whole solution out.

Token ids as published (arXiv:2506.21734): PAD 0, blank 1, digit d as d + 1.
Labels hold the solution at every cell, clues included.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int, Shaped

from loopformer.tasks import scoring, streams, sudoku_csv, sudoku_pool
from loopformer.tasks import sudoku_symmetry as symmetry
from loopformer.tasks.sudoku_candidates import rounds
from loopformer.tasks.sudoku_canon import class_hash
from loopformer.tasks.sudoku_pool import Pool
from loopformer.tasks.sudoku_rules import (
  FEWEST_CLUES,
  GEOMETRIES,
  Digits,
  is_solved,
)
from loopformer.tasks.task import Batch, require, require_policy, require_split

PAD, BLANK = 0, 1
CLUES = {4: (4, 8), 6: (10, 18), 9: (26, 34)}  # generated unless told otherwise


@dataclasses.dataclass(frozen=True, kw_only=True)
class SudokuConfig:
  """Which puzzles, and what is held out.

  size: 4, 6 or 9. min_clues, max_clues: bounds on generated puzzles, None for
    `CLUES[size]`; on the rows of files only where given.
  pool_size: puzzles generated for 6x6 and 9x9 (4x4 has every class).
  seed: of the pool and of the held-out rows.
  path: a CSV of puzzles in place of generated ones. heldout_path: one for the
    held-out rows; its classes are taken out of training.
  heldout_fraction: share of the classes held out without a heldout_path.
  train_puzzles: trained on, drawn by the seed; 0 for all not held out.
  augment: draw a random symmetry for every row.
  on_bad_row: 'refuse' or 'skip'. check_unique: solve every row of a file.
  limit: most rows read from each file.
  """

  size: int = 4
  min_clues: int | None = None
  max_clues: int | None = None
  pool_size: int = 1000
  seed: int = 0
  path: str | None = None
  heldout_path: str | None = None
  heldout_fraction: float = 0.2
  train_puzzles: int = 0
  augment: bool = True
  on_bad_row: str = 'refuse'
  check_unique: bool = False
  limit: int | None = None

  def __post_init__(self):
    require(self.size in GEOMETRIES, 'size', self.size, '4, 6 or 9')
    low, high = self.clues
    fewest = FEWEST_CLUES[self.size] if self.path is None else 0
    fits = fewest <= low <= self.size**2
    require(fits, 'min_clues', low, f'in {fewest}..{self.size**2}')
    fits = low <= high <= self.size**2
    require(fits, 'max_clues', high, f'in {low}..{self.size**2}')
    require(self.pool_size >= 2, 'pool_size', self.pool_size, '>= 2')
    require_split(self.seed, self.heldout_fraction)
    few = self.train_puzzles
    require(few >= 0, 'train_puzzles', few, '>= 0')
    require_policy(self.on_bad_row)
    some = self.limit is None or self.limit >= 1
    require(some, 'limit', self.limit, 'None or >= 1')

  @property
  def clues(self) -> tuple[int, int]:
    """Fewest and most clues, defaults filled in."""
    low, high = (0, self.size**2) if self.path else CLUES[self.size]
    return (
      low if self.min_clues is None else self.min_clues,
      high if self.max_clues is None else self.max_clues,
    )


class Sudoku:
  """Puzzles of training classes under random symmetries.

  A class is a puzzle up to symmetry. A row is a class, drawn uniformly, and a
  uniform symmetry of it, so classes weigh the same whatever their number of
  distinct boards. Held-out classes are never trained on in any disguise.
  """

  causal = False

  def __init__(self, config: SudokuConfig):
    self.config = config
    self.geometry = GEOMETRIES[config.size]
    self.vocab_size = self.num_classes = config.size + 2
    self.seq_len = self.geometry.cells
    self._skipped = 0
    self.train_pool, self.heldout_pool = self._split()

  def _split(self) -> tuple[Pool, Pool]:
    config = self.config
    if config.path is None:
      pool = sudoku_pool.load(
        config.size, config.clues, config.pool_size, config.seed
      )
    else:
      pool = self._read(config.path, 'path')
    if config.heldout_path is None:
      out_N = streams.is_heldout(pool.classes_N, config.heldout_fraction)
      held = pool.take(out_N)
    else:
      held = self._read(config.heldout_path, 'heldout_path')
      out_N = np.isin(pool.classes_N, held.classes_N)
    train = pool.take(~out_N)
    for part, side in ((train, 'training'), (held, 'held-out')):
      if not len(part.classes_N):
        raise ValueError(
          f'heldout_fraction {config.heldout_fraction} leaves no {side} '
          f'puzzles of {len(pool.classes_N)}.'
        )
    return self._some(train), held

  def _some(self, pool: Pool) -> Pool:
    """`train_puzzles` of a pool, in its order."""
    count, total = self.config.train_puzzles, len(pool.classes_N)
    require(count <= total, 'train_puzzles', count, f'in 0..{total}')
    if not count:
      return pool
    rng = streams.generator(streams.SUBSET, self.config.seed)
    return pool.take(np.sort(rng.permutation(total)[:count]))

  def _read(self, path: str, field: str) -> Pool:
    config = self.config
    table = sudoku_csv.read(
      path,
      self.geometry,
      field=field,
      on_bad_row=config.on_bad_row,
      check_unique=config.check_unique,
      limit=config.limit,
    )
    self._skipped += table.skipped
    questions_NC, answers_NC = table.questions_NC, table.answers_NC
    count_N = np.count_nonzero(questions_NC, axis=1)
    low, high = config.clues
    if (config.min_clues, config.max_clues) != (None, None):
      kept = (low <= count_N) & (count_N <= high)
      require(bool(kept.any()), 'min_clues', low, f'met by some row of {path}')
      questions_NC, answers_NC = questions_NC[kept], answers_NC[kept]
    classes_N = class_hash(questions_NC, self.geometry)
    return Pool(questions_NC, answers_NC, classes_N)

  @property
  def skipped(self) -> int:
    """Rows of the files that were left out because something is wrong."""
    return self._skipped

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """`size` rows drawn with replacement, a pure function of (seed, step)."""
    rng = streams.generator(streams.TRAIN, seed, step)
    rows_B = rng.integers(len(self.train_pool.classes_N), size=size)
    return self._batch(self.train_pool, rows_B, rng, self.config.augment)

  def heldout(self, count: int) -> Batch:
    """Every held-out puzzle in a fixed random order, then all of them again.

    Rows of a heldout_path come as they stand in the file, those past its end
    and those of a split pool under random symmetries.
    """
    pool, config = self.heldout_pool, self.config
    rng = streams.generator(streams.HELDOUT, config.seed)
    total = len(pool.classes_N)
    if config.heldout_path is None:
      order_N = rng.permutation(total)
      return self._batch(pool, np.resize(order_N, count), rng, config.augment)
    rows_B = np.arange(count) % total
    first = self._batch(pool, rows_B[:total], rng, False)
    if count <= total:
      return first
    more = self._batch(pool, rows_B[total:], rng, config.augment)
    return Batch(
      inputs=np.concatenate([first['inputs'], more['inputs']]),
      labels=np.concatenate([first['labels'], more['labels']]),
      ids=np.concatenate([first['ids'], more['ids']]),
    )

  def _batch(
    self, pool: Pool, rows_B: np.ndarray, rng: np.random.Generator, vary: bool
  ) -> Batch:
    puzzles_BC, answers_BC = pool.puzzles_NC[rows_B], pool.answers_NC[rows_B]
    if vary:
      drawn = symmetry.draw(rng, len(rows_B), self.geometry)
      puzzles_BC, answers_BC = drawn.apply(puzzles_BC), drawn.apply(answers_BC)
    inputs_BT = to_tokens(puzzles_BC)
    return Batch(
      inputs=inputs_BT,
      labels=to_tokens(answers_BC),
      ids=streams.row_ids(inputs_BT),
    )

  def score(
    self, predictions_NT: Int[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Shaped[np.ndarray, ' N']]:
    """`exact`: every cell is right; `cell`: share of blank cells right."""
    labels_NT, blank_NT = batch['labels'], batch['inputs'] == BLANK
    return {
      'exact': scoring.exact(predictions_NT, labels_NT),
      'cell': scoring.accuracy(predictions_NT, labels_NT, blank_NT),
    }

  def difficulty(self, batch: Batch) -> dict[str, Shaped[np.ndarray, ' N']]:
    """`blanks`: cells to be filled; `rounds`: see `sudoku_candidates`."""
    boards_NC = to_digits(batch['inputs'])
    return {
      'blanks': (boards_NC == 0).sum(1),
      'rounds': rounds(boards_NC, self.geometry),
    }

  def describe(self) -> str:
    train = len(np.unique(self.train_pool.classes_N))
    held = len(np.unique(self.heldout_pool.classes_N))
    n = self.config.size
    lines = [
      f'sudoku {n}x{n}: {train + held:,} classes of puzzles under symmetry, '
      f'{train:,} trained on, {held:,} held out.'
    ]
    if self.config.path or self.config.heldout_path:
      rows = len(self.train_pool.classes_N), len(self.heldout_pool.classes_N)
      lines.append(
        f'{rows[0]:,} rows trained on, {rows[1]:,} held out, '
        f'{self._skipped:,} bad rows skipped.'
      )
    return '\n'.join(lines)


def to_tokens(boards_NC: Digits) -> Int[np.ndarray, 'N C']:
  """Digits (0 blank) to token ids: d -> d + 1."""
  return boards_NC.astype(np.int32) + 1


def to_digits(tokens_NT: Int[np.ndarray, 'N T']) -> Digits:
  """Token ids of a board to digits, 0 where blank."""
  return np.maximum(tokens_NT - 1, 0).astype(np.uint8)


def is_valid(
  tokens_NT: Int[np.ndarray, 'N T'], size: int
) -> Bool[np.ndarray, ' N']:
  """Every row is a complete grid that keeps the rules."""
  digits_NT = tokens_NT - 1
  legal_NT = (digits_NT >= 1) & (digits_NT <= size)
  legal_N = np.logical_and.reduce(legal_NT, axis=1)
  safe_NT = np.where(legal_N[:, None], digits_NT, 1).astype(np.uint8)
  return legal_N & is_solved(safe_NT, GEOMETRIES[size])


def render(tokens_T: Int[np.ndarray, ' T']) -> str:
  """A board as text: digits, '.' for blanks, bars between boxes."""
  n = int(len(tokens_T) ** 0.5)
  r, c = GEOMETRIES[n]
  symbols = [str(token - 1) if token > BLANK else '.' for token in tokens_T]
  lines: list[str] = []
  for row in range(n):
    if row and row % r == 0:
      lines.append('-+-'.join(['-' * (2 * c - 1)] * r))
    cells = symbols[row * n : row * n + n]
    boxes = [' '.join(cells[at : at + c]) for at in range(0, n, c)]
    lines.append(' | '.join(boxes))
  return '\n'.join(lines)
