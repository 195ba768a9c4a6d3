"""When a row stops: counts, fixed points of the state, and combinations."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from loopformer.core.rows import float_leaves, norm_of
from loopformer.core.solvers import PatienceState
from loopformer.core.types import Cause, HaltRule, Seen


def stateless(update: Callable[[Seen], Array], **fields: Any) -> HaltRule:
  """A rule without memory: `update(seen) -> halt_B`."""
  return HaltRule(
    lambda _: (), lambda s, seen: (s, update(seen), None), **fields
  )


def fixed_steps(count: Any = None) -> HaltRule:
  """Stops each row after `count` recurrences: a number, or one per row.

  None never stops a row: the loop runs to its cap. A row that a count has
  stopped can be continued, as one that ran into the cap.

  Raises:
    ValueError: if a count known in advance is negative.
  """
  if isinstance(count, int) and count < 0:
    raise ValueError(f'count must be >= 0, got {count}.')

  def update(seen):
    if count is None:
      return jnp.zeros_like(seen.info.live_B)
    return seen.info.steps_B + 1 >= count

  return stateless(update, cause=Cause.CAP, count=count, counts_only=True)


def fixed_point(
  rtol: float = 0.0,
  *,
  atol: float = 0.0,
  norm: str = 'l2',
  patience: int = 1,
) -> HaltRule:
  """Stops a row whose state has stopped moving.

  Converged once ||f(z) - z|| <= atol + rtol ||f(z)||, f being the undamped
  map, at `patience` recurrences in a row. Norms are taken in float32 or wider.

  Args:
    rtol: relative tolerance.
    atol: absolute tolerance.
    norm: a name of `loopformer.core.rows.NORMS`.
    patience: consecutive recurrences that must satisfy the test.

  Raises:
    ValueError: if a tolerance is negative, patience is below 1, or, when the
      loop starts, `rtol` is below what the state's precision can resolve: a
      bfloat16 contraction freezes far from its fixed point with residual zero.
  """
  measure = norm_of(norm)
  for name, value in (('rtol', rtol), ('atol', atol)):
    if not value >= 0:
      raise ValueError(f'{name} must be >= 0, got {value}.')
  if patience < 1:
    raise ValueError(f'patience must be >= 1, got {patience}.')

  def init(seen):
    check_tolerance(rtol, seen.old)
    return jnp.zeros(seen.residual_B.shape, jnp.int32)

  def update(hits_B, seen):
    row_ndim = seen.residual_B.ndim
    ratio_B = measure.ratio(
      seen.mapped, seen.old, row_ndim, rtol=rtol, atol=atol
    )
    hits_B = jnp.where(ratio_B <= 1, hits_B + 1, 0)
    return hits_B, hits_B >= patience, None

  return HaltRule(init, update, cause=Cause.CONVERGED)


def second_difference(rtol: float, *, norm: str = 'l2') -> HaltRule:
  """Stops a row whose steps have stopped changing (arXiv:2509.23314).

  Converged once ||f(z_t) - 2 z_t + z_{t-1}|| <= rtol ||f(z_t)||, from the
  second recurrence on: the state lies where the last step would have led again.
  Also true of a state that drifts evenly and never comes to rest.

  Args:
    rtol: relative tolerance.
    norm: a name of `loopformer.core.rows.NORMS`.

  Raises:
    ValueError: if the tolerance is not above 0, or, when the loop starts, is
      below what the state's precision can resolve.
  """
  measure = norm_of(norm)
  if not rtol > 0:
    raise ValueError(f'rtol must be > 0, got {rtol}.')

  def init(seen):
    check_tolerance(rtol, seen.old)
    return seen.old

  def update(before, seen):
    ahead = jax.tree.map(lambda now, last: 2 * now - last, seen.old, before)
    ratio_B = measure.ratio(seen.mapped, ahead, seen.residual_B.ndim, rtol=rtol)
    return seen.old, (seen.info.steps_B >= 1) & (ratio_B <= 1), None

  return HaltRule(init, update, cause=Cause.CONVERGED)


def cosine(threshold: float = 1e-3) -> HaltRule:
  """Stops a row whose state has stopped turning: 1 - cos(f(z), z) < threshold.

  The `cosine` exit of Huginn's code (arXiv:2502.05171). It does not see a state
  that grows or shrinks without turning.

  Raises:
    ValueError: if the threshold is not above 0.
  """
  if not threshold > 0:
    raise ValueError(f'threshold must be > 0, got {threshold}.')

  def update(seen):
    row_ndim = seen.residual_B.ndim
    pairs = zip(float_leaves(seen.mapped), float_leaves(seen.old), strict=True)
    along_B = sum(_inner(new, old, row_ndim) for new, old in pairs)
    size = norm_of('l2').size
    sizes_B = size(seen.mapped, row_ndim) * size(seen.old, row_ndim)
    return sizes_B - along_B < threshold * sizes_B

  return stateless(update, cause=Cause.CONVERGED)


def _inner(a, b, row_ndim):
  wide = jnp.promote_types(a.dtype, jnp.float32)
  product = a.astype(wide) * b.astype(wide)
  return jnp.sum(product, axis=tuple(range(row_ndim, product.ndim)))


def check_tolerance(rtol: float, state: Any) -> None:
  """Refuses a relative tolerance below the precision of the state.

  Zero is allowed from float32 on: it asks for bit-equal iterates.
  """
  for leaf in float_leaves(state):
    eps = float(jnp.finfo(leaf.dtype).eps)
    exact = rtol == 0 and jnp.finfo(leaf.dtype).bits >= 32
    if rtol < eps and not exact:
      raise ValueError(
        f'rtol must be >= {eps:.2g}, the precision of the {leaf.dtype} '
        f'state, got {rtol:.2g}.'
      )


def step_size_below(threshold: float = 1e-3) -> HaltRule:
  """Stops a row whose damping s has shrunk below `threshold`: it has stalled.

  The second exit of FPRM (arXiv:2606.18206), s being the step size that
  `patience_damped` will use next.

  Raises:
    ValueError: if the threshold is not in (0, 1), or, when the loop starts,
      its solver keeps no step size.
  """
  if not 0 < threshold < 1:
    raise ValueError(f'threshold must be in (0, 1), got {threshold}.')

  def init(seen):
    if not isinstance(seen.solver, PatienceState):
      raise ValueError(
        'solver must be patience_damped for the rule step_size_below, got one '
        f'whose state is {seen.solver!r}.'
      )
    return ()

  def update(state, seen):
    return state, seen.solver.rate_B < threshold, None

  return HaltRule(init, update)


def after(count: int, rule: HaltRule) -> HaltRule:
  """`rule`, but never before `count` recurrences are done."""
  if count < 0:
    raise ValueError(f'count must be >= 0, got {count}.')

  def update(state, seen):
    state, halt_B, weight_B = rule.update(state, seen)
    early_B = seen.info.steps_B + 1 < count
    cause_B = as_cause(rule, halt_B)
    return state, jnp.where(early_B, Cause.LIVE, cause_B), weight_B

  return rule._replace(update=update, count=due(rule, count))


def at_multiples(k: int, rule: HaltRule) -> HaltRule:
  """`rule`, but only once a row has made a multiple of `k` recurrences.

  For models that look at their state at the end of a window of k recurrences
  only. The rule sees every recurrence; its answers in between are dropped.
  """
  if k < 1:
    raise ValueError(f'k must be >= 1, got {k}.')

  def update(state, seen):
    state, halt_B, weight_B = rule.update(state, seen)
    inside_B = (seen.info.steps_B + 1) % k != 0
    cause_B = as_cause(rule, halt_B)
    return state, jnp.where(inside_B, Cause.LIVE, cause_B), weight_B

  period = math.lcm(k, rule.period)
  bound = rule.count
  if bound is not None:
    whole = bound % k == 0
    bound = _where(whole, bound, _round_up(bound, period))
  return rule._replace(update=update, count=bound, period=period)


def any_of(*rules: HaltRule) -> HaltRule:
  """Stops a row when one of the rules does; the first to fire is the cause."""
  counted = [rule for rule in rules if rule.count is not None]
  count = _fold(_smaller, [rule.count for rule in counted])
  return _combined(rules, _first_cause, count, counted)


def all_of(*rules: HaltRule) -> HaltRule:
  """Stops a row at the recurrence at which every rule would.

  The cause is that of the first rule which is not a count.
  """
  count = None
  if rules and all(rule.count is not None for rule in rules):
    count = _fold(_larger, [rule.count for rule in rules])
    count = _round_up(count, math.lcm(*(rule.period for rule in rules)))
  return _combined(rules, _last_cause, count, rules)


def due(rule: HaltRule, floor: int) -> Any:
  """Steps, at least `floor`, after which a rule stops for sure, if known."""
  if rule.count is None:
    return None
  later = _round_up(floor, rule.period)
  return _where(floor <= rule.count, rule.count, later)


def as_cause(rule: HaltRule, halt_B: Array) -> Array:
  """A rule's answer as int32 `Cause`s."""
  if halt_B.dtype == bool:
    return jnp.where(halt_B, jnp.int32(rule.cause), jnp.int32(Cause.LIVE))
  return halt_B


def _fold(combine, counts):
  """Minimum or maximum of counts; a plain number if all of them are."""
  if not counts:
    return None
  return functools.reduce(combine, counts)


def _smaller(a, b):
  return min(a, b) if _both_int(a, b) else jnp.minimum(a, b)


def _larger(a, b):
  return max(a, b) if _both_int(a, b) else jnp.maximum(a, b)


def _both_int(a, b):
  return isinstance(a, int) and isinstance(b, int)


def _round_up(count, period):
  return -(-count // period) * period


def _where(condition, a, b):
  """One of two counts; a plain number where that is known."""
  if isinstance(condition, bool):
    return a if condition else b
  return jnp.where(condition, a, b)


def _combined(rules, merge, count, counted):
  """One rule of several: their states side by side, their answers merged.

  Where all `counted` rules stop, so does the combination: at multiples of all
  their periods. If these differ it may stop elsewhere too.
  """
  if not rules:
    raise ValueError('a combination needs at least one rule, got none.')

  def init(seen):
    return tuple(rule.init(seen) for rule in rules)

  def update(states, seen):
    results = [r.update(s, seen) for r, s in zip(rules, states, strict=True)]
    states, halts, weights = zip(*results, strict=True)
    weights = [weight for weight in weights if weight is not None]
    if len(weights) > 1:
      raise ValueError(
        f'at most one combined rule may weigh states, got {len(weights)}.'
      )
    causes = [as_cause(r, h) for r, h in zip(rules, halts, strict=True)]
    return states, merge(causes), weights[0] if weights else None

  periods = {rule.period for rule in counted}
  counts_only = all(rule.counts_only for rule in rules) and len(periods) <= 1
  period = math.lcm(*periods)
  return HaltRule(
    init, update, count=count, counts_only=counts_only, period=period
  )


def _first_cause(causes):
  merged = causes[-1]
  for cause in reversed(causes[:-1]):
    merged = jnp.where(cause != Cause.LIVE, cause, merged)
  return merged


def _last_cause(causes):
  every = jax.tree.reduce(jnp.logical_and, [c != Cause.LIVE for c in causes])
  # A cap can be continued: it must not stand for a row that has converged.
  final = [jnp.where(c == Cause.CAP, Cause.LIVE, c) for c in causes]
  return jnp.where(every, _first_cause([*final, causes[0]]), Cause.LIVE)
