"""The loop: apply a step until each row stops."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from loopformer.core import adjoints, body, rows, solvers
from loopformer.core.types import (
  Cause,
  HaltRule,
  LoopCarry,
  LoopInfo,
  LoopResult,
  Solver,
  StepFn,
)

PyTree = Any


def iterate(
  step: StepFn,
  state: PyTree,
  args: PyTree,
  *,
  halt: HaltRule,
  max_steps: Any,
  adjoint: adjoints.Adjoint | None = None,
  solver: Solver | None = None,
  aux: PyTree = (),
  carry: LoopCarry | None = None,
  keys: Any = None,
  norm: str = 'l2',
  row_ndim: int = 1,
  trace: Callable[[PyTree, PyTree, LoopInfo], PyTree] | None = None,
  axes: tuple[str, ...] = (),
) -> LoopResult:
  """z <- solver(z, f(z)) row by row, until `halt` or `max_steps`.

  f(z) is `step(state, aux, args, info) -> (state, aux)`. A row that has
  stopped is frozen bit for bit, and so are its solver and rule state. `aux`
  is never masked: the step writes it itself, for `info.live_B` rows. A row
  whose next state is not finite keeps its last finite one and stops.

  Args:
    step: one recurrence; `args` must hold all it differentiates.
    state: initial state, any tree of arrays with the row axes in front.
    args: model and context.
    halt: when a row stops.
    max_steps: cap on the recurrences of this call; may be traced unless the
      adjoint scans over all of them.
    adjoint: how to differentiate, `full()` by default; `none()` ends with the
      last live row.
    solver: how to iterate; `picard()` by default.
    aux: what the step threads through.
    carry: the carry of an earlier result: continue there, with `state`
      ignored. r steps and then s more are r + s steps.
    keys: one key per row; the step gets them folded with the row's step.
    norm: norm of the reported relative residual, see `rows.NORMS`.
    row_ndim: number of row axes: 1 to halt per sample, 2 per token.
    trace: `(state, args, info) -> tree`, recorded after every recurrence the
      adjoint runs with gradient (`none`, `implicit`: all of them).
    axes: mesh axes of a `shard_map` over which a `while_loop` ends together.

  Raises:
    ValueError: if `max_steps` is negative, or the state has no common rows or
      no floating-point array.
  """
  if isinstance(max_steps, int) and max_steps < 0:
    raise ValueError(f'max_steps must be >= 0, got {max_steps}.')
  state = jax.tree.map(jnp.asarray, state)
  solver = solvers.picard() if solver is None else solver
  measure = rows.norm_of(norm)
  choices = halt, solver, measure, row_ndim, keys, trace, axes
  loop = body.Loop(step, args, *choices)
  carry = body.start(loop, state) if carry is None else _resume(carry)
  adjoint = adjoints.full() if adjoint is None else adjoint
  outcome, settled = adjoint(loop, carry, aux, max_steps)
  return _finish(loop, *outcome, *settled)


def _resume(carry: LoopCarry) -> LoopCarry:
  """Rows that only ran out of steps go on."""
  capped_B = carry.cause_B == Cause.CAP
  cause_B = jnp.where(capped_B, jnp.int32(Cause.LIVE), carry.cause_B)
  return carry._replace(cause_B=cause_B)


def _finish(loop, carry, aux, record, state, residual_B) -> LoopResult:
  live_B = carry.cause_B == Cause.LIVE
  mixed = None
  if carry.mixed is not None:
    left_B = 1 - carry.weight_B
    mixed = body.add_share(carry, left_B)
    record = _close_weights(record, left_B)
  return LoopResult(
    state=state,
    mixed=mixed,
    steps_B=carry.steps_B,
    cause_B=jnp.where(live_B, jnp.int32(Cause.CAP), carry.cause_B),
    residual_B=residual_B,
    aux=aux,
    trace=record if loop.trace is not None else None,
    carry=carry,
  )


def _close_weights(record, left_B):
  """Gives what is left to one to the last recurrence a row made."""
  if record is None:
    return None
  last_RB = record.live_RB & ~_later(record.live_RB)
  weight_RB = record.weight_RB + jnp.where(last_RB, left_B, 0.0)
  return record._replace(weight_RB=weight_RB)


def _later(live_RB):
  """Whether a row is live at any later step."""
  after = jnp.flip(jnp.cumsum(jnp.flip(live_RB, 0), 0), 0) - live_RB
  return after > 0
