"""What is minimised: cross-entropy at the end, or over all recurrences.

Every term is a sum over the rows at hand divided by a weight known for the
whole batch, so parts and devices add up to the loss of the whole.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from loopformer.core.ponder import kl_to_geometric, ponder_cost
from loopformer.tasks import IGNORE
from loopformer.zoo.family import Plan, output_logits, run


class Objective(NamedTuple):
  """What a loss needs besides model and batch."""

  name: str
  plan: Plan
  halt_name: str
  ponder_weight: float
  prior: float


class Batch(NamedTuple):
  """Rows on a device.

  `depth_B` is None unless depths are sampled, `puzzles_B` unless the task
  numbers its puzzles.
  """

  inputs_BT: Int[Array, 'B T']
  labels_BT: Int[Array, 'B T']
  keys_B: Any
  depth_B: Any
  puzzles_B: Any = None


def row_loss(
  logits_BTV: Float[Array, 'B T V'], labels_BT: Int[Array, 'B T']
) -> Float[Array, ' B']:
  """Sum over scored positions of the cross-entropy, float32."""
  scored_BT = labels_BT != IGNORE
  losses_BT = optax.softmax_cross_entropy_with_integer_labels(
    logits_BTV.astype(jnp.float32), jnp.where(scored_BT, labels_BT, 0)
  )
  return jnp.sum(jnp.where(scored_BT, losses_BT, 0.0), -1)


def scored_count(labels_BT: Int[Array, 'B T']) -> Float[Array, '']:
  """Positions that are scored."""
  return jnp.sum(labels_BT != IGNORE).astype(jnp.float32)


def loss_sums(
  model: Any, batch: Batch, objective: Objective, positions: Any, rows: Any
) -> tuple[Float[Array, ''], Mapping[str, Array]]:
  """The batch's share of the loss, and sums from which metrics are made.

  Args:
    model: any family's model.
    batch: rows at hand.
    objective: which loss.
    positions: scored positions of the whole batch, over all parts and devices.
    rows: rows of the whole batch.
  """
  loss_B, extra_B, result, logits_BTV = LOSSES[objective.name](
    model, batch, objective
  )
  loss = jnp.sum(loss_B) / positions + jnp.sum(extra_B) / rows
  right_BT = jnp.argmax(logits_BTV, -1) == batch.labels_BT
  scored_BT = batch.labels_BT != IGNORE
  exact_B = jnp.all(right_BT | ~scored_BT, -1)
  finite_residual_B = jnp.where(
    jnp.isfinite(result.residual_B), result.residual_B, 0.0
  )
  return loss, {
    'loss': loss,
    'token_accuracy': jnp.sum(right_BT & scored_BT) / positions,
    'exact_accuracy': jnp.sum(exact_B) / rows,
    'mean_steps': jnp.sum(_per_sample(result.steps_B)) / rows,
    'residual': jnp.sum(_per_sample(finite_residual_B)) / rows,
  }


def _per_sample(rows_B):
  """Means over tokens, where tokens are the rows."""
  return rows_B if rows_B.ndim == 1 else jnp.mean(rows_B, -1)


def _last(model, batch, objective):
  """Cross-entropy where the loop ends; ACT adds tau (N + R) per row."""
  result, context = run(
    model,
    batch.inputs_BT,
    objective.plan,
    keys_B=batch.keys_B,
    puzzles_B=batch.puzzles_B,
  )
  logits_BTV = output_logits(model, result, context)
  extra_B = jnp.zeros(())
  if objective.halt_name == 'act':
    extra_B = objective.ponder_weight * _per_sample(ponder_cost(result))
  return row_loss(logits_BTV, batch.labels_BT), extra_B, result, logits_BTV


def _traced(model, batch, objective):
  """Runs the loop with the loss of every recurrence, states not kept."""

  def trace(state, args, info):
    del info
    return row_loss(args[0].readout(state, args[1]), batch.labels_BT)

  return run(
    model,
    batch.inputs_BT,
    objective.plan,
    keys_B=batch.keys_B,
    puzzles_B=batch.puzzles_B,
    trace=trace,
  )


def _every(model, batch, objective):
  """Mean of the cross-entropy over the recurrences each row made."""
  result, context = _traced(model, batch, objective)
  logits_BTV = model.readout(result.state, context)
  live_RB = result.trace.live_RB
  if live_RB.ndim == 3:
    live_RB = jnp.any(live_RB, -1)
  count_B = jnp.maximum(jnp.sum(live_RB, 0), 1)
  loss_B = jnp.sum(jnp.where(live_RB, result.trace.values, 0.0), 0) / count_B
  return loss_B, jnp.zeros(()), result, logits_BTV


def _expected(model, batch, objective):
  """sum_n p_n L_n + beta KL(p || geometric) (arXiv:2107.05407, eq. 5)."""
  result, context = _traced(model, batch, objective)
  weight_RB = result.trace.weight_RB
  loss_B = jnp.sum(weight_RB * result.trace.values, 0)
  kl_B = kl_to_geometric(weight_RB, objective.prior)
  logits_BTV = model.readout(result.mixed, context)
  return loss_B, objective.ponder_weight * kl_B, result, logits_BTV


LOSSES: Mapping[str, Callable] = {
  'last': _last,
  'every': _every,
  'expected': _expected,
}
