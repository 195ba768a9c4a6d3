"""What a task is: batches as pure functions, a held-out part, and a score."""

from collections.abc import Callable
from typing import (
  Any,
  NamedTuple,
  NotRequired,
  Protocol,
  TypedDict,
  runtime_checkable,
)

import numpy as np
from jaxtyping import Float32, Int, Int32, Shaped, UInt32

IGNORE = -100  # the label of a position that is not scored


class Batch(TypedDict):
  """Rows of one task.

  inputs: int32 [B, T] token ids, or float32 [B, T, I] for a `Real` task.
  labels: int32 [B, T], or float32, `IGNORE` where nothing is asked.
  ids: uint32 [B], the same whenever the same row comes again.
  puzzles: int32 [B], which row of a table of puzzles tells the model the rule;
  absent where there is one rule, which stands for 0 in every row.
  segments: int32 [B, T], number of the document of a row a token is of, 0 for
  padding, and positions: int32 [B, T], counted within the segment; absent where
  a row is one text. A token may read earlier ones of its segment only.
  """

  inputs: Int[np.ndarray, 'B T'] | Float32[np.ndarray, 'B T I']
  labels: Int[np.ndarray, 'B T'] | Float32[np.ndarray, 'B T']
  ids: UInt32[np.ndarray, ' B']
  puzzles: NotRequired[Int32[np.ndarray, ' B']]
  segments: NotRequired[Int32[np.ndarray, 'B T']]
  positions: NotRequired[Int32[np.ndarray, 'B T']]


# Predictions [N, T] of a batch, with scores [N] that break ties, or None.
Answer = Callable[[Batch], tuple[np.ndarray, np.ndarray | None]]


@runtime_checkable
class Task(Protocol):
  """A source of rows. Every method is a pure function of its arguments.

  vocab_size: token ids of the inputs are below it.
  num_classes: labels that count are below it, or numbers that are predicted.
  seq_len: T of every batch.
  causal: position t must be predicted from inputs <= t only.
  """

  vocab_size: int
  num_classes: int
  seq_len: int
  causal: bool

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """Returns the `size` training rows of optimiser step `step`."""

  def heldout(self, count: int) -> Batch:
    """Returns `count` rows that training never draws."""

  def score(
    self, predictions_NT: Shaped[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Shaped[np.ndarray, ' N']]:
    """Returns figures per row, such as `exact` (bool) and `token` (float32)."""

  def describe(self) -> str:
    """Returns one or two lines of facts: class counts, sizes, split."""


@runtime_checkable
class Rated(Protocol):
  """A task that knows how hard its rows are."""

  def difficulty(self, batch: Batch) -> dict[str, Shaped[np.ndarray, ' N']]:
    """Returns measures per row, greater where a row is harder."""


@runtime_checkable
class Worded(Protocol):
  """A task whose labels are text, so that its loss has bits per byte."""

  def byte_counts(self, batch: Batch) -> Int[np.ndarray, ' N']:
    """Returns the bytes that the scored labels of each row stand for."""


@runtime_checkable
class Real(Protocol):
  """A task of real numbers, scored by squared errors: it has no tokens.

  features: numbers of the input at every position.
  """

  features: int


@runtime_checkable
class Written(Protocol):
  """A causal task whose answer the model writes itself, token by token.

  prompt: tokens of a row that are given; at evaluation those behind them are
    the model's own.
  """

  prompt: int


class TaskEntry(NamedTuple):
  """A task by name: its config class, and what builds it from a config."""

  config: type
  build: Callable[[Any], Task]


def require(ok: bool, field: str, value: object, allowed: str) -> None:
  """Raises ValueError 'field must be allowed, got value.' unless `ok`."""
  if not ok:
    raise ValueError(f'{field} must be {allowed}, got {value!r}.')


def require_share(fraction: float) -> None:
  """Raises ValueError unless `heldout_fraction` splits rows in two parts."""
  inside = 0.0 < fraction < 1.0
  require(inside, 'heldout_fraction', fraction, 'inside (0, 1)')


def require_split(seed: int, fraction: float) -> None:
  """Raises ValueError unless a seed and a share describe a split of rows."""
  require(seed >= 0, 'seed', seed, '>= 0')
  require_share(fraction)


def require_policy(on_bad_row: str) -> None:
  """Raises ValueError unless bad rows are to be refused or skipped."""
  known = on_bad_row in ('refuse', 'skip')
  require(known, 'on_bad_row', on_bad_row, "'refuse' or 'skip'")
