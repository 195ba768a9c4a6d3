"""Prompts of several lengths as one batch, padded in front."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

SMALLEST = 16


class Prompts(NamedTuple):
  """A batch of prompts; the last column holds the last token of each.

  Attributes:
    tokens_BT: token ids, 0 for padding.
    real_BT: false for padding, which lies in front.
    prefix_BT: tokens that read each other in both directions.
  """

  tokens_BT: Int[np.ndarray, 'B T']
  real_BT: Bool[np.ndarray, 'B T']
  prefix_BT: Bool[np.ndarray, 'B T']


def bucket_of(length: int) -> int:
  """The power of two, at least 16, that a length is padded up to."""
  return max(SMALLEST, 1 << (length - 1).bit_length())


def span_of(length: int) -> int:
  """Keys of a cache to read for so many tokens: two sizes per octave.

  Each costs a compiled program; a text of 300 tokens meets seven.
  """
  step = max(2 * SMALLEST, bucket_of(length) // 4)
  return -(-length // step) * step


def prompts_of(
  prompts: Any,
  real_BT: Any = None,
  *,
  vocab_size: int,
  prefix: Any = None,
) -> Prompts:
  """Prompts of token ids, or an array padded on either side.

  Args:
    prompts: one list of ids per row, or a padded array.
    real_BT: of a padded array, where its tokens are.
    vocab_size: ids must lie below it.
    prefix: tokens of each prompt to read from the front in both directions, as
      HRM-Text's instructions are; none for None.

  Raises:
    ValueError: naming the prompt that is empty, holds an unknown token or has a
      prefix that does not fit.
  """
  if real_BT is not None:
    rows = [
      np.asarray(row)[np.asarray(real, bool)]
      for row, real in zip(prompts, real_BT, strict=True)
    ]
  else:
    rows = [np.asarray(row) for row in prompts]
  if not rows:
    raise ValueError('prompts must hold at least one prompt, got none.')
  for index, row in enumerate(rows):
    _check(index, row, vocab_size)
  prefix = [0] * len(rows) if prefix is None else list(prefix)
  _check_prefix(prefix, rows)
  length = bucket_of(max(len(row) for row in rows))
  tokens_BT = np.zeros((len(rows), length), np.int32)
  begin_B1 = np.array([[length - len(row)] for row in rows])
  place_T = np.arange(length)
  for row_T, row in zip(tokens_BT, rows, strict=True):
    row_T[length - len(row) :] = row
  real = place_T >= begin_B1
  inside = place_T < begin_B1 + np.array(prefix)[:, None]
  return Prompts(tokens_BT, real, real & inside)


def _check_prefix(prefix, rows):
  if len(prefix) != len(rows):
    raise ValueError(
      f'prefix must have one number for each of {len(rows)} prompts, got '
      f'{len(prefix)}.'
    )
  for index, (count, row) in enumerate(zip(prefix, rows, strict=True)):
    if not 0 <= count <= len(row):
      raise ValueError(
        f'prefix of prompt {index} must be in [0, {len(row)}], its tokens, got '
        f'{count}.'
      )


def _check(index, row, vocab_size):
  if row.ndim != 1 or not len(row):
    raise ValueError(f'prompt {index} must hold at least one token, got none.')
  if not np.issubdtype(row.dtype, np.integer):
    raise ValueError(f'prompt {index} must hold token ids, got {row.dtype}.')
  if row.min() < 0 or row.max() >= vocab_size:
    wrong = row[(row < 0) | (row >= vocab_size)][0]
    raise ValueError(
      f'prompt {index} must hold tokens in [0, {vocab_size}), got {wrong}.'
    )
