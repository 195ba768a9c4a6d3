"""Losses against sums by hand on tiny batches."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loopformer.core import fixed_steps, none, row_keys
from loopformer.core.adjoints import last_k
from loopformer.train.experiment import from_dict
from loopformer.train.objectives import (
  Batch,
  Objective,
  loss_sums,
  row_loss,
  scored_count,
)
from loopformer.train.state import make_setup, merge
from loopformer.train.step import make_objective
from loopformer.zoo.family import Plan, run
from tests.models import family_model, info
from tests.train import tiny

HALTING = {**tiny.SECTIONS['model'], 'halting': True, 'halting_bias': -0.5}


def test_row_loss_by_hand():
  """Logits 0 and ln 3: -ln 0.25 for class 0, -ln 0.75 for class 1."""
  logits_BTV = jnp.log(jnp.array([[[1.0, 3.0]] * 3, [[1.0, 1.0]] * 3]))
  labels_BT = jnp.array([[0, 1, -100], [-100, -100, -100]])
  expected_B = [math.log(4) + math.log(4 / 3), 0.0]
  np.testing.assert_allclose(row_loss(logits_BTV, labels_BT), expected_B, 1e-6)
  assert float(scored_count(labels_BT)) == 2.0


def test_ignored_positions_have_no_gradient():
  logits_BTV = jnp.zeros((1, 2, 3)).at[0, 1].set(50.0)
  labels_BT = jnp.array([[1, -100]])
  loss, grad = jax.value_and_grad(lambda x: row_loss(x, labels_BT)[0])(
    logits_BTV
  )
  np.testing.assert_allclose(loss, math.log(3), rtol=1e-6)
  np.testing.assert_allclose(grad[0, 0], [1 / 3, -2 / 3, 1 / 3], rtol=1e-6)
  np.testing.assert_array_equal(grad[0, 1], 0.0)


def test_real_labels_have_squared_errors():
  """(3 - 1)^2 + (0 - 2)^2 of the two that are scored, with slopes 4 and -4."""
  logits_BTV = jnp.array([[[3.0], [9.0], [0.0]]])
  labels_BT = jnp.array([[1.0, -100.0, 2.0]])
  loss, grad = jax.value_and_grad(lambda x: row_loss(x, labels_BT)[0])(
    logits_BTV
  )
  assert float(loss) == 8.0 and float(scored_count(labels_BT)) == 2.0
  np.testing.assert_array_equal(grad[0, :, 0], [4.0, 0.0, -4.0])


@pytest.mark.parametrize('depth', [3, 5])
def test_every_of_the_last_two_recurrences(depth):
  """Their mean error, and nothing of what came before has a gradient.

  That is the gradient of the same two from the state before them, held fixed.
  """
  fields = {'features': 2, 'num_classes': 1, 'start': 'zero'}
  cfg = from_dict(tiny.sections(model=fields)).model
  model = family_model('universal', cfg)
  rng = np.random.default_rng(0)
  inputs = jnp.asarray(rng.normal(size=(3, 4, 2)), jnp.float32)
  labels_BT = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
  keys_B = row_keys(jax.random.key(0), jnp.arange(3))
  batch = Batch(inputs, labels_BT, keys_B, None)
  fixed, last = fixed_steps(), 2
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  def loss(params, plan):
    form = Objective('every', plan, 0.0, 0.2)
    whole = nnx.merge(graph, params, rest)
    return loss_sums(whole, batch, form, 12.0, 3)

  def by_hand(params):
    free = run(model, inputs, Plan(fixed, depth - last, none()))[0].state
    whole, total = nnx.merge(graph, params, rest), 0.0
    context, state = whole.embed(inputs), jax.lax.stop_gradient(free)
    for t in range(depth - last, depth):
      state, _ = whole.step(state, (), context, info([t] * 3))
      error_BT = whole.readout(state, context)[..., 0] - labels_BT
      total += jnp.sum(error_BT**2) / last / 12
    return total, jnp.sum(error_BT**2) / 12

  windowed = lambda params: loss(params, Plan(fixed, depth, last_k(last)))
  found, wanted = (
    jax.jit(jax.value_and_grad(form, has_aux=True))(params)
    for form in (windowed, by_hand)
  )
  (total, sums), (want, at_end) = found[0], wanted[0]
  np.testing.assert_allclose(total, want, rtol=1e-5)
  np.testing.assert_allclose(sums['squared_error'], at_end, rtol=1e-5)
  assert 'exact_accuracy' not in sums
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    found[1],
    wanted[1],
  )


ACT = {'name': 'act'}
RULES = {
  'cdf': {'name': 'cdf', 'quantile': 0.7},
  'after': {'name': 'after', 'count': 6, 'rule': ACT},
  'any_of': {
    'name': 'any_of',
    'rules': [{'name': 'fixed_steps', 'count': 2}, ACT],
  },
}


@functools.cache
def evaluate(objective, halt, steps=3, ponder_weight=0.01, rows='sample'):
  """Loss, metrics and the loop's trace of one batch, and its per-step losses.

  What the loop does is checked by recomputing every recurrence alone.
  """
  changes = {
    'model': HALTING,
    'loop': {
      'max_steps': steps,
      'halt': RULES.get(halt, {'name': halt}),
      'rows': rows,
    },
    'train': {
      'objective': objective,
      'ponder_weight': ponder_weight,
      'ema': 0.0,
    },
  }
  setup = tiny.setup(**changes)
  params = tiny.create(model=HALTING)
  data = tiny.batch(rows=4)
  batch = Batch(
    jnp.asarray(data['inputs']),
    jnp.asarray(data['labels']),
    row_keys(jax.random.key(0), jnp.asarray(data['ids'])),
    None,
  )
  form = make_objective(setup, None)

  @jax.jit
  def everything(params, rest):
    model = merge(setup, params, rest)
    positions = scored_count(batch.labels_BT)
    total, sums = loss_sums(model, batch, form, positions, 4)
    trace = lambda state, args, info: args[0].readout(state, args[1])
    result, context = run(
      model, batch.inputs_BT, form.plan, keys_B=batch.keys_B, trace=trace
    )
    mixed = result.state if result.mixed is None else result.mixed
    return total, sums, result.trace, model.readout(mixed, context)

  total, sums, trace, logits = everything(params.params, params.rest)
  return data, total, sums, trace, np.asarray(logits, np.float64)


def cross_entropy(logits_BTV, labels_BT):
  """Per row, in float64."""
  logits_BTV = np.asarray(logits_BTV, np.float64)
  log_BTV = logits_BTV - np.log(np.exp(logits_BTV).sum(-1, keepdims=True))
  scored_BT = labels_BT != -100
  safe_BT = np.where(scored_BT, labels_BT, 0)
  picked_BT = np.take_along_axis(log_BTV, safe_BT[..., None], -1)[..., 0]
  return -(picked_BT * scored_BT).sum(-1)


def test_last():
  """Sum over scored positions of the last recurrence, by their number."""
  data, total, sums, trace, logits_BTV = evaluate('last', 'fixed_steps')
  labels_BT = data['labels']
  scored_BT = labels_BT != -100
  loss_B = cross_entropy(trace.values[-1], labels_BT)
  np.testing.assert_allclose(total, loss_B.sum() / scored_BT.sum(), rtol=1e-5)
  np.testing.assert_allclose(sums['loss'], total)
  right_BT = logits_BTV.argmax(-1) == labels_BT
  np.testing.assert_allclose(
    sums['token_accuracy'], (right_BT & scored_BT).sum() / scored_BT.sum()
  )
  np.testing.assert_allclose(
    sums['exact_accuracy'], (right_BT | ~scored_BT).all(-1).mean()
  )
  assert float(sums['mean_steps']) == 3.0


def test_every():
  """The mean of the losses of all three recurrences."""
  data, total, _, trace, _ = evaluate('every', 'fixed_steps')
  losses_R = [cross_entropy(x, data['labels']).sum() for x in trace.values]
  scored = (data['labels'] != -100).sum()
  np.testing.assert_allclose(total, np.mean(losses_R) / scored, rtol=1e-5)


def test_every_counts_only_recurrences_made():
  """Rows that stop early average over fewer."""
  data, total, sums, trace, _ = evaluate('every', 'cdf', steps=6)
  live_RB = np.asarray(trace.live_RB)
  count_B = live_RB.sum(0)
  assert count_B.max() < 6  # The rule stops before the cap.
  losses_RB = np.stack([cross_entropy(x, data['labels']) for x in trace.values])
  expected = ((losses_RB * live_RB).sum(0) / count_B).sum()
  expected /= (data['labels'] != -100).sum()
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  np.testing.assert_allclose(sums['mean_steps'], count_B.mean())


@pytest.mark.parametrize(
  ('halt', 'rows'),
  [
    ('act', 'sample'),
    ('act', 'token'),
    ('after', 'sample'),
    ('any_of', 'sample'),
  ],
)
def test_act_pays_for_pondering(halt, rows):
  """Loss of the mixed state plus tau (N + R): linear in tau, by hand."""
  data, total, _, trace, logits_BTV = evaluate('last', halt, 6, 0.5, rows)
  _, free, _, _, _ = evaluate('last', halt, 6, 0.0, rows)
  scored = (data['labels'] != -100).sum()
  mixed = cross_entropy(logits_BTV, data['labels']).sum() / scored
  np.testing.assert_allclose(free, mixed, rtol=1e-5)
  weight_RB = np.asarray(trace.weight_RB)
  steps_B = np.asarray(trace.live_RB).sum(0)
  # R is the weight of the last recurrence that a row made.
  rest_B = np.take_along_axis(weight_RB, steps_B[None] - 1, 0)[0]
  np.testing.assert_allclose(
    total - free, 0.5 * (steps_B + rest_B).mean(), 1e-4
  )


def test_expected():
  """sum_n p_n L_n + beta KL(p || geometric), the weights summing to one."""
  data, total, _, trace, _ = evaluate('expected', 'ponder', 4, 0.3)
  weight_RB = np.asarray(trace.weight_RB, np.float64)
  np.testing.assert_allclose(weight_RB.sum(0), 1.0, atol=1e-6)
  assert weight_RB.min() > 0.01
  losses_RB = np.stack([cross_entropy(x, data['labels']) for x in trace.values])
  prior_R = np.array([0.2, 0.16, 0.128, 0.512])
  kl_B = (weight_RB * np.log(weight_RB / prior_R[:, None])).sum(0)
  expected = (weight_RB * losses_RB).sum() / (data['labels'] != -100).sum()
  np.testing.assert_allclose(total, expected + 0.3 * kl_B.mean(), rtol=1e-5)


SEGMENTS = {
  'family': 'trm',
  'vocab_size': 6,
  'num_classes': 6,
  'seq_len': 4,
  'block': {**tiny.BLOCK, 'norm_gain': False},
  'layers': 1,
  'puzzle_width': 0,
  'high_cycles': 1,
  'low_cycles': 1,
  'halting': 'probability',
}


@functools.cache
def segment_gradients(halt, objective, gradient, steps=3):
  """Gradients of a reasoner's parameters, all segments at once."""
  made = from_dict(
    {
      'model': {**SEGMENTS, 'gradient': gradient},
      'task': {'name': 'sudoku'},
      'loop': {'max_steps': steps, 'halt': {'name': halt}},
      'train': {'objective': objective, 'batch_size': 4, 'ponder_weight': 0.5},
    }
  )
  setup, data = make_setup(made), tiny.batch(rows=4)
  keys_B = row_keys(jax.random.key(0), jnp.arange(4))
  arrays = (jnp.asarray(data[name]) for name in ('inputs', 'labels'))
  batch, form = Batch(*arrays, keys_B, None), make_objective(setup, None)
  graph, params, rest = nnx.split(
    family_model('trm', made.model), nnx.Param, ...
  )

  def loss(params):
    return loss_sums(nnx.merge(graph, params, rest), batch, form, 12, 4)

  return jax.jit(jax.grad(loss, has_aux=True))(params)


@pytest.mark.parametrize(
  'halt, objective', [('act', 'last'), ('ponder', 'expected')]
)
def test_a_reasoner_learns_when_to_halt_from_all_segments(halt, objective):
  """Every parameter has a gradient; more of it where no segment is cut."""
  full, sums = segment_gradients(halt, objective, 'full')
  last, same = segment_gradients(halt, objective, 'last_recursion')
  assert float(sums['loss']) == pytest.approx(float(same['loss']), rel=1e-5)
  moved = 0.0
  for whole, cut in zip(*map(jax.tree.leaves, (full, last)), strict=True):
    assert np.isfinite(whole).all() and np.abs(whole).max() > 0
    moved = max(moved, np.abs(whole - cut).max())
  assert moved > 1e-4
