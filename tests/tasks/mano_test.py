"""Modular expressions against recursion and values by hand."""

import time

import numpy as np
import pytest

from loopformer.tasks.mano import Mano, ManoConfig, expressions, values
from loopformer.tasks.task import IGNORE
from tests.tasks import laws

PLUS, MINUS, TIMES = 23, 24, 25


def evaluate(tokens, modulus):
  """Value of the first expression of a list, and what stands behind it."""
  head, *rest = tokens
  if head < modulus:
    return head, rest
  left, rest = evaluate(rest, modulus)
  right, rest = evaluate(rest, modulus)
  made = (left + right, left - right, left * right)[head - modulus]
  return made % modulus, rest


@pytest.mark.parametrize(
  'config',
  [ManoConfig(length=4), ManoConfig(length=5, measured=2, modulus=7)],
)
def test_contract(config):
  task = Mano(config)
  laws.assert_contract(task)
  assert task.causal


def test_by_hand():
  # 9 * 5 + 3 - 8 = 40, twice over: (9 * 5) + (3 - 8), (9 * 5 + 3) - 8.
  tokens_BT = np.array(
    [
      [PLUS, TIMES, 9, 5, MINUS, 3, 8],
      [MINUS, PLUS, TIMES, 9, 5, 3, 8],
      [MINUS, 3, 8, -1, -1, -1, -1],
      [22, -1, -1, -1, -1, -1, -1],
    ]
  )
  assert values(tokens_BT, 23)[0].tolist() == [40 - 23, 40 - 23, 18, 22]


def test_parts_by_hand():
  """+ * 9 5 - 3 8: 45 ends at the 5; at the 8 first -5, then the sum."""
  tokens_BT = np.array([[PLUS, TIMES, 9, 5, MINUS, 3, 8], [7] + 6 * [-1]])
  _, parts = values(tokens_BT, 23)
  for name, last in (('shortest', -5 % 23), ('longest', 40 % 23)):
    assert parts[name][0, [3, 6]].tolist() == [45 % 23, last]
    assert (np.delete(parts[name][0], [3, 6]) == IGNORE).all()
    assert (parts[name][1] == IGNORE).all()


@pytest.mark.parametrize(('asked', 'which'), [('shortest', 0), ('longest', -1)])
def test_parts_are_asked_in_training_alone(asked, which):
  """Each label is the value of one of the expressions that end there."""
  task = Mano(ManoConfig(length=6, asked=asked))
  batch = task.train_batch(0, 0, 100)
  plain = Mano(ManoConfig(length=6)).train_batch(0, 0, 100)
  np.testing.assert_array_equal(batch['inputs'], plain['inputs'])
  for inputs_T, labels_T in zip(batch['inputs'], batch['labels'], strict=True):
    end = int(np.argmax(inputs_T == task.ans))
    for t in range(3, end):
      ending = [
        evaluate(inputs_T[start : t + 1].tolist(), 23)[0]
        for start in range(t - 2, 1, -2)
        if is_whole(inputs_T[start : t + 1])
      ]
      assert labels_T[t] == (ending[which] if ending else IGNORE)
    assert labels_T[end] == evaluate(inputs_T[2:end].tolist(), 23)[0]
  labels_NT = task.heldout(20)['labels']
  assert ((labels_NT != IGNORE).sum(1) == 1).all()


def is_whole(tokens_T):
  """Whether tokens are one expression: each operator opens one place more."""
  open_places = 1
  for token in tokens_T:
    if open_places == 0:
      return False
    open_places += 1 if token >= 23 else -1
  return open_places == 0


def test_random_expressions_are_whole_and_agree_with_recursion():
  rng = np.random.default_rng(0)
  operators_B = rng.integers(1, 9, size=300)
  tokens_BT = expressions(rng, operators_B, 23)
  found_B, _ = values(tokens_BT, 23)
  for tokens_T, count, found in zip(
    tokens_BT, operators_B, found_B, strict=True
  ):
    tokens = [token for token in tokens_T.tolist() if token >= 0]
    assert sum(token >= 23 for token in tokens) == count
    assert evaluate(tokens, 23) == (found, [])


def test_trees_split_uniformly():
  """Of three operators 0, 1 or 2 are left of the root, a third each.

  With both on the left (or both on the right) the inner two form one of two
  trees, with one on each side one: five trees, of 1/6, 1/6, 1/3, 1/6, 1/6.
  """
  tokens_BT = expressions(np.random.default_rng(1), np.full(6000, 3), 23)
  shapes = [''.join('o.'[t < 23] for t in row) for row in tokens_BT.tolist()]
  expected = {
    'ooo....': 1000, 'oo.o...': 1000, 'oo..o..': 2000, 'o.oo...': 1000,
    'o.o.o..': 1000,
  }  # fmt: skip
  assert set(shapes) == set(expected)
  for shape, count in expected.items():
    assert abs(shapes.count(shape) - count) < 5 * count**0.5


def test_rows_as_published():
  """BOS, the length, the expression, ANS; the value is asked for at ANS."""
  task = Mano(ManoConfig(length=4))
  batch = task.train_batch(0, 0, 200)
  seen = set()
  for inputs_T, labels_T in zip(batch['inputs'], batch['labels'], strict=True):
    count = int(inputs_T[1]) - task.ans
    end = 2 * count + 3
    assert (inputs_T[0], inputs_T[end]) == (task.bos, task.ans)
    value, rest = evaluate(inputs_T[2:end].tolist(), 23)
    assert rest == [] and labels_T[end] == value
    assert (np.delete(labels_T, end) == IGNORE).all()
    assert (inputs_T[end + 1 :] == task.bos).all()
    seen.add(count)
  assert seen == {1, 2, 3, 4}


@pytest.mark.parametrize(('measured', 'count'), [(0, 5), (2, 2)])
def test_held_out_expressions_have_the_measured_length(measured, count):
  task = Mano(ManoConfig(length=5, measured=measured))
  assert (task.heldout(50)['inputs'][:, 1] == task.ans + count).all()


def expressions_of(task, batch):
  """Tokens and labels of each expression, from its BOS to its ANS."""
  for inputs_T, labels_T in zip(batch['inputs'], batch['labels'], strict=True):
    for end in np.flatnonzero(inputs_T == task.ans):
      start = int(np.flatnonzero(inputs_T[:end] > task.ans)[-1]) - 1
      yield inputs_T[start : end + 1], labels_T[start : end + 1]


def test_training_may_start_with_fewer_operators():
  config = ManoConfig(length=3, start_length=1, growth=(15, 25))
  task = Mano(config)
  for step, most in ((0, 1), (14, 1), (15, 2), (25, 3), (1000, 3)):
    assert config.length_at(step) == most
    counts = {
      int(tokens_T[1]) - task.ans
      for tokens_T, _ in expressions_of(task, task.train_batch(0, step, 64))
    }
    assert counts == set(range(1, most + 1))
  assert set(task.heldout(5)['inputs'][:, 1] - task.ans) == {3}
  assert ManoConfig().length_at(0) == 10
  assert ManoConfig(length=2, growth=(5,)).length_at(9) == 2


@pytest.mark.parametrize('asked', ['whole', 'shortest', 'longest'])
def test_short_expressions_share_a_row(asked):
  """Three of at most two operators, eight tokens each, in a row of 24."""
  task = Mano(ManoConfig(start_length=2, asked=asked))
  batch = task.train_batch(0, 0, 50)
  assert batch['inputs'].shape == batch['labels'].shape == (50, 24)
  found = list(expressions_of(task, batch))
  assert len(found) == 150
  for tokens_T, labels_T in found:
    value, rest = evaluate(tokens_T[2:-1].tolist(), 23)
    assert rest == [] and labels_T[-1] == value
    assert asked != 'whole' or (labels_T[:-1] == IGNORE).all()
    assert tokens_T[0] == task.bos
  asked_BT = batch['labels'] != IGNORE
  assert asked_BT.sum() == sum((labels != IGNORE).sum() for _, labels in found)
  assert (batch['segments'] == np.repeat([1, 2, 3], 8)).all()
  assert (batch['positions'] == np.tile(np.arange(8), 3)).all()


def test_what_no_expression_fills_is_padding():
  """Two of at most three operators, ten tokens each, in a row of 24."""
  batch = Mano(ManoConfig(start_length=3)).train_batch(0, 0, 5)
  assert (batch['segments'] == np.repeat([1, 2, 0], [10, 10, 4])).all()
  assert (batch['labels'][:, 20:] == IGNORE).all()


def test_no_heldout_expression_is_trained_on():
  task = Mano(ManoConfig(length=1, modulus=5))
  rows = lambda batch: {tuple(row) for row in batch['inputs']}
  trained, held = rows(task.train_batch(0, 0, 3000)), rows(task.heldout(3000))
  assert len(trained | held) == 3 * 5 * 5 and not trained & held


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(length=0), 'length must be >= 1, got 0.'),
    (dict(measured=11), r'measured must be in \[0, 10\], got 11.'),
    (dict(modulus=1), 'modulus must be >= 2, got 1.'),
    (
      dict(start_length=11),
      r'start_length must be in \[0, 10\], got 11.',
    ),
    (
      dict(growth=(10, 10)),
      r'growth must be rising and > 0, got \(10, 10\).',
    ),
    (
      dict(asked='all'),
      r"asked must be one of \('whole', 'shortest', 'longest'\), got 'all'",
    ),
    (dict(heldout_fraction=1.0), 'heldout_fraction must be inside'),
    (dict(seed=-1), 'seed must be >= 0'),
  ],
)
def test_config_is_checked(fields, message):
  with pytest.raises(ValueError, match=message):
    ManoConfig(**fields)


def test_speed():
  task = Mano(ManoConfig())
  task.train_batch(0, 0, 128)
  start = time.perf_counter()
  for step in range(10):
    task.train_batch(0, step, 128)
  assert time.perf_counter() - start < 10 * 0.05
