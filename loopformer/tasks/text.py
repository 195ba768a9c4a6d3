"""Language modelling: the next byte, or the next token of a tokenizer file."""

import dataclasses
import functools
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Int64

from loopformer.tasks import corpus as corpora
from loopformer.tasks import documents, scoring, streams, tokenizer
from loopformer.tasks.packing import PackedRows
from loopformer.tasks.task import (
  IGNORE,
  Batch,
  require,
  require_policy,
  require_share,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
  """Which text, in which tokens, cut how.

  length: T, tokens per row.
  path: a text file, or a folder of them; tfds: the name of a TFDS data set
    (with its split, feature and directory). Neither: Python's own manual.
  heldout_fraction: the last part of the text, never trained on.
  on_bad_row: 'refuse' or 'skip' documents that are not UTF-8.
  tokenizer: 'bytes', or a Hugging Face tokenizer.json or the folder it is in.
  end_of_document: the token of that file which ends a document; None finds it.
  vocab_size: classes of the model if it has more than the tokenizer has
    tokens, such as a multiple of 128; None for as many.
  pack: rows of whole documents that do not read each other, see
    `loopformer.tasks.packing`; else the text is cut every `length` tokens.
  documents: 'whole' (a file, a TFDS row, a topic), or what lies between a
    'blank_line' or a 'form_feed'.
  """

  length: int = 256
  path: str | None = None
  tfds: str | None = None
  tfds_split: str = 'train'
  tfds_feature: str = 'text'
  data_dir: str | None = None
  heldout_fraction: float = 0.1
  on_bad_row: str = 'refuse'
  tokenizer: str = 'bytes'
  end_of_document: str | None = None
  vocab_size: int | None = None
  pack: bool = False
  documents: str = 'whole'

  def __post_init__(self):
    require(self.length >= 1, 'length', self.length, '>= 1')
    require_share(self.heldout_fraction)
    require_policy(self.on_bad_row)
    one = self.path is None or self.tfds is None
    require(one, 'path', self.path, f'None when tfds is {self.tfds!r}')
    kinds = tuple(documents.SEPARATORS)
    known = self.documents in kinds
    require(known, 'documents', self.documents, f'one of {kinds}')
    used = self.pack or self.documents == 'whole'
    require(used, 'documents', self.documents, "'whole' unless pack is true")


@runtime_checkable
class _Source(Protocol):
  """Rows of both parts of a text, each in the form `_as_batch` reads."""

  def __len__(self) -> int:
    """How many rows are trained on."""

  def __getitem__(self, index: int) -> np.ndarray:
    """Random access to them, as grain asks for."""

  def heldout(self, count: int) -> np.ndarray:
    """Rows that are not trained on, one per line."""

  def describe(self) -> str:
    """What there is, in one line."""


class Text:
  """Next-token prediction: inputs x_1..x_T, labels x_2..x_{T+1}, no BOS.

  Training permutes the T-token windows of the front part once per epoch; held
  out are windows spread evenly over the contiguous tail, which training never
  reads. Bits per byte are the sum of the cross entropies in nats divided by
  ln 2 and by the bytes the labels stand for.

  Packed rows are permuted in the same way, and whole documents are held out,
  the last ones. Batches then have segments and positions.
  """

  causal = True

  def __init__(self, config: TextConfig):
    self.config = config
    self.seq_len = config.length
    self.tokenizer = tokenizer.load(config.tokenizer, config.end_of_document)
    size = config.vocab_size
    self.vocab_size = self.tokenizer.vocab_size if size is None else size
    self.num_classes = self.vocab_size
    tokenizer.check_vocab(self.tokenizer, self.vocab_size, 'vocab_size')
    mark = self.tokenizer.end_of_document
    if config.pack and mark is None:
      raise ValueError(
        'end_of_document must name a token of the tokenizer when pack is true, '
        'got None and found no usual one.'
      )
    found = documents.find(_load(config), config.documents)
    found = documents.encode(found, self.tokenizer)
    self._corpus = found.corpus
    self._source: _Source = (
      _Windows(found.corpus, config)
      if mark is None or not config.pack
      else _Packed(found, config, mark)
    )
    self._shuffled = functools.lru_cache(maxsize=8)(self._shuffle)

  def _shuffle(self, seed: int, size: int):
    import grain

    rows = grain.MapDataset.source(self._source)
    return rows.shuffle(seed=seed).repeat().batch(size)

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """Rows [step * size, (step + 1) * size) of the epochs laid end to end."""
    return _as_batch(np.asarray(self._shuffled(seed, size)[step]))

  def heldout(self, count: int) -> Batch:
    """`count` windows of the tail; disjoint while count * T fits into it.

    Packed rows come again where there are fewer than `count`.
    """
    return _as_batch(self._source.heldout(count))

  def score(
    self, predictions_NT: Int[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Float32[np.ndarray, ' N']]:
    """`token`: share of next tokens that are right."""
    return {'token': scoring.accuracy(predictions_NT, batch['labels'])}

  def byte_counts(self, batch: Batch) -> Int64[np.ndarray, ' N']:
    """Bytes of text that the scored labels of each row stand for."""
    labels_NT = batch['labels']
    scored_NT = labels_NT != IGNORE
    counts_NT = self.tokenizer.byte_counts(np.where(scored_NT, labels_NT, 0))
    return np.where(scored_NT, counts_NT, 0).sum(1).astype(np.int64)

  def describe(self) -> str:
    kind = 'bytes' if self.config.tokenizer == 'bytes' else 'tokens'
    return (
      f'text: {self._corpus.size:,} {kind}, {self._source.describe()}; '
      f'{self._corpus.skipped:,} documents skipped.'
    )


class _Windows:
  """Item w is tokens [wT, (w + 1)T], the front part of the text."""

  def __init__(self, corpus: corpora.Corpus, config: TextConfig):
    self._corpus, self._length = corpus, config.length
    self._cut = int(corpus.size * (1.0 - config.heldout_fraction))
    shortest = min(self._cut, corpus.size - self._cut)
    if shortest <= config.length:
      kind = 'bytes' if config.tokenizer == 'bytes' else 'tokens'
      raise ValueError(
        f'the text must give more than length = {config.length} {kind} to '
        f'training and to the held-out tail, got {self._cut} and '
        f'{corpus.size - self._cut}.'
      )

  def __len__(self) -> int:
    return (self._cut - 1) // self._length

  def __getitem__(self, index: int) -> np.ndarray:
    return self._window(int(index) * self._length)

  def _window(self, start: int) -> np.ndarray:
    return self._corpus.read(start, start + self._length + 1)

  def heldout(self, count: int) -> np.ndarray:
    span = self._corpus.size - self._cut - self._length
    starts = [self._cut + row * span // count for row in range(count)]
    return np.stack([self._window(start) for start in starts])

  def describe(self) -> str:
    return (
      f'{self._cut:,} trained on in {len(self):,} windows of {self._length}, '
      f'the last {self._corpus.size - self._cut:,} held out'
    )


class _Packed:
  """Item r is a packed row; the last documents are held out."""

  def __init__(self, found: documents.Documents, config: TextConfig, mark: int):
    count = len(found.starts_N)
    if count < 2:
      raise ValueError(
        f'documents must give at least 2 documents to pack, got {count} with '
        f'documents = {config.documents!r}.'
      )
    total_N = np.cumsum(found.lengths)
    wanted = (1.0 - config.heldout_fraction) * int(total_N[-1])
    first = int(
      np.clip(np.searchsorted(total_N, wanted, 'right'), 1, count - 1)
    )
    self._documents = first, count - first
    front, tail = found.split(first)
    self._train = PackedRows(front, config.length, mark)
    self._held = PackedRows(tail, config.length, mark)

  def __len__(self) -> int:
    return len(self._train)

  def __getitem__(self, index: int) -> np.ndarray:
    return self._train[index]

  def heldout(self, count: int) -> np.ndarray:
    rows = len(self._held)
    return np.stack([self._held[row * rows // count] for row in range(count)])

  def describe(self) -> str:
    train, held = self._documents
    return (
      f'{train:,} documents trained on in {len(self):,} packed rows, '
      f'the last {held:,} held out in {len(self._held):,}'
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


def _as_batch(rows: np.ndarray) -> Batch:
  """Rows of T + 1 tokens, or of inputs, labels, segments and positions."""
  rows = rows.astype(np.int32)
  if rows.ndim == 2:
    ids_B = streams.row_ids(rows)
    return Batch(inputs=rows[:, :-1], labels=rows[:, 1:], ids=ids_B)
  inputs_BT, labels_BT, segments_BT, positions_BT = rows.swapaxes(0, 1)
  return Batch(
    inputs=inputs_BT,
    labels=labels_BT,
    ids=streams.row_ids(rows[:, 0]),
    segments=segments_BT,
    positions=positions_BT,
  )
