"""Votes of copies on the tests of ARC, counted by hand."""

import numpy as np
import pytest

from loopformer.tasks import arc_vote
from loopformer.tasks.arc import Arc, ArcConfig
from loopformer.tasks.arc_grid import encode
from tests.tasks.arc_test import grid, labels_as_tokens


@pytest.fixture(scope='module')
def task():
  return Arc(ArcConfig(synthetic=6, augmentations=5, canvas=10))


def test_votes_are_counted_then_scores_break_ties():
  a, b, c = grid('1'), grid('2'), grid('11')
  ranked = arc_vote.rank([a, b, c, b, a, b], top=3)
  assert [g.tolist() for g in ranked] == [[[2]], [[1]], [[1, 1]]]
  ranked = arc_vote.rank([a, b, a, b, c], [0.1, 0.5, 0.6, 0.4, 0.9], top=2)
  assert [g.tolist() for g in ranked] == [[[2]], [[1]]]  # 0.45 over 0.35
  ranked = arc_vote.rank([a, b], top=1)
  assert [g.tolist() for g in ranked] == [[[1]]]


def test_pass_at_k_by_hand():
  a, b, c = grid('1'), grid('2'), grid('11')
  answers = {('x', 0): a, ('x', 1): b, ('y', 0): c}
  ranked = arc_vote.Ranked({('x', 0): [a, b], ('x', 1): [a, b]}, top=2)
  assert arc_vote.pass_at_k(ranked, answers, 1) == 0.25  # (1/2 + 0) / 2
  assert arc_vote.pass_at_k(ranked, answers, 2) == 0.5


def test_more_answers_than_were_kept_are_refused():
  vote = (('x', 0), grid('1'), 0.0)
  answers = {('x', 0): grid('1')}
  one = arc_vote.tally([vote], 1)
  assert arc_vote.pass_at_k(one, answers, 1) == 1.0
  # Two are kept of a test that has one: nobody voted for another.
  assert arc_vote.pass_at_k(arc_vote.tally([vote], 2), answers, 2) == 1.0
  for k in (0, 2):
    with pytest.raises(ValueError, match=rf'k must be in 1..1, .*, got {k}\.'):
      arc_vote.pass_at_k(one, answers, k)


def test_copies_vote_in_the_frame_of_the_task(task):
  batch = task.heldout(task.num_heldout)
  tokens_NT = labels_as_tokens(batch)
  ranked = task.vote(tokens_NT, batch)
  # Every copy says the same.
  assert set(map(len, ranked.grids.values())) == {1}
  assert task.pass_at_k(ranked, 1) == 1.0
  two = task.heldout(12)  # the tests as they are, then one copy of each
  wrong_NT = labels_as_tokens(two)
  wrong_NT[6:] = encode(grid('9'), side=10)
  for scores_N, first in (((1.0, 0.2), 1.0), ((0.2, 1.0), 0.0)):
    ranked = task.vote(wrong_NT, two, np.repeat(scores_N, 6))
    assert task.pass_at_k(ranked, 1) == first
    assert task.pass_at_k(ranked, 2) == 1.0
  ranked = task.vote(wrong_NT[6:], {key: x[6:] for key, x in two.items()})
  assert task.pass_at_k(ranked, 2) == 0.0
  with pytest.raises(ValueError, match='batch row 0 must be a test of task'):
    task.vote(tokens_NT[:1], task.train_batch(0, 0, 1))


@pytest.mark.parametrize('size', [1, 5, 50])
def test_all_copies_vote_some_rows_at_a_time(task, size):
  """Copies 0, 1, 2 of the first tests say the answer, the others a 0."""
  seen = []

  def answer(batch):
    seen.append(batch)
    tokens_NT = labels_as_tokens(batch)
    copies_N = (batch['puzzles'] - 1) % 6
    wrong_N = (copies_N > 2) | (batch['puzzles'] > 18)
    tokens_NT[wrong_N] = encode(grid('0'), side=10)  # 0 is 0 in any frame.
    return tokens_NT, 1.0 + wrong_N

  found = task.voted(answer, size=size)
  # Three tasks of six are split three to three, and the 0 is surer.
  want = {'rows': 36, 'tests': 6, 'pass@1': 0.0, 'pass@2': 0.5}
  assert found == want
  assert {len(batch['ids']) for batch in seen[:-1]} <= {size}
  whole = task.heldout(36)
  for name, array in whole.items():
    joined = np.concatenate([batch[name] for batch in seen])
    np.testing.assert_array_equal(joined, array)
  without = lambda batch: (answer(batch)[0], None)
  assert task.voted(without, size=size)['pass@1'] == 0.5  # The first to come.
  some = task.voted(answer, size=size, rows=18)  # Copies 0, 1 and 2.
  assert (some['rows'], some['pass@1']) == (18, 0.5)
  assert task.voted(answer, size=size, rows=99)['rows'] == 36
  with pytest.raises(ValueError, match='rows must be >= 1 or None, got 0.'):
    task.voted(answer, size=size, rows=0)
