"""p-hop induction (arXiv:2502.17416, arXiv:2402.09268)."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int, Shaped

from loopformer.tasks import scoring, streams
from loopformer.tasks.task import IGNORE, Batch, require, require_split

ASKED = ('last', 'every')


@dataclasses.dataclass(frozen=True, kw_only=True)
class PHopConfig:
  """What is hopped over, how often, and where it is asked.

  Attributes:
    length: n, symbols of a sequence.
    hops: p, the number of hops measured.
    symbols: size of the alphabet.
    asked: the target of p hops at the `last` position (arXiv:2502.17416), or at
      `every` one, and in training that of a number of hops uniform in 1 .. p,
      which a token in front names (arXiv:2402.09268).
    seed: of the held-out rows.
    heldout_fraction: share of all sequences that is never trained on.
  """

  length: int = 256
  hops: int = 16
  symbols: int = 4
  asked: str = 'last'
  seed: int = 0
  heldout_fraction: float = 0.2

  def __post_init__(self):
    require(self.symbols >= 3, 'symbols', self.symbols, '>= 3')
    require(self.hops >= 1, 'hops', self.hops, '>= 1')
    require(self.asked in ASKED, 'asked', self.asked, f'one of {ASKED}')
    # A hop moves symbols - 1 places on average: leave room for twice that.
    room = 2 * self.hops * (self.symbols - 1)
    fits = self.length >= max(room, 8)
    require(fits, 'length', self.length, f'>= {max(room, 8)} for these hops')
    require_split(self.seed, self.heldout_fraction)


def hop_targets(
  tokens_BT: Int[np.ndarray, 'B T'], hops: int
) -> tuple[Int[np.ndarray, 'B T'], Bool[np.ndarray, 'B T']]:
  """The symbols reached from every position by `hops` hops, all rows at once.

  A hop goes from position i to j + 1, where j < i is the last position before
  i with the symbol of i. The second result is False where some j is missing
  (the chain falls off the left end); the symbol there means nothing.
  """
  batch, length = tokens_BT.shape
  before_BT = np.full((batch, length), -1, np.int32)
  places_T = np.arange(length, dtype=np.int32)
  for symbol in np.unique(tokens_BT):
    here_BT = tokens_BT == symbol
    latest_BT = np.maximum.accumulate(
      np.where(here_BT, places_T, np.int32(-1)), axis=1
    )
    before_BT[:, 1:] = np.where(
      here_BT[:, 1:], latest_BT[:, :-1], before_BT[:, 1:]
    )
  place_BT = np.broadcast_to(places_T, tokens_BT.shape)
  inside_BT = np.ones(tokens_BT.shape, bool)
  for _ in range(hops):
    previous_BT = np.take_along_axis(before_BT, place_BT, 1)
    inside_BT &= previous_BT >= 0
    place_BT = np.maximum(previous_BT, 0) + 1
  return np.take_along_axis(tokens_BT, place_BT, 1), inside_BT


class PHop:
  """Inputs (HOPS_k) x_1 .. x_n, labels where k hops lead from a position.

  HOPS_k, the token symbols - 1 + k, is there only if every position is asked.

  Neighbours always differ. Otherwise x_{i-1} = x_i would make a hop stand still
  and, at 4 symbols, a quarter of all hops would end the chain there; so every
  hop moves left. Sequences are uniform under that condition and under the one
  that p hops from the last position stay inside; by symmetry so is the target.
  A sequence is held out by its hash. Nothing is asked where the chain falls off
  (arXiv:2402.09268 has a symbol of its own for that).
  """

  causal = True

  def __init__(self, config: PHopConfig):
    self.config = config
    self.everywhere = config.asked == 'every'
    self.num_classes = config.symbols
    self.vocab_size = config.symbols + config.hops * self.everywhere
    self.seq_len = config.length + self.everywhere

  def _draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
    """Sequences whose chain stays inside, as many of `count` as have one."""
    shape = (count, self.config.length)
    steps_BT = rng.integers(1, self.config.symbols, size=shape, dtype=np.int32)
    steps_BT[:, 0] = rng.integers(self.config.symbols, size=count)
    tokens_BT = steps_BT.cumsum(axis=1, dtype=np.int32) % self.config.symbols
    return tokens_BT[hop_targets(tokens_BT, self.config.hops)[1][:, -1]]

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """Rows of the training side, a pure function of (seed, step)."""
    rng = streams.generator(streams.TRAIN, seed, step)
    tokens_BT = self._split(rng, size, heldout=False)
    if not self.everywhere:
      return self._batch(tokens_BT, np.full(size, self.config.hops))
    return self._batch(tokens_BT, rng.integers(1, self.config.hops + 1, size))

  def heldout(self, count: int) -> Batch:
    """Rows of the held-out side, all of p hops."""
    rng = streams.generator(streams.HELDOUT, self.config.seed)
    tokens_BT = self._split(rng, count, heldout=True)
    return self._batch(tokens_BT, np.full(count, self.config.hops))

  def _split(self, rng, size: int, *, heldout: bool) -> np.ndarray:
    return streams.draw_split(
      lambda count: self._draw(rng, count),
      size,
      heldout=heldout,
      fraction=self.config.heldout_fraction,
    )

  def _batch(self, tokens_BT: np.ndarray, hops_B: np.ndarray) -> Batch:
    """The rows with their labels, each of its own number of hops."""
    labels_BT = np.full(tokens_BT.shape, IGNORE, np.int32)
    for hops in np.unique(hops_B):
      rows_N = np.flatnonzero(hops_B == hops)
      targets_NT, inside_NT = hop_targets(tokens_BT[rows_N], int(hops))
      labels_BT[rows_N] = np.where(inside_NT, targets_NT, IGNORE)
    inputs_BT, ids_B = tokens_BT, streams.row_ids(tokens_BT)
    if self.everywhere:
      named_B1 = (self.config.symbols - 1 + hops_B)[:, None]
      inputs_BT = np.concatenate([named_B1, tokens_BT], axis=1)
      labels_BT = np.pad(labels_BT, ((0, 0), (1, 0)), constant_values=IGNORE)
    else:
      labels_BT[:, :-1] = IGNORE
    return Batch(inputs=inputs_BT.astype(np.int32), labels=labels_BT, ids=ids_B)

  def score(
    self, predictions_NT: Int[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Shaped[np.ndarray, ' N']]:
    """`exact`: the last position names its target; `token`: the share."""
    labels_NT = batch['labels']
    return {
      'exact': predictions_NT[:, -1] == labels_NT[:, -1],
      'token': scoring.accuracy(predictions_NT, labels_NT),
    }

  def describe(self) -> str:
    config = self.config
    where = 'every position' if self.everywhere else 'the last position'
    return (
      f'p-hop: {config.hops} hops in sequences of {config.length} over '
      f'{config.symbols} symbols, asked at {where}, '
      f'{config.heldout_fraction:.0%} held out by hash; chance '
      f'{1 / config.symbols:.2f}.'
    )
