"""The word problem of a finite group as tagging (arXiv:2404.08819)."""

import dataclasses
import functools
import itertools

import numpy as np
from jaxtyping import Int, Shaped

from loopformer.tasks import scoring, streams
from loopformer.tasks.groups import cayley_table, running_products
from loopformer.tasks.task import IGNORE, Batch, require, require_split

_SMALL = 4096  # spaces of words up to this size are listed and checked


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupWordsConfig:
  """Which group, how long the words are, and the share of words held out."""

  group: str = 'a5'
  length: int = 16
  seed: int = 0
  heldout_fraction: float = 0.2

  def __post_init__(self):
    cayley_table(self.group)
    require(self.length >= 1, 'length', self.length, '>= 1')
    require_split(self.seed, self.heldout_fraction)


class GroupWords:
  """Inputs BOS g_1 .. g_k, labels IGNORE p_1 .. p_k with p_t = g_1 .. g_t.

  Elements are 0 .. order - 1 (0 the identity) and BOS = order, the last id.
  Letters are uniform and independent, so is p_t at every t. A word is held out
  by its hash, whatever k: training and held-out words never coincide, though
  a held-out word's prefixes are met in training. Rows are drawn with
  replacement, so where order^k is small both sides repeat themselves; a split
  that leaves one side of a small space (up to 4,096 words) empty is refused.
  """

  causal = True

  def __init__(self, config: GroupWordsConfig):
    self.config = config
    self.table_EE = cayley_table(config.group)
    self.order = self.bos = len(self.table_EE)
    self.vocab_size = self.num_classes = self.order + 1
    self.seq_len = config.length + 1
    if self.order**config.length <= _SMALL:
      self._check_small_split()

  def _check_small_split(self) -> None:
    letters = itertools.product(range(self.order), repeat=self.config.length)
    share = self.config.heldout_fraction
    hashes_N = streams.row_hash(np.array(list(letters)))
    held = int(streams.is_heldout(hashes_N, share).sum())
    if held in (0, len(hashes_N)):
      raise ValueError(
        f'heldout_fraction {share} splits the {len(hashes_N)} words into '
        f'{len(hashes_N) - held} and {held}; both sides need one.'
      )

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """Uniform words of the training side, a pure function of (seed, step)."""
    rng = streams.generator(streams.TRAIN, seed, step)
    return self._batch(rng, size, heldout=False)

  def heldout(self, count: int) -> Batch:
    """Uniform words of the held-out side."""
    rng = streams.generator(streams.HELDOUT, self.config.seed)
    return self._batch(rng, count, heldout=True)

  def _batch(
    self, rng: np.random.Generator, size: int, *, heldout: bool
  ) -> Batch:
    length = self.config.length
    words_BK = streams.draw_split(
      lambda count: rng.integers(self.order, size=(count, length)),
      size,
      heldout=heldout,
      fraction=self.config.heldout_fraction,
    )
    products_BK = running_products(words_BK, self.table_EE)
    pad = functools.partial(np.pad, pad_width=((0, 0), (1, 0)))
    return Batch(
      inputs=pad(words_BK, constant_values=self.bos).astype(np.int32),
      labels=pad(products_BK, constant_values=IGNORE).astype(np.int32),
      ids=streams.row_ids(words_BK),
    )

  def score(
    self, predictions_NT: Int[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Shaped[np.ndarray, ' N']]:
    """`exact`: every product; `last`: the whole word's; `token`: the share."""
    labels_NT = batch['labels']
    return {
      'exact': scoring.exact(predictions_NT, labels_NT),
      'last': predictions_NT[:, -1] == labels_NT[:, -1],
      'token': scoring.accuracy(predictions_NT, labels_NT),
    }

  def describe(self) -> str:
    config = self.config
    return (
      f'group words: {config.group} of order {self.order}, words of '
      f'{config.length} letters, {config.heldout_fraction:.0%} of all words '
      f'held out by hash; chance {1 / self.order:.4f} per product.'
    )
