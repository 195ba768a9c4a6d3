"""Two drivers of one body: `scan` when gradients are needed, else `while`."""

from typing import Any

import jax
import jax.numpy as jnp

from loopformer.core.body import Loop, advance, info_at, live_rows, record
from loopformer.core.rows import expand
from loopformer.core.types import LoopCarry, Trace

PyTree = Any
Outcome = tuple[LoopCarry, PyTree, Trace | None]


def run_while(
  loop: Loop, carry: LoopCarry, aux: PyTree, max_steps: Any, bound_B: Any
) -> Outcome:
  """Runs until no row is live or `max_steps` (may be traced) are made.

  Not differentiable. With a trace function `max_steps` must be a plain int:
  its records go into buffers of that length.
  """
  first = carry.t
  buffers = None
  if loop.trace is not None:
    if not isinstance(max_steps, int):
      raise ValueError('max_steps must be a plain int to keep a trace.')
    buffers = _buffers(loop, carry, max_steps)
    if max_steps == 0:
      return carry, aux, buffers

  def more(carry):
    left = (carry.t - first < max_steps) & jnp.any(live_rows(carry, bound_B))
    if loop.axes:
      # Devices that must meet inside a step leave the loop together.
      left = jax.lax.pmax(left.astype(jnp.int32), loop.axes) > 0
    return left

  def body(loop_state):
    carry, aux, buffers, _ = loop_state
    index = carry.t - first
    carry, aux, entry = advance(loop, carry, aux, bound_B)
    if buffers is not None:
      buffers = jax.tree.map(
        lambda b, e: jax.lax.dynamic_update_index_in_dim(b, e, index, 0),
        buffers,
        entry,
      )
    return carry, aux, buffers, more(carry)

  carry, aux, buffers, _ = jax.lax.while_loop(
    lambda loop_state: loop_state[-1], body, (carry, aux, buffers, more(carry))
  )
  if buffers is not None:
    buffers = _repeat_last(buffers, carry.t - first)
  return carry, aux, buffers


def _buffers(loop, carry, max_steps):
  """Room for the trace; all of it holds if no row is live to begin with."""
  frozen_B = jnp.zeros(carry.steps_B.shape, bool)
  share_B = None if carry.weight_B is None else jnp.zeros_like(carry.weight_B)
  entry = record(loop, carry, info_at(loop, carry, frozen_B), share_B)
  return jax.tree.map(
    lambda e: jnp.broadcast_to(e, (max_steps,) + e.shape), entry
  )


def _repeat_last(trace, made):
  """Fills the unused entries as scan would: the frozen rows, once more."""
  index_R = jnp.arange(trace.live_RB.shape[0])
  used_R = index_R < made
  held_R = jnp.clip(index_R, 0, jnp.maximum(made - 1, 0))
  values, residual_RB = jax.tree.map(
    lambda x: x[held_R], (trace.values, trace.residual_RB)
  )

  def blank(x):
    return jnp.where(expand(used_R, x), x, jnp.zeros_like(x))

  live_RB, weight_RB = jax.tree.map(blank, (trace.live_RB, trace.weight_RB))
  return Trace(values, live_RB, residual_RB, weight_RB)


def run_scan(
  loop: Loop,
  carry: LoopCarry,
  aux: PyTree,
  length: int,
  bound_B: Any,
  *,
  remat: int = 0,
  unroll: int = 1,
) -> Outcome:
  """Makes `length` masked recurrences; differentiable.

  Args:
    loop: the loop.
    carry: where it stands.
    aux: what the step threads through.
    length: recurrences, a plain int.
    bound_B: steps at which a row is frozen, or None.
    remat: 0 stores what every recurrence computed; k > 0 stores the carry of
      every k-th one and recomputes the rest in the backward pass.
    unroll: recurrences per turn of the compiled loop.
  """

  def body(state, _):
    carry, aux, record = advance(loop, *state, bound_B)
    return (carry, aux), record

  def run(state, steps):
    return jax.lax.scan(
      body, state, length=steps, unroll=max(1, min(unroll, steps))
    )

  if remat == 0:
    (carry, aux), trace = run((carry, aux), length)
    return carry, aux, trace
  chunk = jax.checkpoint(run, prevent_cse=False, static_argnums=1)
  count, rest = divmod(length, remat)
  state, trace = jax.lax.scan(
    lambda s, _: chunk(s, remat), (carry, aux), length=count
  )
  trace = jax.tree.map(
    lambda x: x.reshape((count * remat,) + x.shape[2:]), trace
  )
  if rest:
    state, tail = chunk(state, rest)
    trace = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), trace, tail)
  carry, aux = state
  return carry, aux, trace
