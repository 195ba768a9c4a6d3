"""Deep supervision: slots, segments and their loss."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core.compact import take_rows
from loopformer.tasks import IGNORE
from loopformer.train import objectives, supervision
from loopformer.zoo import FAMILIES
from loopformer.zoo.family import Plan, puzzle_rows, run
from tests.train import tiny
from tests.train.segments import how, model_of


def rows(seed=0):
  """Eight random rows of five puzzles."""
  made = tiny.batch(seed)
  return objectives.Batch(
    jnp.asarray(made['inputs']),
    jnp.asarray(made['labels']),
    core.row_keys(jax.random.key(seed), jnp.asarray(made['ids'])),
    None,
    (jnp.arange(8, dtype=jnp.int32) + seed) % 5,
  )


fresh = jax.jit(
  lambda name, model, batch: supervision.fresh(how(name), model, batch),
  static_argnums=0,
)
refill = jax.jit(
  lambda name, model, held, batch: supervision.refill(
    how(name), model, held, batch
  ),
  static_argnums=0,
)


@functools.partial(jax.jit, static_argnums=0)
def segment(name, model, held):
  """One segment of the rows in flight: loss, rows after it, metrics."""
  rows_BE = puzzle_rows(model, held.batch.puzzles_B)
  loss, (after, sums) = supervision.supervise(
    how(name), model, rows_BE, held, 8.0
  )
  return loss, after, sums


def assert_bits(ours, theirs):
  """Two trees hold the same bits."""
  assert tiny.bits(ours) == tiny.bits(theirs)


def without_t(held):
  """All but the counter of iterations, which slots share."""
  return held._replace(loop=held.loop._replace(t=jnp.int32(0)))


FREE, KEPT = jnp.arange(0, 8, 2), jnp.arange(1, 8, 2)


@functools.cache
def mixed():
  """Rows of batch 0 in flight, every second of them halted, and batch 1."""
  model = model_of('trm')
  held = segment('trm', model, fresh('trm', model, rows(0)))[1]
  cause_B = jnp.where(
    jnp.arange(8) % 2 == 0,
    jnp.array([1, 0, 2, 0, 3, 0, 4, 0]),
    jnp.int32(core.Cause.LIVE),
  ).astype(jnp.int32)
  return model, held._replace(loop=held.loop._replace(cause_B=cause_B))


def test_a_halted_slot_is_a_fresh_batch_and_a_live_one_keeps_its_own():
  """Data, loop and keys of each, one segment later too; whatever the cause."""
  model, held = mixed()
  new = fresh('trm', model, rows(1))
  now = refill('trm', model, held, rows(1))
  assert_bits(without_t(take_rows(now, FREE)), without_t(take_rows(new, FREE)))
  assert_bits(take_rows(now, KEPT), take_rows(held, KEPT))
  loss, after, _ = segment('trm', model, now)
  ends = [
    segment('trm', model, take_rows(*pair))
    for pair in ((new, FREE), (held, KEPT))
  ]
  for index, (_, end, _) in zip((FREE, KEPT), ends, strict=True):
    ours, theirs = take_rows(after, index).loop, end.loop
    np.testing.assert_array_equal(ours.steps_B, theirs.steps_B)
    np.testing.assert_array_equal(ours.cause_B, theirs.cause_B)
    for name, value in ours.state.items():
      np.testing.assert_allclose(value, theirs.state[name], atol=1e-6)
  np.testing.assert_allclose(loss, ends[0][0] + ends[1][0], rtol=1e-6)


def test_rows_offered_to_live_slots_are_dropped():
  """Other rows in their places, and nothing at all changes."""
  model, held = mixed()
  ours, theirs = rows(1), rows(2)
  keep_B = jnp.arange(8) % 2 == 0
  other = jax.tree.map(
    lambda a, b: jnp.where(keep_B.reshape((8,) + (1,) * (a.ndim - 1)), a, b),
    ours,
    theirs,
  )
  assert_bits(
    refill('trm', model, held, ours), refill('trm', model, held, other)
  )


def test_idle_slots_take_the_whole_batch():
  """As the first step finds them."""
  model, held = mixed()
  filled = refill('trm', model, supervision.idle(held), rows(1))
  assert_bits(without_t(filled), without_t(fresh('trm', model, rows(1))))


@pytest.mark.parametrize('name', ['trm', 'fprm'])
def test_segments_compose(name):
  """k segments, one per step, are one run of all their recurrences."""
  model, batch, whole = model_of(name), rows(), how(name)
  held = fresh(name, model, batch)
  for _ in range(whole.plan.max_steps // whole.segment):
    held = segment(name, model, held)[1]
  result = jax.jit(
    lambda model: run(
      model,
      batch.inputs_BT,
      whole.plan._replace(adjoint=core.none()),
      keys_B=batch.keys_B,
      puzzles_B=batch.puzzles_B,
    )[0]
  )(model)
  np.testing.assert_array_equal(held.loop.steps_B, result.steps_B)
  np.testing.assert_array_equal(held.loop.cause_B, result.cause_B)
  assert len(np.unique(result.steps_B)) > 1
  for ours, theirs in zip(
    jax.tree.leaves((held.loop.state, held.loop.solver)),
    jax.tree.leaves((result.state, result.carry.solver)),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_labels_decide_no_step():
  """They enter the loss alone: the carry keeps its bits."""
  model, batch = model_of('trm'), rows()
  other = batch._replace(labels_BT=(batch.labels_BT + 1) % 6)
  ours, theirs = (
    segment('trm', model, fresh('trm', model, b)) for b in (batch, other)
  )
  assert_bits(ours[1].loop, theirs[1].loop)
  assert ours[0] != theirs[0]


def test_no_gradient_crosses_the_start_of_a_segment():
  """FPRM's steps cut nothing themselves: the gradient by its carry is zero."""
  model, how_ = model_of('fprm'), how('fprm')
  held = fresh('fprm', model, rows())

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1))
  def gradient(floats, model):
    begun = held.loop._replace(state=floats)
    rows_BE = puzzle_rows(model, held.batch.puzzles_B)
    now = held._replace(loop=begun)
    loss, (after, _) = supervision.supervise(how_, model, rows_BE, now, 8.0)
    return loss + sum(jnp.sum(x) for x in jax.tree.leaves(after.loop.state))

  by_state, by_model = gradient(held.loop.state, model)
  assert not np.any(by_state['y'])
  assert all(np.any(x) for x in jax.tree.leaves(by_model.stack))


class Toy(NamedTuple):
  """n recurrences make the logits n E[x]; the Q-values are the first two."""

  table_VC: jax.Array

  def embed(self, inputs_BT):
    return self.table_VC[inputs_BT]

  def init_state(self, context_BTC, keys_B):
    return jnp.zeros_like(context_BTC)

  def step(self, state_BTC, aux, context_BTC, info):
    return state_BTC + context_BTC, aux

  def readout(self, state_BTC, context_BTC):
    return state_BTC

  def q_values(self, state_BTC):
    return state_BTC[:, 0, :2]


TABLE = np.array([[0.5, -1.0, 2.0], [1.5, 0.2, -0.4], [-0.3, 0.9, 0.1]])
TOY = objectives.Batch(
  jnp.array([[0, 1], [2, 1], [2, 0], [1, 0]]),
  jnp.array([[2, 0], [1, IGNORE], [0, 2], [IGNORE, IGNORE]]),
  core.row_keys(jax.random.key(0), jnp.arange(4)),
  None,
)
MADE = np.array([1, 2, 1, 2])  # recurrences after the segment, of two at most


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def cross_entropy(q, target):
  return -target * np.log(sigmoid(q)) - (1 - target) * np.log(sigmoid(-q))


def cell_loss(logits_BTC):
  """-log s(x)_label / sum s, meaned over the labelled cells of each row."""
  below_BTC = np.minimum(logits_BTC, 0)
  s = np.where(logits_BTC >= 0, logits_BTC + 1, 1 / (1 - below_BTC))
  p = s / s.sum(-1, keepdims=True)
  cells = [
    [p[b, t, label] for t, label in enumerate(labels) if label != IGNORE]
    for b, labels in enumerate(TOY.labels_BT.tolist())
  ]
  return np.array([-np.mean(np.log(row)) if row else 0.0 for row in cells])


def toy_segment(family):
  """A segment of four rows: two begin, two make their last recurrence."""
  plan = Plan(core.fixed_steps(), 2, core.full())
  toy = supervision.Supervision(FAMILIES[family], plan, 1, 'stablemax')
  model = Toy(jnp.float32(TABLE))
  new = supervision.fresh(toy, model, TOY)
  old = supervision.supervise(toy, model, None, new, 16)[1][0]
  cause_B = jnp.where(MADE == 1, core.Cause.RULE, core.Cause.LIVE)
  old = old._replace(loop=old.loop._replace(cause_B=cause_B.astype(jnp.int32)))
  held = supervision.refill(toy, model, old, TOY)
  return supervision.supervise(toy, model, None, held, 16)


@pytest.mark.parametrize('family', ['trm', 'hrm'])
def test_loss_by_hand(family):
  """Sum over rows of mean cell loss and Q-terms, over a batch of sixteen."""
  embedded_BTC = TABLE[np.asarray(TOY.inputs_BT)]
  logits_BTC = MADE[:, None, None] * embedded_BTC
  q_B2 = logits_BTC[:, 0, :2]
  exact_B = np.array([1.0, 1.0, 0.0, 1.0])  # No label left is none wrong.
  expected_B = cell_loss(logits_BTC) + cross_entropy(q_B2[:, 0], exact_B) / 2
  if family == 'hrm':
    ahead_B2 = q_B2 + embedded_BTC[:, 0, :2]
    # Rows 1 and 3 may not go on: only halting has a value left.
    best_B = np.where(MADE == 2, ahead_B2[:, 0], ahead_B2.max(1))
    assert (best_B != ahead_B2[:, 0]).any() and (
      best_B != ahead_B2.max(1)
    ).any()
    expected_B += cross_entropy(q_B2[:, 1], sigmoid(best_B)) / 2
  loss, (after, sums) = jax.jit(toy_segment, static_argnums=0)(family)
  np.testing.assert_allclose(loss, expected_B.sum() / 16, rtol=1e-6)
  shares = {
    'loss': expected_B.sum(),
    'exact_accuracy': 3,
    'token_accuracy': 1 + 1 + 0.5 + 0,
    'mean_steps': 6,
    'halted': 2,
    'residual': 1 + 0.5 + 1 + 0.5,
  }
  for name, total in shares.items():
    np.testing.assert_allclose(sums[name], total / 16, rtol=1e-6, err_msg=name)
  np.testing.assert_array_equal(after.loop.steps_B, MADE)


class Noisy(Toy):
  """The same with noise of each recurrence's keys."""

  def step(self, state_BTC, aux, context_BTC, info):
    noise_B = jax.vmap(jax.random.normal)(info.keys_B)
    return state_BTC / 2 + context_BTC + noise_B[:, None, None], aux


@pytest.mark.parametrize('solver', [core.picard(), core.damped(0.5)])
@pytest.mark.parametrize('segment', [1, 2])
def test_the_state_ahead_is_that_of_the_next_segment(segment, solver):
  """Its noise, solver and length too; and no row stays where it stopped."""
  plan = Plan(core.fixed_steps(), 3, core.full(), solver)
  heard = []

  def terms(model, seen):
    heard.append((seen.state, seen.ahead()))
    return jnp.zeros(4)

  family = FAMILIES['hrm']._replace(terms=terms)
  noisy = supervision.Supervision(family, plan, segment, 'softmax')
  model = Noisy(jnp.float32(TABLE))
  held = supervision.fresh(noisy, model, TOY)
  for _ in range(3):
    held = supervision.supervise(noisy, model, None, held, 4)[1][0]
  ends, ahead = zip(*heard, strict=True)
  np.testing.assert_array_equal(ahead[0], ends[1])
  np.testing.assert_array_equal(ends[2] == ends[1], segment == 2)
  assert (ahead[-1] != ends[-1]).all()


def test_no_row_exceeds_the_cap():
  """Segments of two, three recurrences at most: 2, 3, and the next row's 2."""
  model = model_of('capped')
  held = supervision.idle(fresh('capped', model, rows()))
  for seed, made in enumerate((2, 3, 2, 3)):
    held = refill('capped', model, held, rows(seed))
    held = segment('capped', model, held)[1]
    assert (held.loop.steps_B == made).all()
    assert_bits(held.batch, rows(seed // 2 * 2))


def test_a_window_of_recurrences_stops_at_its_end_alone():
  """FPRM: three recurrences per step, rows stop after three or six."""
  model, made = model_of('fprm'), []
  held = supervision.idle(fresh('fprm', model, rows()))
  for seed in range(4):
    held = refill('fprm', model, held, rows(seed))
    held = segment('fprm', model, held)[1]
    stopped_B = held.loop.cause_B != core.Cause.LIVE
    made += [*np.asarray(held.loop.steps_B)]
    converged_B = held.loop.residual_B <= 0.5
    at_cap_B = held.loop.steps_B == 6
    np.testing.assert_array_equal(stopped_B, converged_B | at_cap_B)
  assert set(made) == {3, 6}
