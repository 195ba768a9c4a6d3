"""p-hop induction against brute force."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopformer.tasks.p_hop import PHop, PHopConfig, hop_targets
from loopformer.tasks.task import IGNORE
from tests.tasks import laws


def brute_force(tokens, hops):
  """O(p n): the target, or None where the chain falls off the left end."""
  place = len(tokens) - 1
  for _ in range(hops):
    before = [j for j in range(place) if tokens[j] == tokens[place]]
    if not before:
      return None
    place = before[-1] + 1
  return tokens[place]


SMALL = PHopConfig(length=64, hops=4)
EVERY = PHopConfig(length=64, hops=4, asked='every')


@pytest.mark.parametrize(
  ('config', 'vocab_size'),
  [(SMALL, 4), (PHopConfig(length=200, hops=32), 4), (EVERY, 8)],
)
def test_contract(config, vocab_size):
  task = PHop(config)
  laws.assert_contract(task)
  assert task.causal
  assert task.vocab_size == vocab_size


def test_by_hand():
  # From the last 1 to the 1 at place 1, on to 2; from there to the 2 at place
  # 0, on to 1: two hops end at 1. A third finds no earlier 1.
  tokens_BT = np.array([[2, 1, 2, 0, 1]])
  for hops, target in ((1, 2), (2, 1)):
    targets_BT, inside_BT = hop_targets(tokens_BT, hops)
    assert (targets_BT[0, -1], inside_BT[0, -1]) == (target, True)
  assert not hop_targets(tokens_BT, 3)[1][0, -1]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=24), st.integers(1, 9))
def test_any_sequence_agrees_with_brute_force(tokens, hops):
  targets_BT, inside_BT = hop_targets(np.array([tokens]), hops)
  for t in range(len(tokens)):
    expected = brute_force(tokens[: t + 1], hops)
    assert inside_BT[0, t] == (expected is not None)
    if inside_BT[0, t]:
      assert targets_BT[0, t] == expected


def test_rows_have_the_answer_of_brute_force_at_the_end():
  task = PHop(SMALL)
  for batch in (task.train_batch(0, 0, 50), task.heldout(50)):
    assert (batch['labels'][:, :-1] == IGNORE).all()
    expected = [brute_force(row.tolist(), 4) for row in batch['inputs']]
    assert batch['labels'][:, -1].tolist() == expected


def test_rows_asked_everywhere_name_their_hops_and_have_them_all():
  task = PHop(EVERY)
  trained, measured = task.train_batch(0, 0, 200), task.heldout(20)
  for batch in (trained, measured):
    hops_B = batch['inputs'][:, 0] - 3
    for row, labels, hops in zip(
      batch['inputs'][:, 1:].tolist(), batch['labels'], hops_B, strict=True
    ):
      found = [brute_force(row[: t + 1], hops) for t in range(len(row))]
      expected = [IGNORE if x is None else x for x in found]
      assert labels.tolist() == [IGNORE, *expected]
  assert set(trained['inputs'][:, 0] - 3) == {1, 2, 3, 4}
  assert set(measured['inputs'][:, 0] - 3) == {4}


def test_exact_is_the_last_position_alone():
  task = PHop(EVERY)
  batch = task.heldout(8)
  guess_NT = np.zeros_like(batch['labels'])
  guess_NT[:4, -1], guess_NT[4:, -1] = batch['labels'][:4, -1], -1
  scores = task.score(guess_NT, batch)
  assert scores['exact'].tolist() == [True] * 4 + [False] * 4
  assert (scores['token'] < 1).all()


def test_neighbours_differ_so_that_every_hop_moves():
  inputs_BT = PHop(SMALL).train_batch(0, 0, 100)['inputs']
  assert (inputs_BT[:, 1:] != inputs_BT[:, :-1]).all()


@pytest.mark.parametrize('symbols', [3, 4, 6])
def test_targets_are_uniform(symbols):
  config = PHopConfig(length=64, hops=4, symbols=symbols)
  labels_B = PHop(config).train_batch(0, 0, 6000)['labels'][:, -1]
  counts = np.bincount(labels_B, minlength=symbols)
  share = 1 / symbols
  deviation = (6000 * share * (1 - share)) ** 0.5
  assert (abs(counts - 6000 * share) < 5 * deviation).all()


def test_no_heldout_sequence_is_trained_on():
  task = PHop(PHopConfig(length=12, hops=1))
  rows = lambda batch: {tuple(row) for row in batch['inputs']}
  assert not rows(task.train_batch(0, 0, 9000)) & rows(task.heldout(9000))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(symbols=2), 'symbols must be >= 3, got 2.'),
    (dict(hops=0), 'hops must be >= 1, got 0.'),
    (dict(length=95), 'length must be >= 96 for these hops, got 95.'),
    (dict(heldout_fraction=-0.1), 'heldout_fraction must be inside'),
    (dict(seed=-1), 'seed must be >= 0'),
    (dict(asked='some'), "asked must be one of .'last', 'every'."),
  ],
)
def test_config_is_checked(fields, message):
  with pytest.raises(ValueError, match=message):
    PHopConfig(**fields)


def test_speed():
  task = PHop(PHopConfig(hops=32))
  task.train_batch(0, 0, 64)
  start = time.perf_counter()
  for step in range(10):
    task.train_batch(0, step, 64)
  assert time.perf_counter() - start < 10 * 0.05
