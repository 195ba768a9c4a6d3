"""What is minimised: the loss at the end, or over all recurrences.

The loss of a position is a cross-entropy, of real labels a squared error.

Every term is a sum over the rows at hand divided by a weight known for the
whole batch, so parts and devices add up to the loss of the whole.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Shaped

from loopformer.core import adjoints
from loopformer.core.ponder import (
  expected_steps,
  holds_act,
  kl_to_geometric,
  ponder_cost,
)
from loopformer.nn.embedding import Inputs
from loopformer.tasks import IGNORE
from loopformer.train import exit_gate
from loopformer.train.exit_gate import ExitGateConfig
from loopformer.zoo.family import Head, Plan, output_logits, run

Labels = Shaped[Array, 'B T']  # int32 tokens or float32 numbers


class Objective(NamedTuple):
  """What a loss needs besides model and batch.

  `exit_head` gives every token a probability of exit; None where the model has
  no such head.
  """

  name: str
  plan: Plan
  ponder_weight: float
  prior: float
  exit_gate: ExitGateConfig = ExitGateConfig()
  exit_head: Head | None = None


class Batch(NamedTuple):
  """Rows on a device.

  `depth_B` is None unless depths are sampled, `puzzles_B` unless the task
  numbers its puzzles, `free_B` (recurrences without gradient) unless the
  window of gradients grows in training, `segments_BT` unless documents are
  packed into rows.
  """

  inputs_BT: Inputs
  labels_BT: Labels
  keys_B: Any
  depth_B: Any
  puzzles_B: Any = None
  free_B: Any = None
  segments_BT: Any = None


class Terms(NamedTuple):
  """What a loss found out about its rows.

  Attributes:
    loss_B: sum over scored positions.
    extra_B: what a row adds besides, or 0.
    logits_BTV: the answer that is scored.
    steps_B: recurrences made, or expected, per row or token.
    residual_B: relative residual at the end, per row or token.
  """

  loss_B: Float[Array, ' B']
  extra_B: Array
  logits_BTV: Float[Array, 'B T V']
  steps_B: Array
  residual_B: Array


def token_loss(
  logits_BTV: Float[Array, 'B T V'], labels_BT: Labels
) -> Float[Array, 'B T']:
  """Cross-entropy, float32; zero where nothing is scored.

  Of real labels y it is (y' - y)^2 with the one logit y'.
  """
  scored_BT = labels_BT != IGNORE
  if is_real(labels_BT):
    error_BT = logits_BTV[..., 0].astype(jnp.float32) - labels_BT
    return jnp.where(scored_BT, error_BT**2, 0.0)
  losses_BT = optax.softmax_cross_entropy_with_integer_labels(
    logits_BTV.astype(jnp.float32), jnp.where(scored_BT, labels_BT, 0)
  )
  return jnp.where(scored_BT, losses_BT, 0.0)


def is_real(labels_BT: Labels) -> bool:
  """Whether labels are numbers, not tokens."""
  return jnp.issubdtype(labels_BT.dtype, jnp.floating)


def row_loss(
  logits_BTV: Float[Array, 'B T V'], labels_BT: Labels
) -> Float[Array, ' B']:
  """Sum over scored positions of their loss, float32."""
  return jnp.sum(token_loss(logits_BTV, labels_BT), -1)


def scored_count(labels_BT: Labels) -> Float[Array, '']:
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
  terms: Terms = LOSSES[objective.name](model, batch, objective)
  loss = jnp.sum(terms.loss_B) / positions + jnp.sum(terms.extra_B) / rows
  finite_residual_B = jnp.where(
    jnp.isfinite(terms.residual_B), terms.residual_B, 0.0
  )
  return loss, {
    'loss': loss,
    **_scores(terms.logits_BTV, batch.labels_BT, positions, rows),
    'mean_steps': jnp.sum(_per_sample(terms.steps_B)) / rows,
    'residual': jnp.sum(_per_sample(finite_residual_B)) / rows,
  }


def _scores(logits_BTV, labels_BT, positions, rows):
  """Shares of right tokens and rows; of real labels the error of the answer."""
  if is_real(labels_BT):
    loss_B = row_loss(logits_BTV, labels_BT)
    return {'squared_error': jnp.sum(loss_B) / positions}
  right_BT = jnp.argmax(logits_BTV, -1) == labels_BT
  scored_BT = labels_BT != IGNORE
  exact_B = jnp.all(right_BT | ~scored_BT, -1)
  return {
    'token_accuracy': jnp.sum(right_BT & scored_BT) / positions,
    'exact_accuracy': jnp.sum(exact_B) / rows,
  }


def _per_sample(rows_B):
  """Means over tokens, where tokens are the rows."""
  return rows_B if rows_B.ndim == 1 else jnp.mean(rows_B, -1)


def _terms(loss_B, extra_B, logits_BTV, result):
  return Terms(loss_B, extra_B, logits_BTV, result.steps_B, result.residual_B)


def _run(model, batch, objective, trace=None):
  return run(
    model,
    batch.inputs_BT,
    objective.plan,
    keys_B=batch.keys_B,
    puzzles_B=batch.puzzles_B,
    segments_BT=batch.segments_BT,
    trace=trace,
  )


def _last(model, batch, objective):
  """The loss where the loop ends; ACT adds tau (N + R) per row."""
  result, context = _run(model, batch, objective)
  logits_BTV = output_logits(model, result, context)
  extra_B = jnp.zeros(())
  if holds_act(result):
    extra_B = objective.ponder_weight * _per_sample(ponder_cost(result))
  loss_B = row_loss(logits_BTV, batch.labels_BT)
  return _terms(loss_B, extra_B, logits_BTV, result)


def _traced(model, batch, objective):
  """Runs the loop with the loss of every recurrence, states not kept."""

  def trace(state, args, info):
    del info
    return row_loss(args[0].readout(state, args[1]), batch.labels_BT)

  return _run(model, batch, objective, trace)


def _every(model, batch, objective):
  """Mean of the loss over the recurrences of each row that have a gradient."""
  result, context = _traced(model, batch, objective)
  logits_BTV = model.readout(result.state, context)
  live_RB = result.trace.live_RB
  if live_RB.ndim == 3:
    live_RB = jnp.any(live_RB, -1)
  count_B = jnp.maximum(jnp.sum(live_RB, 0), 1)
  loss_B = jnp.sum(jnp.where(live_RB, result.trace.values, 0.0), 0) / count_B
  return _terms(loss_B, jnp.zeros(()), logits_BTV, result)


def _expected(model, batch, objective):
  """sum_n p_n L_n + beta KL(p || geometric) (arXiv:2107.05407, eq. 5)."""
  result, context = _traced(model, batch, objective)
  weight_RB = result.trace.weight_RB
  loss_B = jnp.sum(weight_RB * result.trace.values, 0)
  kl_B = kl_to_geometric(weight_RB, objective.prior)
  logits_BTV = model.readout(result.mixed, context)
  return _terms(loss_B, objective.ponder_weight * kl_B, logits_BTV, result)


def _expected_exit(model, batch, objective):
  """Ouro's stage one; the steps are those the gate expects."""

  def trace(state, args, info):
    del info
    logits_BTV = args[0].readout(state, args[1])
    hazard_BT = objective.exit_head(state, args)
    return token_loss(logits_BTV, batch.labels_BT), hazard_BT

  result, context = _run(model, batch, objective, trace)
  loss_RBT, hazard_RBT = result.trace.values
  share_RBT = exit_gate.exit_shares(hazard_RBT)
  loss_BT = exit_gate.expected_loss(loss_RBT, share_RBT, objective.exit_gate)
  return _gated_terms(model, batch, result, context, loss_BT, share_RBT)


def _exit_gate(model, batch, objective):
  """Ouro's stage two: the loop runs without gradients, the gate with."""

  def trace(state, args, info):
    del info
    logits_BTV = args[0].readout(state, args[1])
    return token_loss(logits_BTV, batch.labels_BT), state

  plan = objective.plan._replace(adjoint=adjoints.none())
  blind = jax.lax.stop_gradient(model)
  result, context = _run(blind, batch, objective._replace(plan=plan), trace)
  loss_RBT, state_R = result.trace.values
  head = lambda state: objective.exit_head(state, (model, context))
  hazard_RBT = jax.vmap(head)(state_R)
  loss_BT = exit_gate.gate_loss(loss_RBT, hazard_RBT, objective.exit_gate)
  share_RBT = exit_gate.exit_shares(hazard_RBT)
  return _gated_terms(blind, batch, result, context, loss_BT, share_RBT)


def _gated_terms(model, batch, result, context, loss_BT, share_RBT):
  """Terms of a loss per token; the answer is that of the last recurrence."""
  scored_BT = batch.labels_BT != IGNORE
  loss_B = jnp.sum(jnp.where(scored_BT, loss_BT, 0.0), -1)
  steps_BT = expected_steps(jax.lax.stop_gradient(share_RBT))
  logits_BTV = model.readout(result.state, context)
  zero = jnp.zeros(())
  return Terms(loss_B, zero, logits_BTV, steps_BT, result.residual_B)


LOSSES: Mapping[str, Callable[..., Terms]] = {
  'last': _last,
  'every': _every,
  'expected': _expected,
  'expected_exit': _expected_exit,
  'exit_gate': _exit_gate,
}
