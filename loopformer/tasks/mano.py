"""Modular expressions in prefix notation: Mano (arXiv:2510.25741, app. B.2)."""

import dataclasses
import itertools

import numpy as np
from jaxtyping import Int, Shaped

from loopformer.tasks import scoring, streams
from loopformer.tasks.task import (
  IGNORE,
  Batch,
  require,
  require_split,
)

OPERATORS = 3  # p, p + 1, p + 2 stand for +, -, *
ASKED = ('whole', 'shortest', 'longest')


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManoConfig:
  """How large expressions are, and the numbers they are over.

  Attributes:
    length: L, the most operators of a training expression.
    measured: operators of every held-out one; 0 for L, as published.
    modulus: p; numbers are 0 .. p - 1.
    start_length: the most operators in the first training steps, of which as
      many expressions as fit stand in a row; 0 for L from the first step on.
    growth: steps from each of which on there is one more, up to L.
    asked: the value of the `whole` expression, or in training also those of its
      parts, each where it ends: of several that end at one token that of the
      `shortest` or of the `longest`.
    seed: of the held-out rows.
    heldout_fraction: share of all rows that is never trained on.
  """

  length: int = 10
  measured: int = 0
  modulus: int = 23
  start_length: int = 0
  growth: tuple[int, ...] = ()
  asked: str = 'whole'
  seed: int = 0
  heldout_fraction: float = 0.2

  def __post_init__(self):
    require(self.length >= 1, 'length', self.length, '>= 1')
    inside = 0 <= self.measured <= self.length
    require(inside, 'measured', self.measured, f'in [0, {self.length}]')
    require(self.modulus >= 2, 'modulus', self.modulus, '>= 2')
    inside = 0 <= self.start_length <= self.length
    require(inside, 'start_length', self.start_length, f'in [0, {self.length}]')
    rises = all(a < b for a, b in itertools.pairwise((0, *self.growth)))
    require(rises, 'growth', self.growth, 'rising and > 0')
    require(self.asked in ASKED, 'asked', self.asked, f'one of {ASKED}')
    require_split(self.seed, self.heldout_fraction)

  def length_at(self, step: int) -> int:
    """The most operators at a training step, counted from 0."""
    begun = sum(step >= start for start in self.growth)
    return min(self.length, (self.start_length or self.length) + begun)


def expressions(
  rng: np.random.Generator, operators_B: Int[np.ndarray, ' B'], modulus: int
) -> Int[np.ndarray, 'B T']:
  """Random expressions in prefix order, -1 behind the end of shorter ones.

  Numbers 0 .. p - 1 and operators are uniform. Of the n - 1 operators below one
  with n in its tree, 0 .. n - 1 are on the left with equal probability; the
  paper leaves open how trees are drawn.
  """
  rows_B, most = np.arange(len(operators_B)), int(operators_B.max())
  shape = (len(operators_B), 2 * most + 1)
  numbers_BT = rng.integers(modulus, size=shape)
  kinds_BT = modulus + rng.integers(OPERATORS, size=shape)
  shares_BT = rng.random(shape)
  # Operators of the subtrees that are still to be written, the next one last.
  stack_BS = np.zeros((len(operators_B), most + 2), np.int64)
  stack_BS[:, 1] = operators_B
  height_B = np.ones(len(operators_B), np.int64)
  tokens_BT = np.full(shape, -1, np.int32)
  for t in range(shape[1]):
    count_B, open_B = stack_BS[rows_B, height_B], height_B > 0
    splits_B = open_B & (count_B > 0)
    token_B = np.where(splits_B, kinds_BT[:, t], numbers_BT[:, t])
    tokens_BT[:, t] = np.where(open_B, token_B, -1)
    left_B = (shares_BT[:, t] * count_B).astype(np.int64)
    right_B = np.where(splits_B, count_B - 1 - left_B, count_B)
    stack_BS[rows_B, height_B] = np.where(open_B, right_B, 0)
    height_B += np.where(splits_B, 1, np.where(open_B, -1, 0))
    stack_BS[rows_B[splits_B], height_B[splits_B]] = left_B[splits_B]
  return tokens_BT


def values(
  tokens_BT: Int[np.ndarray, 'B T'], modulus: int
) -> tuple[Int[np.ndarray, ' B'], dict[str, Int[np.ndarray, 'B T']]]:
  """Values, modulo p, of expressions as `expressions` draws them.

  Read from the right: a number goes on a stack, an operator takes the topmost
  as its left operand and the one below as its right one.

  Returns:
    The value of each expression; and at the last token of a part, IGNORE
    elsewhere, the values of the `shortest` and of the `longest` part with an
    operator that ends there.
  """
  batch, length = tokens_BT.shape
  rows_B = np.arange(batch)
  # The value of what was read, and where it ends.
  stack_BS2 = np.zeros((batch, length + 2, 2), np.int64)
  height_B = np.ones(batch, np.int64)
  shortest_BT = np.full((batch, length), IGNORE, np.int64)
  longest_BT = shortest_BT.copy()
  for t in range(length - 1, -1, -1):
    token_B = tokens_BT[:, t]
    left_B, _ = stack_BS2[rows_B, height_B].T
    right_B, end_B = stack_BS2[rows_B, height_B - 1].T
    results_KB = np.stack(
      [left_B + right_B, left_B - right_B, left_B * right_B]
    )
    applies_B, present_B = token_B >= modulus, token_B >= 0
    kind_B = np.where(applies_B, token_B - modulus, 0)
    result_B = results_KB[kind_B, rows_B] % modulus
    height_B += np.where(applies_B, -1, present_B.astype(np.int64))
    written_B2 = np.stack(
      [np.where(applies_B, result_B, token_B), np.where(applies_B, end_B, t)],
      axis=1,
    )
    stack_BS2[rows_B[present_B], height_B[present_B]] = written_B2[present_B]
    first_B = applies_B & (shortest_BT[rows_B, end_B] == IGNORE)
    shortest_BT[rows_B[first_B], end_B[first_B]] = result_B[first_B]
    longest_BT[rows_B[applies_B], end_B[applies_B]] = result_B[applies_B]
  parts = {'shortest': shortest_BT, 'longest': longest_BT}
  return stack_BS2[rows_B, height_B, 0], parts


class Mano:
  """Inputs BOS LEN_l e_1 .. e_{2l+1} ANS, the value is the label at ANS.

  Training expressions have l operators uniform in 1 .. L, held-out ones the
  number that is measured; those of fewer than L are filled up behind ANS, where
  no causal model reads. An expression is held out by its hash. Published runs
  pack many into one context; here a training row has as many as fit, each a
  document of its own, and more labels than one if parts are asked.
  """

  causal = True

  def __init__(self, config: ManoConfig):
    self.config = config
    self.bos = config.modulus + OPERATORS
    self.ans = self.bos + 1
    self.vocab_size = self.ans + config.length + 1
    # Answers are tokens, so that a head may be the embedding transposed.
    self.num_classes = self.vocab_size
    self.seq_len = 2 * config.length + 4

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """Rows of the training side, a pure function of (seed, step)."""
    rng = streams.generator(streams.TRAIN, seed, step)
    most = self.config.length_at(step)
    draw = lambda count: rng.integers(1, most + 1, size=count)
    width = 2 * most + 4
    count = self.seq_len // width
    rows = self._batch(rng, draw, size * count, heldout=False)
    return self._packed(rows, count, width)

  def _packed(self, rows: Batch, count: int, width: int) -> Batch:
    """So many expressions in a row, of so many tokens each, none reads others.

    That is what segments say, and in each positions start again.
    """

    def join(array_NT, fill):
      joined_BT = array_NT[:, :width].reshape(-1, count * width)
      spare = self.seq_len - count * width
      return np.pad(joined_BT, ((0, 0), (0, spare)), constant_values=fill)

    inputs_BT = join(rows['inputs'], self.bos)
    shape = rows['inputs'].shape
    numbers_N1 = 1 + np.arange(shape[0], dtype=np.int32)[:, None] % count
    places_T = np.arange(shape[1], dtype=np.int32)
    return Batch(
      inputs=inputs_BT,
      labels=join(rows['labels'], IGNORE),
      ids=streams.row_ids(inputs_BT),
      segments=join(np.broadcast_to(numbers_N1, shape), 0),
      positions=join(np.broadcast_to(places_T, shape), 0),
    )

  def heldout(self, count: int) -> Batch:
    """Rows of the held-out side, all of the measured length."""
    rng = streams.generator(streams.HELDOUT, self.config.seed)
    operators = self.config.measured or self.config.length
    draw = lambda count: np.full(count, operators)
    return self._batch(rng, draw, count, heldout=True)

  def _batch(self, rng, draw, size: int, *, heldout: bool) -> Batch:
    inputs_BT = streams.draw_split(
      lambda count: self._rows(rng, draw(count)),
      size,
      heldout=heldout,
      fraction=self.config.heldout_fraction,
    )
    expression_BT = inputs_BT[:, 2:]
    inside_BT = np.cumsum(expression_BT == self.ans, axis=1) == 0
    value_B, parts = values(
      np.where(inside_BT, expression_BT, -1), self.config.modulus
    )
    asked_BT = inputs_BT == self.ans
    labels_BT = np.where(asked_BT, value_B[:, None], IGNORE)
    if self.config.asked != 'whole' and not heldout:
      parts_BT = parts[self.config.asked]
      labels_BT[:, 2:] = np.where(asked_BT[:, 2:], labels_BT[:, 2:], parts_BT)
    return Batch(
      inputs=inputs_BT.astype(np.int32),
      labels=labels_BT.astype(np.int32),
      ids=streams.row_ids(inputs_BT),
    )

  def _rows(self, rng, operators_B):
    """Whole rows; behind ANS stands BOS."""
    tokens_BT = expressions(rng, operators_B, self.config.modulus)
    rows_BT = np.full((len(operators_B), self.seq_len), self.bos)
    rows_BT[:, 1] = self.ans + operators_B
    rows_BT[:, 2 : 2 + tokens_BT.shape[1]] = np.where(
      tokens_BT < 0, self.bos, tokens_BT
    )
    rows_BT[np.arange(len(rows_BT)), 2 * operators_B + 3] = self.ans
    return rows_BT

  def score(
    self, predictions_NT: Int[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Shaped[np.ndarray, ' N']]:
    """`exact`: the value is right."""
    return {'exact': scoring.exact(predictions_NT, batch['labels'])}

  def describe(self) -> str:
    config = self.config
    return (
      f'Mano: prefix expressions of 1 to {config.length} operators modulo '
      f'{config.modulus}, measured at {config.measured or config.length}, '
      f'{config.heldout_fraction:.0%} held out by hash; chance '
      f'{1 / config.modulus:.3f}.'
    )
