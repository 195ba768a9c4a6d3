"""Exits that read a head: entropy, KL, arg-max stability, learned CDF.

A head is a function `(state, args) -> array` with the rows in front: logits
[B, ..., V] for the stability rules, a probability per row for the CDF rule.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from loopformer.core.halting import stateless
from loopformer.core.types import HaltRule

Head = Callable[[Any, Any], Array]
REDUCE = {'mean': jnp.mean, 'max': jnp.max}


def entropy_below(
  head: Head, threshold: float, *, over: str = 'mean'
) -> HaltRule:
  """Stops when the entropy of softmax(head), in nats, is below `threshold`.

  Args:
    head: logits [*rows, ..., V].
    threshold: nats.
    over: positions of a row are combined by `mean` or `max`.
  """
  reduce = _reducer(over)

  def update(seen):
    entropy = _entropy(head(seen.new, seen.args))
    return reduce(entropy, seen.residual_B.ndim) < threshold

  return stateless(update)


def entropy_stable(
  head: Head, threshold: float = 1e-3, *, over: str = 'mean'
) -> HaltRule:
  """Stops when |H_t - H_{t-1}| of softmax(head) is below `threshold` nats.

  The `entropy-diff` exit of Huginn (arXiv:2502.05171), whose threshold is 1e-3.
  There is no entropy before the first recurrence, which never stops a row.
  """
  moved = lambda new, old: jnp.abs(new - old)
  return _stability(head, _entropy, moved, threshold, over, begin=jnp.inf)


def kl_stable(
  head: Head,
  threshold: float = 1e-3,
  *,
  direction: str = 'previous_to_current',
  min_p: float = 0.0,
  over: str = 'mean',
) -> HaltRule:
  """Stops when the read-out distribution stops changing; uniform before.

  KL(p_{t-1} || p_t) < threshold (Huginn, arXiv:2502.05171) or, with direction
  `current_to_previous`, KL(p_t || p_{t-1}) < threshold (arXiv:2604.07822).

  Args:
    head: logits [*rows, ..., V].
    threshold: nats; Huginn's are 1e-3, and 1e-5 with min_p = 0.1.
    direction: which of the two distributions is the expectation's.
    min_p: probabilities below this share of the largest become 1 / V before all
      are normalised again (`minp-kl` of Huginn's code); 0 leaves them.
    over: positions of a row are combined by `mean` or `max`.
  """
  if direction not in ('previous_to_current', 'current_to_previous'):
    raise ValueError(
      'direction must be previous_to_current or current_to_previous, '
      f'got {direction!r}.'
    )
  if not 0 <= min_p <= 1:
    raise ValueError(f'min_p must be in [0, 1], got {min_p}.')
  forward = direction == 'previous_to_current'
  moved = lambda new, old: _kl(old, new) if forward else _kl(new, old)
  read = lambda logits: _floored(logits, min_p)
  return _stability(head, read, moved, threshold, over, begin=0.0)


def argmax_stable(head: Head, patience: int = 5) -> HaltRule:
  """Stops when every position kept its arg-max for `patience` recurrences."""
  if patience < 1:
    raise ValueError(f'patience must be >= 1, got {patience}.')

  def init(seen):
    best = jnp.argmax(head(seen.new, seen.args), -1).astype(jnp.int32)
    return best, jnp.zeros(seen.residual_B.shape, jnp.int32)

  def update(state, seen):
    last, same_B = state
    best = jnp.argmax(head(seen.new, seen.args), -1).astype(jnp.int32)
    axes = tuple(range(seen.residual_B.ndim, best.ndim))
    same_B = jnp.where(jnp.all(best == last, axis=axes), same_B + 1, 0)
    return (best, same_B), same_B >= patience, None

  return HaltRule(init, update)


def cdf_exceeds(head: Head, quantile: float) -> HaltRule:
  """Stops at the first t with CDF_t >= q, CDF_t = 1 - prod_{j<=t}(1 - l_j).

  The exit of Ouro (arXiv:2510.25741) with l_t = head(z_t) in [0, 1]. The test
  is made on the survival product, S_t <= 1 - q, which does not round; q = 1
  never stops a row before the cap and q = 0 stops it at once.
  """
  if not 0 <= quantile <= 1:
    raise ValueError(f'quantile must be in [0, 1], got {quantile}.')

  def init(seen):
    return jnp.ones(seen.residual_B.shape, jnp.float32)

  def update(survival_B, seen):
    exit_B = head(seen.new, seen.args).astype(jnp.float32)
    survival_B = survival_B * (1 - exit_B)
    halt_B = (survival_B <= 1 - quantile) & (quantile < 1)
    return survival_B, halt_B, None

  return HaltRule(init, update)


def _reducer(over):
  if over not in REDUCE:
    raise ValueError(f'over must be one of {sorted(REDUCE)}, got {over!r}.')

  def reduce(x, row_ndim):
    return REDUCE[over](x, axis=tuple(range(row_ndim, x.ndim)))

  return reduce


def _log_probs(logits):
  return jax.nn.log_softmax(logits.astype(jnp.float32), -1)


def _entropy(logits):
  logp = _log_probs(logits)
  return -jnp.sum(_weighted(logp, logp), -1)


def _kl(logits_p, logits_q):
  logp, logq = _log_probs(logits_p), _log_probs(logits_q)
  return jnp.sum(_weighted(logp, logp - logq), -1)


def _floored(logits, min_p):
  """Logits with p = 1 / V for what is below min_p times the largest."""
  if not min_p:
    return logits
  logp = _log_probs(logits)
  rare = logp < jnp.max(logp, -1, keepdims=True) + jnp.log(min_p)
  return jnp.where(rare, -jnp.log(logp.shape[-1]), logp)


def _weighted(logp, x):
  """p x, zero where a masked logit makes p zero and x infinite."""
  p = jnp.exp(logp)
  return jnp.where(p > 0, p * jnp.where(p > 0, x, 0.0), 0.0)


def _stability(head, read, distance, threshold, over, *, begin):
  """Compares what is read off a head with the same one recurrence ago."""
  reduce = _reducer(over)

  def init(seen):
    return jnp.full_like(read(head(seen.new, seen.args)), begin)

  def update(last, seen):
    now = read(head(seen.new, seen.args))
    moved_B = reduce(distance(now, last), seen.residual_B.ndim)
    return now, moved_B < threshold, None

  return HaltRule(init, update)
