"""Deep supervision with a carry that outlives the optimiser step.

Every optimiser step advances all rows in flight by one segment, scores them
and cuts the gradient at the segment's start. A row that has halted gives its
slot to the next row of the incoming batch; the others keep their own data, and
the rows offered to them are dropped (HRM, arXiv:2506.21734, and successors).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from loopformer import core
from loopformer.core.compact import select_rows
from loopformer.nn.losses import CROSS_ENTROPIES
from loopformer.nn.q_learning import Supervised
from loopformer.tasks import IGNORE
from loopformer.train.objectives import Batch
from loopformer.zoo.family import Family, Plan, begin, embed, step


class Held(NamedTuple):
  """The rows in flight: their data and their loop, rows in front."""

  batch: Batch
  loop: core.LoopCarry


class Supervision(NamedTuple):
  """How segments are run and scored.

  Attributes:
    family: entry of the model's family.
    plan: `max_steps` is the most recurrences of a row, over all its segments.
    segment: recurrences per optimiser step.
    cross_entropy: a key of `CROSS_ENTROPIES`.
  """

  family: Family
  plan: Plan
  segment: int
  cross_entropy: str

  def rule(self) -> core.HaltRule:
    """When a row's slot becomes free."""
    plan = self.plan
    return core.any_of(plan.halt, core.fixed_steps(plan.max_steps))

  def iterate(self, model, batch, context, state, carry, steps, rule=None):
    """Up to `steps` more recurrences of the rows."""
    plan = self.plan
    return core.iterate(
      step,
      state,
      (model, context),
      halt=self.rule() if rule is None else rule,
      max_steps=steps,
      adjoint=plan.adjoint,
      solver=plan.solver,
      carry=carry,
      keys=batch.keys_B,
      norm=plan.norm,
    )


def fresh(how: Supervision, model: Any, batch: Batch) -> Held:
  """Rows before their first recurrence."""
  state, context = begin(
    model, batch.inputs_BT, batch.keys_B, puzzles_B=batch.puzzles_B
  )
  result = how.iterate(model, batch, context, state, None, 0)
  return Held(batch, jax.lax.stop_gradient(result.carry))


def idle(held: Held) -> Held:
  """The same with every slot free."""
  stopped_B = jnp.full_like(held.loop.cause_B, jnp.int32(core.Cause.CAP))
  return held._replace(loop=held.loop._replace(cause_B=stopped_B))


def refill(how: Supervision, model: Any, held: Held, batch: Batch) -> Held:
  """Puts rows of the batch into the slots of rows that have stopped."""
  free_B = held.loop.cause_B != core.Cause.LIVE
  return select_rows(free_B, fresh(how, model, batch), held)


def supervise(
  how: Supervision, model: Any, puzzle_rows_BE: Any, held: Held, rows: Any
) -> tuple[Array, tuple[Held, Mapping[str, Array]]]:
  """One segment: the rows' share of the loss, the rows after it, metrics.

  The loss is the sum over rows of the mean cross-entropy of their labelled
  cells and of the family's own terms, over the `rows` of the whole batch.
  """
  batch, before = held
  context = embed(model, batch.inputs_BT, puzzle_rows_BE)
  carry = jax.lax.stop_gradient(before)
  result = how.iterate(model, batch, context, carry.state, carry, how.segment)
  logits_BTV = model.readout(result.state, context)
  loss_B = CROSS_ENTROPIES[how.cross_entropy](logits_BTV, batch.labels_BT)
  right_BT, scored_BT = _right(logits_BTV, batch.labels_BT)
  exact_B = jnp.all(right_BT | ~scored_BT, -1)
  if how.family.terms is not None:
    seen = Supervised(
      result.state,
      exact_B,
      result.steps_B >= how.plan.max_steps,
      lambda: _ahead(how, model, batch, context, result.carry),
    )
    loss_B = loss_B + how.family.terms(model, seen)
  loss = jnp.sum(loss_B) / rows
  cells = jnp.maximum(jnp.sum(scored_BT, -1), 1)
  per_row = {
    'token_accuracy': jnp.sum(right_BT & scored_BT, -1) / cells,
    'exact_accuracy': exact_B,
    'mean_steps': result.steps_B,
    'residual': jnp.where(
      jnp.isfinite(result.residual_B), result.residual_B, 0
    ),
    'halted': result.carry.cause_B != core.Cause.LIVE,
  }
  sums = {name: jnp.sum(x) / rows for name, x in per_row.items()}
  after = Held(batch, jax.lax.stop_gradient(result.carry))
  return loss, (after, {'loss': loss, **sums})


def _right(logits_BTV, labels_BT):
  right_BT = jnp.argmax(logits_BTV, -1) == labels_BT
  return right_BT, labels_BT != IGNORE


def _ahead(how, model, batch, context, carry):
  """The state one segment later, without a gradient.

  Rows that have stopped go on, too, for a recurrence at least: without its
  bound a rule looks at a row only after it has moved.
  """
  model, context, carry = jax.lax.stop_gradient((model, context, carry))
  carry = carry._replace(cause_B=jnp.full_like(carry.cause_B, core.Cause.LIVE))
  rule = how.rule()._replace(count=None)
  result = how.iterate(
    model, batch, context, carry.state, carry, how.segment, rule
  )
  return result.state
