"""p-hop induction (arXiv:2502.17416, arXiv:2402.09268)."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int, Shaped

from loopformer.tasks import scoring, streams
from loopformer.tasks.task import IGNORE, Batch, require, require_split


@dataclasses.dataclass(frozen=True, kw_only=True)
class PHopConfig:
  """Length n of a sequence, number p of hops, size of the alphabet."""

  length: int = 256
  hops: int = 16
  symbols: int = 4
  seed: int = 0
  heldout_fraction: float = 0.2

  def __post_init__(self):
    require(self.symbols >= 3, 'symbols', self.symbols, '>= 3')
    require(self.hops >= 1, 'hops', self.hops, '>= 1')
    # A hop moves symbols - 1 places on average: leave room for twice that.
    room = 2 * self.hops * (self.symbols - 1)
    fits = self.length >= max(room, 8)
    require(fits, 'length', self.length, f'>= {max(room, 8)} for these hops')
    require_split(self.seed, self.heldout_fraction)


def hop_targets(
  tokens_BT: Int[np.ndarray, 'B T'], hops: int
) -> tuple[Int[np.ndarray, ' B'], Bool[np.ndarray, ' B']]:
  """The symbol reached from the last position by `hops` hops, all rows at once.

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
  rows_B, place_B = np.arange(batch), np.full(batch, length - 1)
  inside_B = np.ones(batch, bool)
  for _ in range(hops):
    previous_B = before_BT[rows_B, place_B]
    inside_B &= previous_B >= 0
    place_B = np.maximum(previous_B, 0) + 1
  return tokens_BT[rows_B, place_B], inside_B


class PHop:
  """Inputs x_1 .. x_n, one label at the last position: where p hops lead.

  Neighbours always differ. Otherwise x_{i-1} = x_i would make a hop stand still
  and, at 4 symbols, a quarter of all hops would end the chain there; so every
  one of the p hops moves left. Sequences are uniform under that condition and
  under the one that the chain stays inside; by symmetry so is the target.
  A sequence is held out by its hash.
  """

  causal = True

  def __init__(self, config: PHopConfig):
    self.config = config
    self.vocab_size = self.num_classes = config.symbols
    self.seq_len = config.length

  def _draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
    """Sequences whose chain stays inside, as many of `count` as have one."""
    shape = (count, self.config.length)
    steps_BT = rng.integers(1, self.config.symbols, size=shape, dtype=np.int32)
    steps_BT[:, 0] = rng.integers(self.config.symbols, size=count)
    tokens_BT = steps_BT.cumsum(axis=1, dtype=np.int32) % self.config.symbols
    return tokens_BT[hop_targets(tokens_BT, self.config.hops)[1]]

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """Rows of the training side, a pure function of (seed, step)."""
    rng = streams.generator(streams.TRAIN, seed, step)
    return self._batch(rng, size, heldout=False)

  def heldout(self, count: int) -> Batch:
    """Rows of the held-out side."""
    rng = streams.generator(streams.HELDOUT, self.config.seed)
    return self._batch(rng, count, heldout=True)

  def _batch(
    self, rng: np.random.Generator, size: int, *, heldout: bool
  ) -> Batch:
    tokens_BT = streams.draw_split(
      lambda count: self._draw(rng, count),
      size,
      heldout=heldout,
      fraction=self.config.heldout_fraction,
    )
    labels_BT = np.full(tokens_BT.shape, IGNORE, np.int32)
    labels_BT[:, -1] = hop_targets(tokens_BT, self.config.hops)[0]
    return Batch(
      inputs=tokens_BT.astype(np.int32),
      labels=labels_BT,
      ids=streams.row_ids(tokens_BT),
    )

  def score(
    self, predictions_NT: Int[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Shaped[np.ndarray, ' N']]:
    """`exact`: the last position names the target."""
    return {'exact': scoring.exact(predictions_NT, batch['labels'])}

  def describe(self) -> str:
    config = self.config
    return (
      f'p-hop: {config.hops} hops in sequences of {config.length} over '
      f'{config.symbols} symbols, {config.heldout_fraction:.0%} held out by '
      f'hash; chance {1 / config.symbols:.2f}.'
    )
