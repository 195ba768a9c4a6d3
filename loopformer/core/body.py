"""One masked recurrence: the body that both drivers share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from loopformer.core import rows
from loopformer.core.halting import as_cause
from loopformer.core.types import (
  Cause,
  HaltRule,
  LoopCarry,
  LoopInfo,
  Seen,
  Solver,
  StepFn,
  Trace,
)

PyTree = Any


class Loop(NamedTuple):
  """What stays the same over a loop: the map, the choices, the arguments."""

  step: StepFn
  args: PyTree
  halt: HaltRule
  solver: Solver
  norm: rows.Norm
  row_ndim: int
  keys_B: Any
  trace: Callable[[PyTree, PyTree, LoopInfo], PyTree] | None
  axes: tuple[str, ...] = ()


def start(loop: Loop, state: PyTree) -> LoopCarry:
  """The carry before the first recurrence."""
  shape = rows.row_shape(state, loop.row_ndim)
  dtypes = [leaf.dtype for leaf in rows.float_leaves(state)]
  if not dtypes:
    raise ValueError('state must hold a floating-point array, got none.')
  real = jnp.result_type(jnp.float32, *dtypes)
  steps_B = jnp.zeros(shape, jnp.int32)
  residual_B = jnp.full(shape, jnp.inf, real)
  live_B = jnp.ones(shape, bool)
  info = LoopInfo(jnp.int32(0), steps_B, live_B, _step_keys(loop, steps_B))
  solver = loop.solver.init(state, loop.row_ndim)
  seen = Seen(state, state, state, residual_B, loop.args, info, solver)
  rule = loop.halt.init(seen)
  mixed = weight_B = None
  if jax.eval_shape(loop.halt.update, rule, seen)[2] is not None:
    weight_B = jnp.zeros(shape, jnp.float32)
    mixed = jax.tree.map(lambda x: jnp.zeros(x.shape, _wide(x)), state)
  return LoopCarry(
    t=jnp.int32(0),
    state=state,
    solver=solver,
    rule=rule,
    steps_B=steps_B,
    cause_B=jnp.zeros(shape, jnp.int32),
    residual_B=residual_B,
    mixed=mixed,
    weight_B=weight_B,
  )


def live_rows(carry: LoopCarry, bound_B: Any) -> Array:
  """Rows with no cause to stop that have made fewer than `bound_B` steps."""
  live_B = carry.cause_B == Cause.LIVE
  return live_B if bound_B is None else live_B & (carry.steps_B < bound_B)


def apply(
  loop: Loop, state: PyTree, aux: PyTree, args: PyTree, info: LoopInfo
) -> tuple[PyTree, PyTree]:
  """f(z) in the dtypes of z, and what the step made of `aux`."""
  mapped, aux = loop.step(state, aux, args, info)
  return jax.tree.map(lambda m, o: m.astype(o.dtype), mapped, state), aux


def info_at(loop: Loop, carry: LoopCarry, live_B: Array) -> LoopInfo:
  """What a step at this carry is told."""
  keys_B = _step_keys(loop, carry.steps_B)
  return LoopInfo(carry.t, carry.steps_B, live_B, keys_B)


def settle(loop: Loop, carry: LoopCarry, aux: PyTree) -> tuple[PyTree, Array]:
  """The result and its residual: the last iterate, or a better one before."""
  if loop.solver.best is None:
    return carry.state, carry.residual_B
  info = info_at(loop, carry, jnp.zeros(carry.steps_B.shape, bool))
  mapped, _ = apply(loop, carry.state, aux, loop.args, info)
  last_B = loop.norm.ratio(mapped, carry.state, loop.row_ndim)
  best, best_B = loop.solver.best(carry.solver)
  wins_B = last_B < best_B
  state = rows.select(wins_B, carry.state, best)
  return state, jax.lax.stop_gradient(jnp.where(wins_B, last_B, best_B))


def advance(
  loop: Loop, carry: LoopCarry, aux: PyTree, bound_B: Any
) -> tuple[LoopCarry, PyTree, Trace]:
  """z <- solver(z, f(z)) for live rows; all else is kept bit for bit."""
  live_B = live_rows(carry, bound_B)
  info = info_at(loop, carry, live_B)
  old = carry.state
  mapped, aux = apply(loop, old, aux, loop.args, info)
  # A residual only decides. Its gradient would cost the memory of a state per
  # step, and is not a number where f(z) = 0.
  residual_B = loop.norm.ratio(
    *jax.lax.stop_gradient((mapped, old)), loop.row_ndim
  )
  solver, new = loop.solver.update(carry.solver, old, mapped, residual_B)
  seen = Seen(old, new, mapped, residual_B, loop.args, info, solver)
  rule, halt_B, weight_B = loop.halt.update(carry.rule, seen)
  finite_B = rows.is_finite(mapped, loop.row_ndim)
  finite_B &= rows.is_finite(new, loop.row_ndim)
  keep_B = live_B & finite_B
  cause_B = jnp.where(
    finite_B, as_cause(loop.halt, halt_B), jnp.int32(Cause.NON_FINITE)
  )
  kept = rows.select(
    keep_B,
    (new, solver, rule, residual_B.astype(carry.residual_B.dtype)),
    (old, carry.solver, carry.rule, carry.residual_B),
  )
  next_carry = LoopCarry(
    carry.t + 1,
    kept[0],
    kept[1],
    kept[2],
    carry.steps_B + keep_B,
    jnp.where(live_B, cause_B, carry.cause_B),
    kept[3],
    carry.mixed,
    carry.weight_B,
  )
  next_carry, share_B = _mix(next_carry, weight_B, keep_B, live_B)
  return next_carry, aux, record(loop, next_carry, info, share_B)


def _mix(carry, weight_B, keep_B, live_B):
  """Adds w z to the mixed output; a row that just stopped gets the rest.

  No share exceeds what is left, so the weights stay in [0, 1] under a rule
  that is kept from stopping.
  """
  if weight_B is None:
    return carry, None
  left_B = 1 - carry.weight_B
  stopped_B = (carry.cause_B != Cause.LIVE) & (carry.cause_B != Cause.CAP)
  takes_rest_B = stopped_B | ~keep_B | (weight_B > left_B)
  share_B = jnp.where(takes_rest_B, left_B, weight_B.astype(left_B.dtype))
  share_B = jnp.where(live_B, share_B, 0.0)
  carry = carry._replace(weight_B=carry.weight_B + share_B)
  return carry._replace(mixed=add_share(carry, share_B)), share_B


def add_share(carry: LoopCarry, share_B: Array) -> PyTree:
  """mixed + share * state, at least in float32."""

  def add(total, z):
    return total + rows.expand(share_B, z) * z.astype(total.dtype)

  return jax.tree.map(add, carry.mixed, carry.state)


def record(
  loop: Loop, carry: LoopCarry, info: LoopInfo, share_B: Array | None
) -> Trace:
  """One entry of the trace."""
  values = ()
  if loop.trace is not None:
    values = loop.trace(carry.state, loop.args, info)
  return Trace(values, info.live_B, carry.residual_B, share_B)


def _wide(x):
  return jnp.promote_types(x.dtype, jnp.float32)


def _step_keys(loop, steps_B):
  if loop.keys_B is None:
    return None
  return rows.fold_rows(loop.keys_B, steps_B)
