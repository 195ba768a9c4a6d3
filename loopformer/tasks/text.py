"""Byte-level language modelling: every token is one byte of UTF-8 text."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float32, Int

from loopformer.tasks import corpus as corpora
from loopformer.tasks import scoring, streams
from loopformer.tasks.task import Batch, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
  """Which text, cut how.

  length: T, bytes per row.
  path: a text file, or a folder of them; tfds: the name of a TFDS data set
    (with its split, feature and directory). Neither: Python's own manual.
  heldout_fraction: the last bytes of the text, never trained on.
  on_bad_row: 'refuse' or 'skip' documents that are not UTF-8.
  """

  length: int = 256
  path: str | None = None
  tfds: str | None = None
  tfds_split: str = 'train'
  tfds_feature: str = 'text'
  data_dir: str | None = None
  heldout_fraction: float = 0.1
  on_bad_row: str = 'refuse'

  def __post_init__(self):
    require(self.length >= 1, 'length', self.length, '>= 1')
    share = self.heldout_fraction
    require(0.0 < share < 1.0, 'heldout_fraction', share, 'inside (0, 1)')
    allowed = self.on_bad_row in ('refuse', 'skip')
    require(allowed, 'on_bad_row', self.on_bad_row, "'refuse' or 'skip'")
    one = self.path is None or self.tfds is None
    require(one, 'path', self.path, f'None when tfds is {self.tfds!r}')


class _Windows:
  """Random access, as grain asks for: item w is bytes [wT, (w + 1)T]."""

  def __init__(self, corpus: corpora.Corpus, length: int, count: int):
    self._corpus, self._length, self._count = corpus, length, count

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int) -> np.ndarray:
    start = int(index) * self._length
    return self._corpus.read(start, start + self._length + 1)


class Text:
  """Next-byte prediction: inputs x_1..x_T, labels x_2..x_{T+1}, no BOS.

  Training permutes the T-byte windows of the front part once per epoch; held
  out are windows spread evenly over the contiguous tail, which training never
  reads. Bits per byte are the mean cross entropy in nats divided by ln 2.
  """

  vocab_size = 256
  num_classes = 256
  causal = True

  def __init__(self, config: TextConfig):
    self.config = config
    self.seq_len = config.length
    self._corpus = _load(config)
    size = self._corpus.size
    self._cut = int(size * (1.0 - config.heldout_fraction))
    shortest = min(self._cut, size - self._cut)
    if shortest <= config.length:
      raise ValueError(
        f'the text must give more than length = {config.length} bytes to '
        f'training and to the held-out tail, got {self._cut} and '
        f'{size - self._cut}.'
      )
    count = (self._cut - 1) // config.length
    self._windows = _Windows(self._corpus, config.length, count)
    self._shuffled = functools.lru_cache(maxsize=8)(self._shuffle)

  def _shuffle(self, seed: int, size: int):
    import grain

    windows = grain.MapDataset.source(self._windows)
    return windows.shuffle(seed=seed).repeat().batch(size)

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """Rows [step * size, (step + 1) * size) of the epochs laid end to end."""
    return _as_batch(np.asarray(self._shuffled(seed, size)[step]))

  def heldout(self, count: int) -> Batch:
    """`count` windows of the tail; disjoint while count * T fits into it."""
    span = self._corpus.size - self._cut - self.seq_len
    starts = [self._cut + row * span // count for row in range(count)]
    read = self._corpus.read
    return _as_batch(
      np.stack([read(start, start + self.seq_len + 1) for start in starts])
    )

  def score(
    self, predictions_NT: Int[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Float32[np.ndarray, ' N']]:
    """`token`: share of next bytes that are right."""
    return {'token': scoring.accuracy(predictions_NT, batch['labels'])}

  def describe(self) -> str:
    size, skipped = self._corpus.size, self._corpus.skipped
    return (
      f'text: {size:,} bytes, {self._cut:,} trained on in '
      f'{len(self._windows):,} windows of {self.seq_len}, the last '
      f'{size - self._cut:,} held out; {skipped:,} documents skipped.'
    )


def _load(config: TextConfig) -> corpora.Corpus:
  if config.path is not None:
    return corpora.from_path(config.path, config.on_bad_row)
  if config.tfds is not None:
    return corpora.from_tfds(
      config.tfds,
      config.tfds_split,
      config.tfds_feature,
      config.data_dir,
      config.on_bad_row,
    )
  return corpora.from_manual()


def _as_batch(windows_BS: np.ndarray) -> Batch:
  tokens_BS = windows_BS.astype(np.int32)
  return Batch(
    inputs=tokens_BS[:, :-1],
    labels=tokens_BS[:, 1:],
    ids=streams.row_ids(tokens_BS),
  )
