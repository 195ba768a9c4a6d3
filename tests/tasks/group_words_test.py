"""Words over a group: labels, uniformity, split and scores."""

import time

import numpy as np
import pytest

from loopformer.tasks.group_words import GroupWords, GroupWordsConfig
from loopformer.tasks.groups import cayley_table
from loopformer.tasks.task import IGNORE
from tests.tasks import laws


@pytest.mark.parametrize('group', ['a5', 's3', 'z60', 'a4xz5'])
def test_contract(group):
  task = GroupWords(GroupWordsConfig(group=group))
  laws.assert_contract(task)
  assert task.causal
  assert task.vocab_size == len(cayley_table(group)) + 1


def test_labels_are_running_products_after_bos():
  task = GroupWords(GroupWordsConfig(group='s4', length=7))
  batch = task.train_batch(0, 0, 16)
  assert (batch['inputs'][:, 0] == 24).all()
  assert (batch['labels'][:, 0] == IGNORE).all()
  for word, products in zip(batch['inputs'], batch['labels'], strict=True):
    value = 0
    for letter, product in zip(word[1:], products[1:], strict=True):
      value = task.table_EE[value, letter]
      assert value == product


def test_targets_are_uniform_at_every_position():
  task = GroupWords(GroupWordsConfig(group='s3', length=12))
  labels = task.train_batch(0, 0, 6000)['labels'][:, 1:]
  for labels_B in labels.T:
    counts = np.bincount(labels_B, minlength=6)
    assert (abs(counts - 1000) < 5 * (6000 * 5 / 36) ** 0.5).all()


@pytest.mark.parametrize(('group', 'length'), [('s3', 3), ('a5', 16)])
def test_no_heldout_word_is_trained_on(group, length):
  task = GroupWords(GroupWordsConfig(group=group, length=length))
  words = lambda batch: {tuple(row) for row in batch['inputs']}
  trained, held = words(task.train_batch(0, 0, 5000)), words(task.heldout(900))
  assert not trained & held
  if group == 's3':  # both sides of 216 words are met in full
    assert len(trained | held) == 216


def test_a_small_space_must_fill_both_sides():
  with pytest.raises(ValueError, match='both sides need one'):
    GroupWords(GroupWordsConfig(group='z2', length=1, heldout_fraction=0.001))


def test_scores():
  task = GroupWords(GroupWordsConfig(group='z5', length=4))
  batch = task.train_batch(0, 0, 3)
  guess_NT = batch['labels'].copy()
  guess_NT[1, 2] += 1
  guess_NT[2, -1] += 1
  score = task.score(guess_NT, batch)
  assert score['exact'].tolist() == [True, False, False]
  assert score['last'].tolist() == [True, True, False]
  np.testing.assert_allclose(score['token'], [1.0, 0.75, 0.75])


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(group='q8'), 'group must be'),
    (dict(length=0), 'length must be >= 1, got 0.'),
    (dict(heldout_fraction=0.0), 'heldout_fraction must be inside'),
    (dict(seed=-1), 'seed must be >= 0'),
  ],
)
def test_config_is_checked(fields, message):
  with pytest.raises(ValueError, match=message):
    GroupWordsConfig(**fields)


def test_speed():
  task = GroupWords(GroupWordsConfig())
  task.train_batch(0, 0, 256)
  start = time.perf_counter()
  for step in range(10):
    task.train_batch(0, step, 256)
  assert time.perf_counter() - start < 10 * 0.03
