"""ARC-AGI-1 and -2: one puzzle id per augmented copy of a task.

As in the published pipeline (arXiv:2506.21734, HRM and TRM): demonstrations of
all tasks are trained on, those of the evaluated ones too, and what tells the
model which rule is meant is the row of a table, the puzzle id. Answers of the
tests come from votes over copies.
"""

import dataclasses
import functools
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from loopformer.tasks import arc_json, arc_synthetic, arc_vote, scoring, streams
from loopformer.tasks.arc_copies import distinct, pair_class
from loopformer.tasks.arc_grid import (
  COLOURS,
  PAD,
  SIDE,
  VOCAB,
  Augmentation,
  decode,
  encode,
)
from loopformer.tasks.arc_json import Pair, Puzzle
from loopformer.tasks.arc_vote import Ballot, Ranked
from loopformer.tasks.task import IGNORE, Answer, Batch, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArcConfig:
  """Which tasks, and how many copies of each.

  path: evaluated tasks, a JSON file or a folder of them (`arc_json`); None for
    `synthetic` made-up tasks, which are not ARC.
  train_paths: more tasks, whose tests are trained on like demonstrations (in
    the published runs: the training and concept subsets).
  augmentations: copies of a task besides the task itself, as far as there are
    that many different ones.
  translate: move training grids about the canvas, all but one pair per copy.
  canvas: side S of the canvas; sequences have S * S tokens.
  seed: of the copies, of the made-up tasks.
  """

  path: str | None = None
  train_paths: tuple[str, ...] = ()
  synthetic: int = 32
  augmentations: int = 1000
  translate: bool = True
  canvas: int = SIDE
  seed: int = 0

  def __post_init__(self):
    alone = self.path is not None or not self.train_paths
    require(alone, 'train_paths', self.train_paths, '() when path is None')
    require(self.synthetic >= 1, 'synthetic', self.synthetic, '>= 1')
    count = self.augmentations
    require(count >= 0, 'augmentations', count, '>= 0')
    fits = 2 <= self.canvas <= SIDE
    require(fits, 'canvas', self.canvas, f'in 2..{SIDE}')
    require(self.seed >= 0, 'seed', self.seed, '>= 0')


class Arc:
  """Pairs of training tasks under random copies; tests held out.

  A training row draws a task, one of its copies, one of its pairs and a place
  on the canvas. (Published: epochs of tasks, all pairs of the drawn copy in
  one batch as far as they fit, places drawn once when the files are built.)
  Demonstrations of evaluated tasks are all trained on. A pair of `train_paths`
  that some augmentation makes equal to a held-out test is left out: the test
  of 40853293 in ARC-1's training set is that of 070dd51e in its evaluation set.

  num_puzzles: rows of the id table: 0 is blank, then copy after copy, task
  after task by name. Copy 0 of a task is the task itself.
  """

  vocab_size = num_classes = VOCAB
  causal = False

  def __init__(self, config: ArcConfig):
    self.config = config
    self.seq_len = config.canvas**2
    self.puzzles, self._leaks = _read(config)
    self.train_pairs = [puzzle.train for puzzle in self.puzzles]
    self.test_pairs = [puzzle.test for puzzle in self.puzzles]
    self._copies = [
      distinct(
        puzzle,
        config.augmentations,
        streams.generator(
          streams.POOL, config.seed, zlib.crc32(puzzle.name.encode())
        ),
        config.canvas,
      )
      for puzzle in self.puzzles
    ]
    self._count_P = np.array([copies.count for copies in self._copies])
    self._first_P = np.cumsum([1, *self._count_P])
    self.num_puzzles = int(self._first_P[-1])
    sizes = [len(pairs) for pairs in self.train_pairs]
    self._pairs_P, self._trained = np.array(sizes), np.flatnonzero(sizes)

  def puzzle(self, puzzle_id: int) -> tuple[int, Augmentation]:
    """Which of `puzzles` an id stands for, and under which augmentation."""
    allowed = f'in 1..{self.num_puzzles - 1}'
    known = 1 <= puzzle_id < self.num_puzzles
    require(known, 'puzzle_id', puzzle_id, allowed)
    which = int(np.searchsorted(self._first_P, puzzle_id, side='right')) - 1
    copy = int(puzzle_id - self._first_P[which])
    return which, self._copies[which].augmentation(copy)

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """`size` rows drawn with replacement, a pure function of (seed, step)."""
    rng = streams.generator(streams.TRAIN, seed, step)
    which_B = self._trained[rng.integers(len(self._trained), size=size)]
    copy_B = rng.integers(self._count_P[which_B])
    pair_B = rng.integers(self._pairs_P[which_B])
    place_B2 = rng.random((size, 2))
    place_B2[copy_B % self._pairs_P[which_B] == pair_B] = 0.0
    if not self.config.translate:
      place_B2[:] = 0.0
    pairs = [
      self.train_pairs[which][pair]
      for which, pair in zip(which_B, pair_B, strict=True)
    ]
    return self._batch(pairs, self._first_P[which_B] + copy_B, place_B2)

  @functools.cached_property
  def _heldout_rows(self) -> Int[np.ndarray, 'N 3']:
    """(copy, task, test) of every held-out row, copy by copy."""
    rows = [
      (copy, which, test)
      for which, pairs in enumerate(self.test_pairs)
      for test in range(len(pairs))
      for copy in range(self._count_P[which])
    ]
    return np.array(sorted(rows))

  @property
  def num_heldout(self) -> int:
    """Rows until `heldout` starts again: each test under each copy."""
    return len(self._heldout_rows)

  def heldout(self, count: int) -> Batch:
    """Tests as they stand, then under copies 1, 2, ..., then all again."""
    return self._tests(np.arange(count) % self.num_heldout)

  def _tests(self, index_B: np.ndarray) -> Batch:
    rows_B3 = self._heldout_rows[index_B]
    pairs = [self.test_pairs[which][test] for _, which, test in rows_B3]
    ids_B = self._first_P[rows_B3[:, 1]] + rows_B3[:, 0]
    return self._batch(pairs, ids_B, np.zeros((len(index_B), 2)))

  def _batch(
    self, pairs: Sequence[Pair], ids_B: np.ndarray, place_B2: np.ndarray
  ) -> Batch:
    side = self.config.canvas
    tokens_B2T = np.empty((len(pairs), 2, self.seq_len), np.int32)
    for row, pair in enumerate(pairs):
      augmentation = self.puzzle(int(ids_B[row]))[1]
      grids = [augmentation.apply(grid) for grid in pair]
      room = side - np.max([grid.shape for grid in grids], axis=0)
      top, left = (place_B2[row] * (room + 1)).astype(int).tolist()
      tokens_B2T[row] = [encode(grid, (top, left), side) for grid in grids]
    inputs_BT, labels_BT = tokens_B2T[:, 0].copy(), tokens_B2T[:, 1]
    named = np.concatenate([inputs_BT, ids_B[:, None]], axis=1)
    return Batch(
      inputs=inputs_BT,
      labels=np.where(labels_BT == PAD, np.int32(IGNORE), labels_BT),
      ids=streams.row_ids(named),
      puzzles=ids_B.astype(np.int32),
    )

  def score(
    self, predictions_NT: Int[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Shaped[np.ndarray, ' N']]:
    """`exact`: grid and EOS are right; `cell`: share of them. No votes."""
    labels_NT = batch['labels']
    return {
      'exact': scoring.exact(predictions_NT, labels_NT),
      'cell': scoring.accuracy(predictions_NT, labels_NT),
    }

  def vote(
    self,
    predictions_NT: Int[np.ndarray, 'N T'],
    batch: Batch,
    scores_N: Float[np.ndarray, ' N'] | None = None,
    *,
    top: int = 2,
  ) -> Ranked:
    """The `top` grids per (task, number of the test), votes from all rows.

    Predictions are cropped and their augmentation undone; a row belongs to the
    test whose input its own input is. Rows come from `heldout`.

    Raises:
      ValueError: a row is not a test of its puzzle id.
    """
    return arc_vote.tally(self._ballots(predictions_NT, batch, scores_N), top)

  def voted(
    self, answer: Answer, *, size: int, rows: int | None = None
  ) -> dict[str, float]:
    """pass@1 and pass@2 by votes of the first `rows` of `heldout`.

    Args:
      answer: predictions [N, T] of a batch, with scores [N] that break ties
        (published: sigmoid of q_halt), or None.
      size: rows of a batch; the last one may have fewer.
      rows: how many vote; None for each test under each copy, as published.

    Returns:
      rows and tests, how many; pass@1 and pass@2, see `arc_vote.pass_at_k`.
    """
    total = self.num_heldout
    require(rows is None or rows >= 1, 'rows', rows, '>= 1 or None')
    total = total if rows is None else min(rows, total)

    def ballots():
      for begin in range(0, total, size):
        batch = self._tests(np.arange(begin, min(begin + size, total)))
        predictions_NT, scores_N = answer(batch)
        yield from self._ballots(predictions_NT, batch, scores_N)

    ranked = arc_vote.tally(ballots(), 2)
    return {
      'rows': total,
      'tests': sum(map(len, self.test_pairs)),
      **{f'pass@{k}': self.pass_at_k(ranked, k) for k in (1, 2)},
    }

  def _ballots(
    self,
    predictions_NT: Int[np.ndarray, 'N T'],
    batch: Batch,
    scores_N: Float[np.ndarray, ' N'] | None,
  ) -> Iterator[Ballot]:
    """One vote per row and test that its input is of."""
    for row, puzzle_id in enumerate(batch['puzzles']):
      which, augmentation = self.puzzle(int(puzzle_id))
      asked = arc_vote.key(augmentation.invert(decode(batch['inputs'][row])))
      if asked not in self._numbers[which]:
        name = self.puzzles[which].name
        raise ValueError(f'batch row {row} must be a test of task {name!r}.')
      grid = augmentation.invert(decode(predictions_NT[row]))
      for test in self._numbers[which][asked]:
        score = 0.0 if scores_N is None else float(scores_N[row])
        yield (self.puzzles[which].name, test), grid, score

  @functools.cached_property
  def _numbers(self) -> list[dict[bytes, list[int]]]:
    """By task: the tests that have an input, in most cases one."""
    tables: list[dict[bytes, list[int]]] = []
    for pairs in self.test_pairs:
      tables.append({})
      for test, pair in enumerate(pairs):
        tables[-1].setdefault(arc_vote.key(pair.input), []).append(test)
    return tables

  def pass_at_k(self, ranked: Ranked, k: int = 2) -> float:
    """`arc_vote.pass_at_k` over every held-out test, voted on or not."""
    answers = {
      (puzzle.name, test): pair.output
      for puzzle, pairs in zip(self.puzzles, self.test_pairs, strict=True)
      for test, pair in enumerate(pairs)
    }
    return arc_vote.pass_at_k(ranked, answers, k)

  def describe(self) -> str:
    evaluated = sum(map(bool, self.test_pairs))
    what = 'made-up' if self.config.path is None else 'read'
    return (
      f'arc: {len(self.puzzles):,} {what} tasks of {COLOURS} colours, '
      f'{self.num_puzzles - 1:,} copies, {self._pairs_P.sum():,} pairs trained '
      f'on.\n{sum(map(len, self.test_pairs)):,} tests of {evaluated:,} tasks '
      f'held out, {self._leaks:,} pairs of train_paths left out as equal.'
    )


def _read(config: ArcConfig) -> tuple[tuple[Puzzle, ...], int]:
  """Tasks by name, tests of `train_paths` moved to train; pairs left out."""
  side = config.canvas
  if config.path is None:
    made = arc_synthetic.make(config.synthetic, config.seed, side)
    return tuple(sorted(made, key=lambda puzzle: puzzle.name)), 0
  evaluated = arc_json.read(config.path, side=side)
  every = {puzzle.name: puzzle for puzzle in evaluated}
  held = {pair_class(pair) for puzzle in evaluated for pair in puzzle.test}
  left_out = 0
  for path in config.train_paths:
    for puzzle in arc_json.read(path, field='train_paths', side=side):
      if puzzle.name in every:
        raise ValueError(
          f'{path}: task {puzzle.name!r} must come once over path and '
          'train_paths, it is in another too.'
        )
      pairs = puzzle.train + puzzle.test
      kept = tuple(p for p in pairs if pair_class(p) not in held)
      every[puzzle.name] = Puzzle(puzzle.name, kept, ())
      left_out += len(pairs) - len(kept)
  return tuple(every[name] for name in sorted(every)), left_out
