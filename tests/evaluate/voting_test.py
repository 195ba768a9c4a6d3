"""Votes of a model whose answers are set by hand, counted by hand."""

import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.evaluate import voting
from loopformer.evaluate.measure import Subject
from loopformer.evaluate.results import measure
from loopformer.tasks import Arc, ArcConfig
from loopformer.tasks.arc_grid import encode
from loopformer.zoo.choices import LoopConfig

SIDE, DEPTH, COPIES = 6, 3, 4
TASK = Arc(ArcConfig(synthetic=3, augmentations=COPIES - 1, canvas=SIDE))
# What the copies of each task say, and how sure they are (q_halt).
SAID = ('RRRa', 'aaRR', 'aaRb')
SURE = ((0, 0, 0, 9), (20, -1, 1, 1), (0, 0, 0, 0))


class Teller(NamedTuple):
  """Says what stands in a table, after `DEPTH` recurrences and not before."""

  tokens_PT: Any
  q_P: Any

  cfg = types.SimpleNamespace(features=0)

  def puzzle_rows(self, puzzles_B):
    return self.tokens_PT[puzzles_B], self.q_P[puzzles_B]

  def embed(self, inputs_BT, rows):
    del inputs_BT
    return rows

  def init_state(self, context, keys_B):
    del keys_B
    q_B11 = context[1][:, None, None]
    return {'q': q_B11, 'steps': jnp.zeros_like(q_B11)}

  def step(self, state, aux, context, info):
    del context, info
    return {**state, 'steps': state['steps'] + 1}, aux

  def readout(self, state, context):
    said_B11 = (state['steps'] == DEPTH).astype(jnp.float32)
    return said_B11 * jax.nn.one_hot(context[0], TASK.vocab_size)


class Sure(Teller):
  """The same with a Q-head."""

  __slots__ = ()
  q_head = None

  def q_values(self, state):
    return jnp.repeat(state['q'][:, :, 0], 2, 1)


def teller(kind):
  """R is the right grid, a and b two wrong ones, all in the frame of a copy."""
  tokens_PT = np.zeros((TASK.num_puzzles, SIDE**2), np.int32)
  q_P = np.zeros(TASK.num_puzzles, np.float32)
  wrong = {'a': np.full((1, 5), 7, np.uint8), 'b': np.full((5, 1), 7, np.uint8)}
  for puzzle_id in range(1, TASK.num_puzzles):
    which, augmentation = TASK.puzzle(puzzle_id)
    copy = (puzzle_id - 1) % COPIES
    grids = {**wrong, 'R': TASK.test_pairs[which][0].output}
    grid_hw = augmentation.apply(grids[SAID[which][copy]])
    tokens_PT[puzzle_id] = encode(grid_hw, side=SIDE)
    q_P[puzzle_id] = SURE[which][copy]
  model = kind(jnp.asarray(tokens_PT), jnp.asarray(q_P))
  return Subject(model, {}, LoopConfig(max_steps=DEPTH))


@pytest.mark.parametrize(
  ('kind', 'rows', 'first', 'second'),
  [
    # R 3 to 1; R R of mean sigma 0.73 before a a of 0.63; a a before R.
    (Sure, None, 2 / 3, 1),
    # Without scores a, who came first, is before R in the second task.
    (Teller, None, 1 / 3, 1),
    # The tests as they stand alone: R, a, a.
    (Sure, 3, 1 / 3, 1 / 3),
    # And under one copy: R R, a a, a a.
    (Sure, 6, 1 / 3, 1 / 3),
  ],
)
def test_votes_by_hand(kind, rows, first, second):
  """Not the mean of q_halt: that of a a, 9.5, is above that of R R, 1."""
  assert TASK.num_heldout == 12
  found = voting.measure(teller(kind), TASK, batch_size=5, rows=rows)
  assert (found['steps'], found['rows'], found['tests']) == (
    DEPTH,
    rows or 12,
    3,
  )
  assert found['pass@1'] == pytest.approx(first)
  assert found['pass@2'] == pytest.approx(second)


def test_an_evaluation_has_a_section_of_votes():
  how = {'rows': 4, 'batch_size': 4, 'depths': (DEPTH,), 'cap': DEPTH}
  results = measure(teller(Sure), TASK, rules=(), **how)
  assert results['votes'].pop('seconds') > 0
  whole = {'steps': DEPTH, 'rows': 12, 'tests': 3}
  assert results['votes'] == {
    **whole,
    'pass@1': pytest.approx(2 / 3),
    'pass@2': 1,
  }
  few = measure(teller(Sure), TASK, rules=(), voters=3, **how)
  assert few['votes']['rows'] == 3
  assert 'votes' not in measure(teller(Sure), TASK, rules=(), voters=0, **how)


def test_only_a_task_with_votes_has_a_section():
  assert isinstance(TASK, voting.Voted)
  assert not isinstance(types.SimpleNamespace(score=len), voting.Voted)


def test_large_values_do_not_tie():
  """sigma(20) and sigma(21) are both 1 in float32."""
  low, high = voting.sigmoid(np.array([20.0, 21.0], np.float32))
  assert low < high < 1
  given = np.array([-1e4, 0.0, 1e4], np.float32)
  np.testing.assert_array_equal(voting.sigmoid(given), [0, 0.5, 1])
