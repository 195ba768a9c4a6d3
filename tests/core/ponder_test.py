"""ACT and PonderNet: weights, costs and gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core import Cause, ponder
from tests.core import affine

# Halting probabilities of three rows; the last never reaches 1 - epsilon.
TABLE = np.array(
  [[0.3, 0.6, 0.1], [0.4, 0.6, 0.1], [0.5, 0.6, 0.1], [0.5, 0.6, 0.1]],
  np.float32,
)
STEPS = (3, 2, 4)
WEIGHTS = np.array(
  [[0.3, 0.6, 0.1], [0.4, 0.4, 0.1], [0.3, 0, 0.1], [0, 0, 0.7]], np.float32
)


def count(state, aux, args, info):
  """z_t = t, so a mixture of the states is a mean step."""
  del args, info
  return state + 1, aux


def head(state, table):
  """table[t - 1] at step t."""
  return table[jnp.maximum(state[:, 0].astype(jnp.int32) - 1, 0), jnp.arange(3)]


def run(halt, table=TABLE, max_steps=4, adjoint=None, step=count, **kw):
  loop = lambda table: core.iterate(
    step,
    jnp.zeros((table.shape[1], 1)),
    table,
    halt=halt,
    max_steps=max_steps,
    adjoint=adjoint or core.none(),
    trace=lambda z, args, info: z[:, 0],
    **kw,
  )
  return jax.jit(loop)(jnp.asarray(table))


def test_act_by_hand():
  result = run(core.act(head))
  np.testing.assert_array_equal(result.steps_B, STEPS)
  np.testing.assert_array_equal(
    result.cause_B, [Cause.RULE, Cause.RULE, Cause.CAP]
  )
  np.testing.assert_allclose(result.trace.weight_RB, WEIGHTS, atol=1e-6)
  mean = (WEIGHTS * np.arange(1, 5)[:, None]).sum(0)
  np.testing.assert_allclose(result.mixed[:, 0], mean, 1e-6)


def test_weights_sum_to_one_at_the_cap():
  """Public code leaves rows that run out of steps without their remainder."""
  for halt in (core.act(head), ponder.ponder(head)):
    for steps in (1, 4):
      weight_RB = run(halt, max_steps=steps).trace.weight_RB
      np.testing.assert_allclose(weight_RB.sum(0), 1, atol=2e-7)


def test_weights_sum_to_one_on_a_non_finite_row():
  def step(state, aux, args, info):
    bad = (jnp.arange(3)[:, None] == 2) & (info.t == 2)
    return jnp.where(bad, jnp.nan, state + 1), aux

  for halt in (core.act(head), ponder.ponder(head)):
    result = run(halt, step=step)
    assert result.cause_B[2] == Cause.NON_FINITE
    weight_RB = np.asarray(result.trace.weight_RB)
    np.testing.assert_allclose(weight_RB.sum(0), 1, atol=2e-7)
    mean = weight_RB[0, 2] * 1 + weight_RB[1:, 2].sum() * 2
    np.testing.assert_allclose(result.mixed[2, 0], mean, 1e-6)


def test_ponder_cost_by_hand():
  """N + R = 3 + .3, 2 + .4 and, at the cap, 4 + .7."""
  expected = [3.3, 2.4, 4.7]
  np.testing.assert_allclose(
    core.ponder_cost(run(core.act(head))), expected, 1e-6
  )
  capped = core.any_of(core.act(head), core.fixed_steps(9))
  np.testing.assert_allclose(core.ponder_cost(run(capped)), expected, 1e-6)
  with pytest.raises(ValueError, match='halt must be or hold act'):
    core.ponder_cost(run(core.fixed_steps()))


def test_a_row_that_is_held_back_has_no_remainder_left():
  """p = .4 sums to one in three recurrences: N + R = 6 + 0 and 4 + 0."""
  table = np.full((6, 3), 0.4)
  for rule, steps in (
    (core.after(6, core.act(head)), 6),
    (core.at_multiples(4, core.act(head)), 4),
  ):
    result = run(rule, table, max_steps=6)
    np.testing.assert_array_equal(core.ponder_cost(result), [steps] * 3)
    weight_RB = result.trace.weight_RB
    np.testing.assert_allclose(weight_RB[:3, 0], [0.4, 0.4, 0.2], 1e-6)


def test_gradient_through_the_remainder():
  """d(N + R)/dp_i = -1 for i < N, and dy/dp_i = s_i - s_N."""

  def objective(table):
    result = run(core.act(head), table, adjoint=core.full())
    return core.ponder_cost(result).sum(), result.mixed.sum()

  by_cost, by_mixture = jax.jit(jax.jacrev(objective))(jnp.asarray(TABLE))
  before = np.arange(1, 5)[:, None] < np.array(STEPS)
  np.testing.assert_allclose(by_cost, -1.0 * before)
  difference = np.arange(1, 5)[:, None] - np.array(STEPS)
  np.testing.assert_allclose(by_mixture, difference * before, atol=1e-6)


def test_a_hugely_negative_bias_is_a_fixed_number_of_steps():
  args = affine.rates([0.3, 0.6])
  never = lambda z, a: jax.nn.sigmoid(z[:, 0] - jnp.inf)
  loop = lambda halt: core.iterate(
    affine.scale, jnp.zeros((2, 1)), args, halt=halt, max_steps=5
  )
  act, fixed = loop(core.act(never, epsilon=0.0)), loop(core.fixed_steps(5))
  affine.equal(act.mixed, fixed.state)
  affine.equal(act.state, fixed.state)
  affine.equal(act.steps_B, fixed.steps_B)


def test_epsilon_is_checked():
  with pytest.raises(ValueError, match=r'epsilon must be in \[0, 1\), got 1.'):
    core.act(head, epsilon=1.0)


def test_ponder_weights_by_hand():
  """p_n = l_n prod_{j<n} (1 - l_j), and the rest at the end."""
  weight_RB = run(ponder.ponder(head)).trace.weight_RB
  alive = np.cumprod(np.concatenate([np.ones((1, 3)), 1 - TABLE[:-1]]), 0)
  expected = alive * TABLE
  expected[-1] = alive[-1]
  np.testing.assert_allclose(weight_RB, expected, 1e-5)
  steps = ponder.expected_steps(weight_RB)
  np.testing.assert_allclose(steps, np.arange(1, 5) @ expected, 1e-5)
  loss_RB = jnp.asarray(TABLE) + 1
  loss = ponder.expected_loss(weight_RB, loss_RB)
  np.testing.assert_allclose(loss, (expected * loss_RB).sum(0), 1e-5)


def test_saturated_hazards_leave_no_negative_weight():
  for hazard in (0.0, 1.0, 0.99999994):
    result = run(ponder.ponder(head), np.full((6, 3), hazard), max_steps=6)
    weight_RB = np.asarray(result.trace.weight_RB)
    assert weight_RB.min() >= 0
    np.testing.assert_array_equal(weight_RB.sum(0), 1)


def test_kl_is_zero_at_the_prior_and_positive_elsewhere():
  prior_R = ponder.geometric_prior(0.2, 5)
  by_hand = [0.2, 0.16, 0.128, 0.1024, 0.4096]
  np.testing.assert_allclose(prior_R, by_hand, 1e-6)
  same = run(ponder.ponder(head), np.full((5, 3), 0.2), max_steps=5)
  zero = ponder.kl_to_geometric(same.trace.weight_RB, 0.2)
  np.testing.assert_allclose(zero, 0, atol=1e-6)
  other = run(ponder.ponder(head)).trace.weight_RB
  assert np.all(ponder.kl_to_geometric(other, 0.2) > 1e-3)
  p = np.asarray(other, np.float64)
  by_hand = (p * np.log(p / ponder.geometric_prior(0.2, 4)[:, None])).sum(0)
  np.testing.assert_allclose(ponder.kl_to_geometric(other, 0.2), by_hand, 1e-4)


def test_kl_of_a_long_tail_is_finite():
  """The prior underflows in float32 after 128 halvings, its log does not."""
  weight_RB = jnp.zeros((400, 1)).at[-1].set(1.0)
  kl = ponder.kl_to_geometric(weight_RB, 0.5)
  np.testing.assert_allclose(kl, 399 * np.log(2), 1e-5)
  first = jnp.zeros((400, 1)).at[0].set(1.0)
  grad = jax.grad(lambda w: ponder.kl_to_geometric(w, 0.5).sum())(first)
  assert np.isfinite(grad).all()
  with pytest.raises(ValueError, match=r'hazard must be in \(0, 1\), got 1.'):
    ponder.geometric_prior(1.0, 3)


ROWS = 4000


def sampled(keys, row_ndim=1):
  hazard = jnp.array([0.1, 0.3, 0.5, 0.2])

  def choose(state, table):
    t = jnp.maximum(state[..., 0].astype(jnp.int32) - 1, 0)
    return table[t]

  return core.iterate(
    count,
    jnp.zeros((*keys.shape, 1)),
    hazard,
    halt=ponder.ponder(choose, sample=True),
    max_steps=4,
    adjoint=core.none(),
    keys=keys,
    row_ndim=row_ndim,
  )


def test_sampled_exits_follow_the_halting_distribution():
  """Row n of the batch draws its own numbers: no constant key."""
  result = jax.jit(sampled)(affine.keys(ROWS))
  hazard = np.array([0.1, 0.3, 0.5, 0.2])
  alive = np.cumprod([1, *(1 - hazard[:-1])])
  expected = alive * hazard
  expected[-1] = alive[-1]
  share = np.bincount(result.steps_B, minlength=5)[1:] / ROWS
  error = 4 * np.sqrt(expected * (1 - expected) / ROWS)
  assert np.all(np.abs(share - expected) < error)
  assert set(np.asarray(result.cause_B)) == {Cause.RULE, Cause.CAP}


def test_tokens_sample_as_rows_do():
  keys = affine.keys(12)
  flat, grid = sampled(keys), sampled(keys.reshape(3, 4), row_ndim=2)
  affine.equal(grid.steps_B.ravel(), flat.steps_B)
  assert len(np.unique(flat.steps_B)) > 1


def test_the_rule_does_not_draw_what_the_step_draws():
  """A step that keeps its uniform draw must not see its exit in it."""

  def step(state, aux, args, info):
    return jax.vmap(jax.random.uniform)(info.keys_B)[:, None], aux

  result = core.iterate(
    step,
    jnp.zeros((64, 1)),
    (),
    max_steps=1,
    keys=affine.keys(64),
    halt=ponder.ponder(lambda z, a: jnp.full(64, 0.5), sample=True),
  )
  stopped = np.asarray(result.cause_B) == Cause.RULE
  below = np.asarray(result.state[:, 0]) < 0.5
  assert stopped.any() and not np.array_equal(stopped, below)


def test_sampling_without_keys_is_refused():
  with pytest.raises(ValueError, match='keys must be given'):
    run(ponder.ponder(head, sample=True))
