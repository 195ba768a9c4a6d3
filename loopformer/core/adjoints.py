"""How a loop is differentiated.

An adjoint runs the loop with the gradient rule it stands for:
`(loop, carry, aux, max_steps) -> ((carry, aux, trace), (state, residual_B))`.
The values are those of the plain loop; only `phantom` moves the resulting
state, by its k damped steps, and leaves the carry where the loop ended.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from loopformer.core import rows, solvers
from loopformer.core.body import Loop, apply, info_at, live_rows, settle, start
from loopformer.core.drivers import Outcome, run_scan, run_while
from loopformer.core.halting import fixed_point, fixed_steps
from loopformer.core.types import Cause, LoopCarry, Solver

Adjoint = Callable[[Loop, LoopCarry, Any, Any], tuple[Outcome, tuple]]


def none() -> Adjoint:
  """No gradient: a `while_loop` that ends when the last row has stopped."""

  def run(loop, carry, aux, max_steps):
    outcome = run_while(loop, carry, aux, max_steps, loop.halt.count)
    return _settled(loop, outcome)

  return run


def full(*, remat: int = 0, unroll: int = 1) -> Adjoint:
  """Back-propagation through every recurrence.

  Args:
    remat: 0 stores everything, 1 recomputes every recurrence in the backward
      pass from its carry, k > 1 stores only every k-th carry.
    unroll: recurrences per turn of the compiled loop. More than one compiles
      longer and, on CPU, runs up to a tenth faster.
  """
  _check_remat(remat)
  if unroll < 1:
    raise ValueError(f'unroll must be >= 1, got {unroll}.')

  def run(loop, carry, aux, max_steps):
    if not isinstance(max_steps, int):
      raise ValueError(
        f'max_steps must be a plain int for the full adjoint, got {max_steps}.'
      )
    bound_B = loop.halt.count
    outcome = run_scan(
      loop, carry, aux, max_steps, bound_B, remat=remat, unroll=unroll
    )
    return _settled(loop, outcome)

  return run


def last_k(k: int, *, free_steps: Any = None, remat: int = 0) -> Adjoint:
  """Back-propagation through the last k recurrences of every row.

  Each row makes n recurrences in a `while_loop` under stop-gradient, whose
  bound may be traced, and then up to k in a scan. n is `free_steps` (a number
  or one per row) if given; else the row's total less k. The total is known
  beforehand under a counting rule, with one count per row if depths were
  sampled; under any other rule it is found by a first, gradient-free run.
  A row with n = 0 passes its gradient on to the initial state.

  Args:
    k: recurrences with gradient at most.
    free_steps: n, gradient-free recurrences.
    remat: as for `full`, within the k.
  """
  if k < 1:
    raise ValueError(f'k must be >= 1, got {k}.')
  _check_remat(remat)

  def run(loop, carry, aux, max_steps):
    detached = jax.lax.stop_gradient(loop.args)
    blind = loop._replace(args=detached, trace=None)
    cut = jax.lax.stop_gradient((carry, aux))
    total_B, cause_B = _total_steps(blind, *cut, max_steps)
    free_B = total_B - k if free_steps is None else carry.steps_B + free_steps
    free_B = jnp.clip(free_B, carry.steps_B, total_B)
    ahead, aux, _ = run_while(blind, *cut, max_steps, free_B)
    ahead, aux = jax.lax.stop_gradient((ahead, aux))
    untouched_B = free_B == carry.steps_B
    state = rows.select(untouched_B, carry.state, ahead.state)
    ahead = ahead._replace(state=state)
    length = min(k, max_steps) if isinstance(max_steps, int) else k
    end, aux, trace = run_scan(loop, ahead, aux, length, total_B, remat=remat)
    # The step at which a row fails, found ahead, is not made again.
    over_B = (end.cause_B == Cause.LIVE) & (end.steps_B == total_B)
    end = end._replace(cause_B=jnp.where(over_B, cause_B, end.cause_B))
    return _settled(loop, (end, aux, trace))

  return run


def one_step(*, remat: int = 0) -> Adjoint:
  """Back-propagation through the last recurrence only.

  The one-step gradient of HRM (arXiv:2506.21734, eq. 4) and of Jacobian-free
  back-propagation (arXiv:2103.12803).
  """
  return last_k(1, remat=remat)


def implicit(
  *,
  rtol: float | None = None,
  max_steps: int = 100,
  solver: Solver | None = None,
  remat: int = 0,
) -> Adjoint:
  """The gradient of a fixed point z* = f(z*, args) by the implicit theorem.

  u = v + (df/dz)^T u is solved at z* for the cotangent v, then the arguments
  receive (df/dargs)^T u (DEQ, arXiv:1909.01377, theorem 1). Memory does not
  depend on the number of recurrences; the initial state gets no gradient.

  Args:
    rtol: relative tolerance of the backward solve per row; by default ten
      units of the state's precision.
    max_steps: cap of the backward solve.
    solver: its solver; Picard by default.
    remat: nonzero recomputes f's internals in every backward iteration.
  """
  _check_remat(remat)
  solver = solvers.picard() if solver is None else solver

  def run(loop, carry, aux, steps):
    outcome, (state, residual_B) = _solve(loop, carry, aux, steps)
    carry, aux, _ = outcome

    def call(moving, args, rest):
      like, aux, info = rest
      like = rows.with_float_leaves(like, moving)
      return rows.float_leaves(apply(loop, like, aux, args, info)[0])

    attach = _attach_implicit(
      jax.checkpoint(call) if remat else call,
      loop._replace(solver=solver, trace=None),
      rtol,
      max_steps,
    )
    info = info_at(loop, carry, jnp.ones(carry.steps_B.shape, bool))
    moving = rows.float_leaves(state)
    moving = attach(moving, loop.args, (state, aux, info))
    return outcome, (rows.with_float_leaves(state, moving), residual_B)

  return run


def phantom(k: int, tau: float, *, remat: int = 0) -> Adjoint:
  """Phantom gradient: k damped steps from the detached fixed point.

  z <- (1 - tau) z + tau f(z), differentiated (arXiv:2111.05177, eq. 6). With
  tau = 1 the gradient is the Neumann sum of k terms. The k steps are made by
  every finite row and are not counted in `steps_B`.
  """
  if k < 1:
    raise ValueError(f'k must be >= 1, got {k}.')
  if not 0 < tau <= 1:
    raise ValueError(f'tau must be in (0, 1], got {tau}.')
  _check_remat(remat)
  damping = solvers.damped(tau)

  def run(loop, carry, aux, max_steps):
    outcome, (state, residual_B) = _solve(loop, carry, aux, max_steps)
    carry, aux, _ = outcome
    tail = loop._replace(solver=damping, halt=fixed_steps(), trace=None)
    begin = start(tail, state)
    failed_B = carry.cause_B == Cause.NON_FINITE
    begin = begin._replace(
      steps_B=carry.steps_B,
      t=carry.t,
      cause_B=jnp.where(failed_B, carry.cause_B, begin.cause_B),
    )
    end, _, _ = run_scan(tail, begin, aux, k, None, remat=remat)
    return outcome, (end.state, residual_B)

  return run


def _check_remat(remat):
  if remat < 0:
    raise ValueError(f'remat must be >= 0, got {remat}.')


def _settled(loop, outcome):
  return outcome, settle(loop, *outcome[:2])


def _total_steps(loop, carry, aux, max_steps):
  """Steps each row will have made at the end, and why if that is known."""
  cap_B = carry.steps_B + max_steps
  if not loop.halt.counts_only:
    end, _, _ = run_while(loop, carry, aux, max_steps, loop.halt.count)
    return end.steps_B, end.cause_B
  if loop.halt.count is not None:
    cap_B = jnp.minimum(cap_B, loop.halt.count)
  live_B = live_rows(carry, loop.halt.count)
  return jnp.where(live_B, cap_B, carry.steps_B), carry.cause_B


def _solve(loop, carry, aux, max_steps):
  """The loop without gradients."""
  if carry.mixed is not None:
    raise ValueError(
      'halt must not weigh states where only the fixed point has a gradient.'
    )
  blind = loop._replace(args=jax.lax.stop_gradient(loop.args))
  cut = jax.lax.stop_gradient((carry, aux))
  outcome = run_while(blind, *cut, max_steps, loop.halt.count)
  return jax.lax.stop_gradient(_settled(blind, outcome))


def _attach_implicit(call, loop, rtol, max_steps):
  """Identity on z* whose cotangent goes to `args` by the implicit theorem.

  The backward loop stops by sample even where tokens are rows: a token that no
  cotangent has reached yet stands still without being at its fixed point.
  """

  @jax.custom_vjp
  def attach(state, args, rest):
    del args, rest
    return state

  def forward(state, args, rest):
    return state, (state, args, rest)

  def backward(saved, v):
    state, args, rest = saved
    _, pull_state = jax.vjp(lambda z: call(z, args, rest), state)

    def step(u, aux, _, info):
      del info
      return jax.tree.map(jnp.add, v, pull_state(u)[0]), aux

    tolerance = _tolerance(v) if rtol is None else rtol
    adjoint_loop = loop._replace(
      step=step,
      args=(),
      halt=fixed_point(tolerance),
      keys_B=None,
      row_ndim=1,
    )
    begin = start(adjoint_loop, v)
    carry, _, _ = run_while(adjoint_loop, begin, (), max_steps, None)
    u = carry.state
    _, pull_args = jax.vjp(lambda a: call(state, a, rest), args)
    return None, pull_args(u)[0], None

  attach.defvjp(forward, backward)
  return attach


def _tolerance(tree):
  eps = max(float(jnp.finfo(x.dtype).eps) for x in rows.float_leaves(tree))
  return 10 * eps
