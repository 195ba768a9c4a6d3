"""Rollouts: each equals its solo run, and the right one is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.core.rows import fold_rows, row_keys
from loopformer.evaluate.rollouts import (
  SHAKEN,
  RolloutConfig,
  Rollouts,
  rollout_scores,
  rollouts,
)
from loopformer.nn.config import BlockConfig
from loopformer.nn.position import path_noise
from loopformer.zoo import FAMILIES
from loopformer.zoo.choices import LoopConfig
from loopformer.zoo.family import begin
from tests.models import family_model, info

BLOCK = BlockConfig(
  width=8, heads=2, hidden=8, style='post', norm_gain=False, rotary='none'
)
CFG = FAMILIES['eqr'].config(
  vocab_size=5, seq_len=4, block=BLOCK, layers=1, high_cycles=1, low_cycles=1
)
STORED = FAMILIES['trm'].config(
  vocab_size=5, seq_len=4, block=BLOCK, layers=1, high_cycles=1, low_cycles=1,
  puzzle_width=0, prefix=0,
)  # fmt: skip
BATCH = {
  'inputs': np.array([[1, 2, 3, 4], [4, 0, 0, 1], [2, 2, 1, 3]], np.int32),
  'labels': np.zeros((3, 4), np.int32),
  'ids': np.array([7, 8, 9], np.uint32),
}


def run(rows=slice(None), **fields):
  fields = {'count': 4, 'steps': 3, 'noise': 0.5, 'batch_size': 5, **fields}
  few = {name: x[rows] for name, x in BATCH.items()}
  return rollouts(family_model('eqr', CFG), few, **fields)


def test_rollouts_differ_and_do_not_depend_on_how_many_there_are():
  many, few = run(), run(count=2)
  np.testing.assert_allclose(few.moved_NK, many.moved_NK[:, :2], atol=1e-5)
  assert len(np.unique(many.moved_NK.round(4))) == 12


def test_a_row_alone_has_the_rollouts_it_has_in_a_batch():
  alone, whole = run(slice(1, 2)), run()
  np.testing.assert_allclose(alone.q_NK[0], whole.q_NK[1], atol=1e-5)
  np.testing.assert_allclose(alone.moved_NK[0], whole.moved_NK[1], atol=1e-5)
  np.testing.assert_array_equal(alone.answers_NKT[0], whole.answers_NKT[1])


def by_hand(model, rollout, steps, noise):
  """Logits and q_halt after each segment; noise goes into all but the first."""
  inputs_BT, rows_B = jnp.asarray(BATCH['inputs']), jnp.full(3, rollout)
  keys_B = row_keys(jax.random.key(0), jnp.asarray(BATCH['ids']))
  keys_B = fold_rows(keys_B, rows_B)
  state, context = begin(model, inputs_BT, keys_B)
  for t in range(steps):
    told = info([t] * 3, fold_rows(keys_B, jnp.full(3, t)))
    leaves, tree = jax.tree.flatten(state)
    if t > 0:
      leaves = [
        leaf + path_noise(told.keys_B, SHAKEN + i, leaf, noise)
        for i, leaf in enumerate(leaves)
      ]
    state, _ = model.step(jax.tree.unflatten(tree, leaves), (), context, told)
    yield model.readout(state, context), model.q_values(state)[:, 0]


@pytest.mark.parametrize('steps', [2, 5])
@pytest.mark.parametrize(('name', 'cfg'), [('eqr', CFG), ('trm', STORED)])
def test_the_noise_goes_into_the_next_segment_and_not_into_what_is_read(
  name, cfg, steps
):
  model = family_model(name, cfg)
  made = rollouts(model, BATCH, count=2, steps=steps, noise=0.5, batch_size=6)
  for k in range(2):
    logits, q = zip(*by_hand(model, k, steps, 0.5), strict=True)
    moves = np.linalg.norm(np.diff(np.stack(logits), axis=0), axis=-1)
    moved_N = moves.mean(-1)[-3:].mean(0)  # Among segments, not from the start.
    np.testing.assert_allclose(made.q_NK[:, k], q[-1], atol=1e-5)
    np.testing.assert_allclose(made.moved_NK[:, k], moved_N, atol=1e-5)
    answers_NT = logits[-1].argmax(-1)
    np.testing.assert_array_equal(made.answers_NKT[:, k], answers_NT)


def test_rollouts_of_one_segment_are_one_and_nothing_ranks_them():
  model = family_model('trm', STORED)
  run = lambda steps: rollouts(model, BATCH, count=3, steps=steps, noise=0.5)
  one, two = run(1), run(2)
  np.testing.assert_array_equal(one.q_NK, one.q_NK[:, :1].repeat(3, 1))
  np.testing.assert_array_equal(one.moved_NK, np.zeros((3, 3)))
  assert len(np.unique(two.q_NK)) == len(np.unique(two.moved_NK)) == 9
  # EqR's own start tells the rollouts apart; the first is kept.
  eqr = rollouts(family_model('eqr', CFG), BATCH, count=3, steps=1)
  assert len(np.unique(eqr.q_NK)) == 9
  np.testing.assert_array_equal(eqr.by_stillness(), eqr.answers_NKT[:, 0])


def test_a_rollout_that_is_no_longer_finite_is_not_the_stillest():
  """Overflow in the second segment: the first one's answer stands."""
  model = family_model('trm', STORED)
  run = lambda steps: rollouts(model, BATCH, count=2, steps=steps, noise=3e38)
  made = run(3)
  assert np.isnan(made.moved_NK).all()
  np.testing.assert_array_equal(made.answers_NKT, run(1).answers_NKT)
  some = made._replace(moved_NK=np.array([[np.nan, 9.0]] * 3))
  np.testing.assert_array_equal(some.by_stillness(), some.answers_NKT[:, 1])


def test_the_surest_and_the_stillest_answer_are_kept():
  answers = np.array([[[1], [2], [3]], [[4], [5], [6]]])
  made = Rollouts(
    answers,
    np.array([[0.0, 2.0, 1.0], [-1.0, -3.0, -2.0]]),
    np.array([[0.3, 0.2, 0.1], [0.1, 0.5, 0.4]]),
  )
  np.testing.assert_array_equal(made.by_q(), [[2], [4]])
  np.testing.assert_array_equal(made.by_stillness(), [[3], [4]])


def test_a_model_without_q_is_named():
  made = Rollouts(np.zeros((1, 1, 1)), np.full((1, 1), np.nan), np.ones((1, 1)))
  with pytest.raises(ValueError, match='rollouts must hold q values'):
    made.by_q()


@pytest.mark.parametrize('field', ['count', 'steps'])
def test_numbers_too_small_are_named(field):
  with pytest.raises(ValueError, match=f'{field} must be >= 1, got 0'):
    run(**{field: 0})


class Board:
  """A task of which a row is right if its first token is its id."""

  vocab_size = num_classes = 5
  seq_len, causal = 4, False
  train_batch = heldout = describe = print  # Never called.

  def score(self, predictions_NT, batch):
    return {'exact': predictions_NT[:, 0] == batch['ids'] % 5}


def test_scores_of_each_way_to_choose():
  cfg = RolloutConfig(count=4, noise=0.5)
  model = family_model('eqr', CFG)
  scores = rollout_scores(
    model, Board(), BATCH, cfg, cap=3, metric='exact', batch_size=5,
    loop=LoopConfig(),
  )  # fmt: skip
  right = (run().answers_NKT[..., 0] == BATCH['ids'][:, None] % 5).mean(1)
  assert (scores['count'], scores['steps'], scores['noise']) == (4, 3, 0.5)
  assert scores['one'] == pytest.approx(right.mean())
  assert scores['any'] == pytest.approx((right > 0).mean())
  for name, answers in (
    ('by_q', run().by_q()),
    ('by_stillness', run().by_stillness()),
  ):
    want = Board().score(answers, BATCH)['exact'].mean()
    assert scores[name] == pytest.approx(want)


def test_the_first_rows_are_rolled_out():
  scores = rollout_scores(
    family_model('eqr', CFG), Board(), BATCH, RolloutConfig(count=2, rows=2),
    cap=3, metric='exact', batch_size=4, loop=LoopConfig(),
  )  # fmt: skip
  assert scores['rows'] == 2 and 2 * scores['any'] == int(2 * scores['any'])


def test_the_solver_of_the_loop_is_used():
  """Half a step each time: another path to other answers."""
  damped = LoopConfig(solver={'name': 'damped', 'beta': 0.5})
  assert np.abs(run(loop=damped).moved_NK - run().moved_NK).max() > 1e-3
