"""Ouro's losses on its exit gate, by hand and by one step of training."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.train import exit_gate
from loopformer.train.exit_gate import ExitGateConfig
from loopformer.train.experiment import bind, from_dict
from loopformer.train.loop import place
from loopformer.train.state import create, make_setup, merge
from loopformer.train.step import make_train_step
from tests.conformance.tiny import TRAIN, experiment, task_of
from tests.models import f64

# Hazards 1/2, 1/4 and one that is not read: shares 1/2, 1/8, 3/8.
HAZARD = jnp.array([0.5, 0.25, 0.9])[:, None, None]
SHARES = np.array([0.5, 0.125, 0.375])


def test_shares_by_hand():
  share_RBT = exit_gate.exit_shares(HAZARD)
  np.testing.assert_allclose(share_RBT[:, 0, 0], SHARES, rtol=1e-6)


def test_shares_sum_to_one_and_keep_finite_gradients():
  """Also where a gate is shut or open for good."""
  hazard_RBT = jax.random.uniform(jax.random.key(0), (6, 4, 5))
  hazard_RBT = hazard_RBT.at[2, 0].set(1.0).at[1, 1].set(0.0)
  share_RBT = exit_gate.exit_shares(hazard_RBT)
  np.testing.assert_allclose(share_RBT.sum(0), 1.0, atol=1e-6)
  assert (share_RBT >= 0).all()
  total = lambda h: exit_gate.entropy(exit_gate.exit_shares(h)).sum()
  assert jnp.isfinite(jax.grad(total)(hazard_RBT)).all()


def test_one_recurrence_has_all_of_the_share():
  share_RBT = exit_gate.exit_shares(jnp.full((1, 2, 3), 0.2))
  np.testing.assert_array_equal(share_RBT, 1.0)
  np.testing.assert_array_equal(exit_gate.entropy(share_RBT), 0.0)


def test_entropy_by_hand():
  """Uniform over four: ln 4, the most there is."""
  hazard_RBT = jnp.array([1 / 4, 1 / 3, 1 / 2, 0.0])[:, None]
  share_RBT = exit_gate.exit_shares(hazard_RBT)
  np.testing.assert_allclose(share_RBT, 0.25, rtol=1e-6)
  np.testing.assert_allclose(
    exit_gate.entropy(share_RBT), math.log(4), rtol=1e-6
  )


def test_stage_one_by_hand():
  loss_RBT = jnp.array([3.0, 2.0, 1.0])[:, None, None]
  cfg = ExitGateConfig(entropy=0.1)
  mixed = 0.5 * 3 + 0.125 * 2 + 0.375
  want = mixed + 0.1 * (SHARES * np.log(SHARES)).sum()
  loss_BT = exit_gate.expected_loss(
    loss_RBT, exit_gate.exit_shares(HAZARD), cfg
  )
  np.testing.assert_allclose(loss_BT, [[want]], rtol=1e-6)


def test_stage_two_by_hand():
  """The loss falls by 0.1, then rises: go on, then stop at sigmoid(-1/4)."""
  loss_RBT = jnp.array([1.0, 0.9, 1.5])[:, None, None]
  hazard_RBT = jnp.array([0.3, 0.25, 0.6])[:, None, None]
  cfg = ExitGateConfig()
  w = [1 / (1 + math.exp(-50 * (gain - 0.005))) for gain in (0.1, 0.0)]
  targets = exit_gate.go_on_targets(loss_RBT, cfg)
  np.testing.assert_allclose(targets[:, 0, 0], w, rtol=1e-5)
  want = -np.mean(
    [
      w[0] * math.log(0.75) + (1 - w[0]) * math.log(0.25),
      w[1] * math.log(0.4) + (1 - w[1]) * math.log(0.6),
    ]
  )
  loss_BT = exit_gate.gate_loss(loss_RBT, hazard_RBT, cfg)
  np.testing.assert_allclose(loss_BT, [[want]], rtol=1e-5)


def trained(objective):
  """Parameters before and after one step, by path, and its metrics."""
  made = experiment('ouro', objective=objective)
  setup, task = make_setup(made), task_of(made)
  state = create(setup)
  before = paths(state.params)
  batch = task.train_batch(0, 0, made.train.batch_size)
  state, metrics = make_train_step(setup)(state, place(setup, batch))
  return setup, batch, before, paths(state.params), jax.device_get(metrics)


def paths(params):
  leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
  return {jax.tree_util.keystr(path): x for path, x in leaves}


def test_stage_two_moves_the_gate_alone():
  _, _, before, after, metrics = trained('exit_gate')
  assert metrics['loss'] > 0
  moved = {p for p in before if (before[p] != after[p]).any()}
  assert moved == {p for p in before if 'gate' in p}
  assert len(moved) == 2


@pytest.mark.slow
def test_stage_one_is_the_expected_loss_of_the_recurrences():
  """From the logits and gates of every recurrence, in float64."""
  made = experiment('ouro', objective='expected_exit')
  setup, batch, before, after, metrics = trained('expected_exit')
  assert all((before[p] != after[p]).any() for p in before)
  state = create(setup)
  model = merge(setup, state.params, state.rest)
  context = model.embed(jnp.asarray(batch['inputs']))
  hidden, losses, hazards = context.e_BTD, [], []
  scored_BT = batch['labels'] >= 0
  for _ in range(made.loop.max_steps):
    hidden = model.norm(model.block(hidden)[0])
    log_BTV = f64(jax.nn.log_softmax(model.readout(hidden, context)))
    labels_BT = np.where(scored_BT, batch['labels'], 0)
    picked = np.take_along_axis(log_BTV, labels_BT[..., None], -1)[..., 0]
    losses.append(-picked)
    hazards.append(f64(model.exit_per_token(hidden)))
  left_BT, total_BT, steps_BT = 1.0, 0.0, 0.0
  hazards[-1] = np.ones_like(hazards[-1])
  for t, (loss_BT, hazard_BT) in enumerate(zip(losses, hazards, strict=True)):
    p_BT = left_BT * hazard_BT
    total_BT = total_BT + p_BT * (loss_BT + 0.1 * np.log(p_BT))
    steps_BT = steps_BT + (t + 1) * p_BT
    left_BT = left_BT * (1 - hazard_BT)
  want = total_BT[scored_BT].sum() / scored_BT.sum()
  np.testing.assert_allclose(metrics['loss'], want, rtol=1e-5)
  np.testing.assert_allclose(metrics['mean_steps'], steps_BT.mean(), rtol=1e-5)


def described(**changes):
  model = {'family': 'ouro', 'block': {'mask': 'causal', 'width': 8}}
  return {
    'model': model,
    'task': {'name': 'group', 'group': 's3', 'length': 6},
    'loop': {'max_steps': 3},
    'train': {**TRAIN, 'objective': 'exit_gate'},
  } | changes


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'loop': {'halt': {'name': 'cdf', 'quantile': 0.5}}},
      "train.objective = 'exit_gate' needs loop.halt = {'name': 'fixed_steps'}",
    ),
    ({'loop': {'max_steps': 1}}, 'loop.max_steps must be >= 2, got 1.'),
    (
      {'train': {'objective': 'exit_gate', 'optimizer': {'weight_decay': 0.1}}},
      'train.optimizer.weight_decay must be 0 for train.objective = ',
    ),
    (
      {'model': {'family': 'feedforward', 'block': {'mask': 'causal'}}},
      "train.objective = 'exit_gate' reads the head halt_token",
    ),
  ],
)
def test_what_cannot_be_trained_is_refused(changes, message):
  with pytest.raises(ValueError) as error:
    from_dict(described(**changes))
  assert str(error.value).startswith(message)


def test_a_described_run_is_accepted():
  made = from_dict(described())
  assert bind(made, task_of(made)).train.exit_gate == ExitGateConfig()
