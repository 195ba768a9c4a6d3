"""Prompts of several lengths in one batch."""

import numpy as np
import pytest

from loopformer.decode.prompts import bucket_of, prompts_of, span_of


def test_padding_lies_in_front():
  prompts = prompts_of([[3, 4, 5], [6]], vocab_size=9)
  assert prompts.tokens_BT.shape == (2, 16)
  assert prompts.tokens_BT[0, -3:].tolist() == [3, 4, 5]
  assert prompts.real_BT.sum(-1).tolist() == [3, 1]
  assert prompts.real_BT[:, -1].all()


def test_either_side_of_padding_gives_the_same_batch():
  left = np.array([[0, 0, 3, 4], [5, 6, 7, 8]])
  right = np.array([[3, 4, 0, 0], [5, 6, 7, 8]])
  real = np.array([[0, 0, 1, 1], [1, 1, 1, 1]])
  found = [
    prompts_of(tokens, mask, vocab_size=9)
    for tokens, mask in (
      (left, real),
      (right, np.array([[1, 1, 0, 0], [1] * 4])),
    )
  ]
  for ours, theirs in zip(*found, strict=True):
    np.testing.assert_array_equal(ours, theirs)


def test_a_prefix_begins_with_the_prompt():
  prompts = prompts_of([[3, 4, 5], [6]], vocab_size=9, prefix=[2, 0])
  assert prompts.prefix_BT[0, -3:].tolist() == [True, True, False]
  assert prompts.prefix_BT.sum() == 2


@pytest.mark.parametrize(
  ('prefix', 'message'),
  [
    ([2], 'prefix must have one number for each of 2 prompts, got 1.'),
    ([4, 0], 'prefix of prompt 0 must be in [0, 3], its tokens, got 4.'),
  ],
)
def test_wrong_prefixes_are_named(prefix, message):
  with pytest.raises(ValueError) as error:
    prompts_of([[3, 4, 5], [6]], vocab_size=9, prefix=prefix)
  assert str(error.value) == message


def test_buckets_are_powers_of_two_and_spans_two_an_octave():
  assert [bucket_of(n) for n in (1, 16, 17, 64, 65)] == [16, 16, 32, 64, 128]
  assert [span_of(n) for n in (1, 33, 65, 97, 129)] == [32, 64, 96, 128, 192]
  spans = {span_of(n) for n in range(257, 513)}
  assert len(spans) == 2
  assert all(span_of(n) >= n for n in range(1, 600))


@pytest.mark.parametrize(
  ('prompts', 'message'),
  [
    ([], 'prompts must hold at least one prompt, got none.'),
    ([[1], []], 'prompt 1 must hold at least one token, got none.'),
    ([[1, 9]], 'prompt 0 must hold tokens in [0, 9), got 9.'),
    ([[-1]], 'prompt 0 must hold tokens in [0, 9), got -1.'),
    ([[0.5]], 'prompt 0 must hold token ids, got float64.'),
  ],
)
def test_wrong_prompts_are_named(prompts, message):
  with pytest.raises(ValueError) as error:
    prompts_of(prompts, vocab_size=9)
  assert str(error.value) == message
