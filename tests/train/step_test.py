"""The train step: equal parts, averages, masters, depths, faults, donation."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loopformer.nn.variables import axis_names
from loopformer.train import loop
from loopformer.train.objectives import loss_sums
from loopformer.train.state import merge
from loopformer.train.step import (
  first_bad_leaf,
  make_objective,
  make_train_step,
  prepare,
)
from loopformer.zoo import FAMILIES
from tests.train import tiny

BF16 = {**tiny.SECTIONS['model'], 'block': {**tiny.BLOCK, 'dtype': 'bfloat16'}}


def steps(count=1, batches=tiny.batch, **changes):
  """State and metrics after `count` steps, each on its own batch."""
  state = tiny.create()
  for seed in range(count):
    placed = loop.place(tiny.setup(**changes), batches(seed))
    state, metrics = tiny.step_fn(**changes)(state, placed)
  return state, jax.device_get(metrics)


def test_a_step_counts_and_lowers_the_loss():
  state, first = steps()
  assert (int(state.step), int(state.skipped)) == (1, 0)
  assert (bool(first['finite']), int(first['first_bad_leaf'])) == (True, -1)
  _, last = steps(8, batches=lambda _: tiny.batch())
  assert last['loss'] < first['loss']
  assert last['mean_steps'] == 3.0


def test_accumulation_equals_the_whole_batch():
  """Four parts with different numbers of scored positions."""
  scored_P = (tiny.batch()['labels'] != -100).reshape(4, -1).sum(1)
  assert len(set(scored_P)) > 1
  whole, metrics = steps(2)
  parts, sums = steps(2, train={**tiny.SECTIONS['train'], 'accumulate': 4})
  for a, b in zip(
    jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-6)
  for name, value in metrics.items():
    np.testing.assert_allclose(sums[name], value, rtol=1e-5, atol=1e-6)


def test_average_of_parameters():
  """ema <- 0.5 ema + 0.5 params, from the initial parameters on."""
  states = [tiny.create(), steps(1)[0], steps(2)[0]]
  expected = states[0].params
  for state in states[1:]:
    half = lambda a, b: 0.5 * a + 0.5 * b
    expected = jax.tree.map(half, expected, state.params)
    for e, s in zip(
      jax.tree.leaves(expected), jax.tree.leaves(state.ema), strict=True
    ):
      np.testing.assert_allclose(s, e, rtol=1e-6, atol=1e-7)


def test_bfloat16_computes_but_does_not_keep():
  """Masters, moments and average stay float32 and get more than bf16 steps."""
  state, metrics = steps(2, model=BF16)
  kept = (state.params, state.ema, state.opt_state)
  floats = [x for x in jax.tree.leaves(kept) if x.dtype != jnp.int32]
  assert {x.dtype for x in floats} == {jnp.dtype('float32')}
  rounded = [
    np.array_equal(x, x.astype(jnp.bfloat16).astype(jnp.float32))
    for x in jax.tree.leaves(state.params)
  ]
  assert not any(rounded)
  _, exact = steps(2)
  assert metrics['loss'] != exact['loss']
  np.testing.assert_allclose(metrics['loss'], exact['loss'], rtol=0.02)


def poisoned(seed):
  """A label that is no class makes the loss not a number."""
  batch = tiny.batch(seed)
  batch['labels'][0, 0] = 1000
  return batch


def test_a_step_that_is_not_finite_changes_nothing():
  """Bit for bit, but for the step and the count of skipped updates."""
  state, _ = steps(2)
  before = tiny.bits(state._replace(step=state.step, skipped=state.skipped))
  placed = loop.place(tiny.setup(), poisoned(7))
  after, metrics = tiny.step_fn()(state, placed)
  assert (int(after.step), int(after.skipped)) == (3, 1)
  reset = after._replace(step=jnp.int32(2), skipped=jnp.int32(0))
  held = tiny.bits(reset.params)
  assert tiny.bits(reset) == before
  assert not metrics['finite'] and np.isnan(metrics['loss'])
  # Later steps go on, at the rate of the updates that were made.
  later, metrics = tiny.step_fn()(after, loop.place(tiny.setup(), tiny.batch()))
  assert (int(later.step), int(later.skipped)) == (4, 1)
  assert metrics['finite'] and tiny.bits(later.params) != held


def test_an_update_that_is_not_finite_is_not_made():
  """Though the loss and its gradients are."""
  setup, state = tiny.setup(), tiny.create()
  broken = lambda grads, moments, params: (
    jax.tree.map(lambda g: g * jnp.inf, grads),
    moments,
  )
  optimizer = setup.optimizer._replace(update=broken)
  step_fn = make_train_step(setup._replace(optimizer=optimizer))
  before = tiny.bits((state.params, state.ema))
  after, metrics = step_fn(state, loop.place(setup, tiny.batch()))
  assert tiny.bits((after.params, after.ema)) == before
  assert (int(after.step), int(after.skipped)) == (1, 1)
  assert not metrics['finite'] and int(metrics['first_bad_leaf']) == -1
  assert np.isfinite([metrics['loss'], metrics['gradient_norm']]).all()


def test_the_reported_rate_is_the_one_of_the_update():
  """After a skipped step the schedule has not moved."""
  optimizer = {'name': 'sgd', 'warmup': 5, 'learning_rate': 1.0}
  changes = {'train': {**tiny.SECTIONS['train'], 'optimizer': optimizer}}
  state, rates = _fresh(changes), []
  for seed, make in enumerate((tiny.batch, poisoned, tiny.batch)):
    placed = loop.place(tiny.setup(**changes), make(seed))
    state, metrics = tiny.step_fn(**changes)(state, placed)
    rates.append(float(metrics['learning_rate']))
  np.testing.assert_allclose(rates, [0.2, 0.4, 0.4], rtol=1e-6)


def _fresh(changes):
  """The shared initial state, with the moments of another optimiser."""
  state, setup = tiny.create(), tiny.setup(**changes)
  return state._replace(opt_state=setup.optimizer.init(state.params))


def test_the_first_bad_leaf_and_its_name():
  params = tiny.create().params
  names = loop.parameter_names(params)
  assert first_bad_leaf(params) == -1
  for index, name in enumerate(names):
    leaves, tree = jax.tree.flatten(params)
    leaves[index] = leaves[index].at[..., 0].set(jnp.inf)
    leaves[-1] = leaves[-1].at[0].set(jnp.nan)
    assert names[int(first_bad_leaf(tree.unflatten(leaves)))] == name
  assert 'embedding.tokens.embedding' in names
  assert 'block.layers.attention.norm.scale' in names


def test_one_row_without_scored_positions_or_a_whole_batch():
  """Nothing to learn from is no reason to stop."""

  def silent(seed):
    return tiny.batch(seed) | {'labels': np.full((8, 4), -100, np.int32)}

  _, metrics = steps(1, batches=silent)
  assert metrics['finite'] and metrics['loss'] == metrics['gradient_norm'] == 0


def test_donation_and_transfers():
  """The old state is gone, nobody warns, nothing crosses unasked."""
  state, setup = tiny.create(), tiny.setup()
  batch = tiny.batch()
  placed = loop.place(setup, batch)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    with jax.transfer_guard('disallow'):
      new, _ = tiny.step_fn()(state, placed)
      again, metrics = tiny.step_fn()(new, placed)
  old = jax.tree.leaves((state.params, state.ema, state.opt_state))
  assert all(leaf.is_deleted() for leaf in old)
  with pytest.raises((RuntimeError, ValueError), match='delete|donate'):
    tiny.step_fn()(state, placed)
  with jax.transfer_guard('disallow'):
    with pytest.raises(Exception, match='transfer'):
      float(metrics['loss'] + 1)
    with pytest.raises(Exception, match='transfer'):
      tiny.step_fn()(again, batch)


def test_average_and_parameters_are_two_buffers():
  """An average that shared memory with its parameters could not be donated."""
  state = jax.block_until_ready(tiny.create())
  for a, b in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(state.ema), strict=True
  ):
    assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()


SET = {'name': 'uniform_set', 'values': [1, 2, 3, 5]}


@pytest.mark.parametrize('adjoint', ['full', 'last_k'])
@pytest.mark.parametrize('per', ['batch', 'sequence'])
def test_depths_are_drawn_per_step(adjoint, per):
  """One draw a batch or a row; `full` cuts it at max_steps = 3."""
  spec = {'name': adjoint} | ({'k': 2} if adjoint == 'last_k' else {})
  changes = {'loop': {'adjoint': spec, 'depth': SET | {'per': per}}}
  changes['loop']['max_steps'] = 3
  setup, state = tiny.setup(**changes), tiny.create()
  batch = loop.place(setup, tiny.batch())
  draw = jax.jit(lambda step: prepare(setup, state._replace(step=step), batch))
  drawn = [draw(jnp.int32(step)) for step in range(12)]
  depth_SB = np.stack([d.depth_B for d in drawn])
  highest = 3 if adjoint == 'full' else 5
  assert set(depth_SB.ravel()) == {1, 2, 3, highest}
  assert (np.ptp(depth_SB, axis=1) == 0).all() == (per == 'batch')
  data_SBK = np.stack([jax.random.key_data(d.keys_B) for d in drawn])
  keys = {row.tobytes() for row in data_SBK.reshape(12 * 8, -1)}
  assert len(keys) == 12 * 8  # Every row of every step has its own key.


@pytest.mark.parametrize(
  'adjoint', [{'name': 'full'}, {'name': 'last_k', 'k': 2}]
)
def test_sampled_depths_are_fixed_depths_row_by_row(adjoint):
  """Gradient of rows at 1, 2, 3 and 3: the sum over the rows, each alone."""
  depth = {'name': 'uniform_set', 'values': [1, 2, 3], 'per': 'sequence'}
  changes = {'loop': {'max_steps': 3, 'adjoint': adjoint, 'depth': depth}}
  setup, state = tiny.setup(**changes), tiny.create()
  labels_BT = jnp.asarray(tiny.batch(ignored=False)['labels'][:4])

  @jax.jit
  @jax.grad
  def gradient(params, depth_B, labels_BT):
    batch = {name: jnp.asarray(x[:4]) for name, x in tiny.batch().items()}
    batch['labels'] = labels_BT
    rows = prepare(setup, state, batch)._replace(depth_B=depth_B)
    model = merge(setup, params, state.rest)
    return loss_sums(model, rows, make_objective(setup, depth_B), 16.0, 4)[0]

  depth_B = jnp.array([1, 2, 3, 3])
  mixed = gradient(state.params, depth_B, labels_BT)
  total = jax.tree.map(jnp.zeros_like, mixed)
  for row, depth in enumerate(depth_B):
    only_BT = jnp.full_like(labels_BT, -100).at[row].set(labels_BT[row])
    alone = gradient(state.params, jnp.full(4, depth), only_BT)
    total = jax.tree.map(jnp.add, total, alone)
  for a, b in zip(jax.tree.leaves(mixed), jax.tree.leaves(total), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_ramp_grows_the_mean_and_the_window_with_it():
  """Of ten steps five lead to a mean of 3, of which 2 carry gradient."""
  depth = {'name': 'truncated_poisson', 'mean': 3.0}
  loop_fields = {
    'max_steps': 3,
    'adjoint': {'name': 'last_k', 'k': 2},
    'depth': depth,
    'ramp': {'shape': 'linear', 'over': 0.5},
  }
  setup, state = tiny.setup(loop=loop_fields), tiny.create()
  batch = loop.place(setup, tiny.batch())
  draw = jax.jit(lambda step: prepare(setup, state._replace(step=step), batch))
  drawn = [draw(jnp.int32(step)) for step in range(10)]
  for step, rows in enumerate(drawn):
    window = 1 if step <= 1 else 2
    free_B = np.maximum(rows.depth_B - window, 0)
    np.testing.assert_array_equal(rows.free_B, free_B)
  means = [float(np.mean(rows.depth_B)) for rows in drawn]
  assert np.mean(means[:2]) < np.mean(means[5:])


def test_a_window_that_grows_is_the_window_it_has_grown_to():
  """One recurrence with gradient of at most two: `last_k` of one."""
  labels_BT = jnp.asarray(tiny.batch(ignored=False)['labels'][:4])
  depth_B = jnp.array([1, 2, 3, 3])

  def gradient(k, free_B):
    adjoint = {'name': 'last_k', 'k': k}
    depth = {'name': 'truncated_poisson', 'mean': 3.0}
    fields = {'max_steps': 3, 'adjoint': adjoint, 'depth': depth}
    setup, state = tiny.setup(loop=fields), tiny.create()

    @jax.jit
    @jax.grad
    def of(params):
      batch = {name: jnp.asarray(x[:4]) for name, x in tiny.batch().items()}
      batch['labels'] = labels_BT
      rows = prepare(setup, state, batch)._replace(depth_B=depth_B)
      form = make_objective(setup, depth_B, free_B)
      model = merge(setup, params, state.rest)
      return loss_sums(model, rows, form, 16.0, 4)[0]

    return jax.tree.leaves(of(state.params))

  for ours, want in zip(
    gradient(2, depth_B - 1), gradient(1, None), strict=True
  ):
    np.testing.assert_allclose(ours, want, atol=1e-6)


def test_every_parameter_has_names_for_its_axes():
  """One name or None per axis: the mask of decay and the shardings agree."""
  model = FAMILIES['universal'].abstract(tiny.setup().experiment.model)
  is_names = lambda node: isinstance(node, tuple)
  names = jax.tree.leaves(axis_names(model), is_leaf=is_names)
  shapes = jax.tree.leaves(nnx.state(model, nnx.Param))
  assert [len(n) for n in names] == [s.ndim for s in shapes]
