"""How many recurrences to make in training: pure functions of a key.

A sampler is `(key, rows) -> total_B`, int32. `per='batch'` gives all rows one
draw; `per='sequence'` one draw each. `window` splits a total into (n, k).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

Sampler = Callable[[Any, int], Array]


class Depth(NamedTuple):
  """n recurrences without gradient, then k with, per row."""

  free_B: Int[Array, ' B']
  grad_B: Int[Array, ' B']


def window(total_B: Int[Array, ' B'], k: int) -> Depth:
  """(n, k) = (max(T - k, 0), min(T, k)).

  The gradient window of Huginn (arXiv:2502.05171, k = 8) and of Parcae
  (arXiv:2604.12946, k = ceil(mean / 2)).
  """
  if k < 1:
    raise ValueError(f'k must be >= 1, got {k}.')
  return Depth(jnp.maximum(total_B - k, 0), jnp.minimum(total_B, k))


def fixed(count: int) -> Sampler:
  """T = count."""
  _positive('count', count)
  return lambda key, rows: jnp.full((rows,), count, jnp.int32)


def uniform_set(values: Sequence[int], *, per: str = 'batch') -> Sampler:
  """T uniform over the given values."""
  if not values:
    raise ValueError('values must hold at least one count, got none.')
  for value in values:
    _positive('values', value)
  table = tuple(values)

  def draw(key, shape):
    return jax.random.choice(key, jnp.asarray(table, jnp.int32), shape)

  return _sampler(draw, per)


def clipped_poisson(
  mean: float, low: int, high: int, *, per: str = 'batch'
) -> Sampler:
  """T = clip(Poisson(mean), low, high) (arXiv:2604.07822: 4, 2, 8)."""
  _positive('mean', mean)
  _positive('low', low)
  if high < low:
    raise ValueError(f'high must be >= low = {low}, got {high}.')

  def draw(key, shape):
    return jnp.clip(jax.random.poisson(key, mean, shape), low, high)

  return _sampler(draw, per)


def truncated_poisson(mean: float, *, per: str = 'sequence') -> Sampler:
  """T = max(1, Poisson(mean)) (Parcae, arXiv:2604.12946)."""
  _positive('mean', mean)

  def draw(key, shape):
    return jnp.maximum(jax.random.poisson(key, mean, shape), 1)

  return _sampler(draw, per)


def log_normal_poisson(
  mean: float, sigma: float = 0.5, *, per: str = 'batch'
) -> Sampler:
  """T = Poisson(rate) + 1, rate ~ LogNormal(ln mean - sigma^2 / 2, sigma).

  Huginn (arXiv:2502.05171, section 3.3). E[T] = mean + 1 and
  Var[T] = mean + mean^2 (exp(sigma^2) - 1).
  """
  _positive('mean', mean)
  if sigma < 0:
    raise ValueError(f'sigma must be >= 0, got {sigma}.')

  def draw(key, shape):
    rate_key, count_key = jax.random.split(key)
    normal = jax.random.normal(rate_key, shape)
    rate = jnp.exp(jnp.log(mean) - sigma**2 / 2 + sigma * normal)
    return jax.random.poisson(count_key, rate, shape) + 1

  return _sampler(draw, per)


def _positive(name, value):
  if not value > 0:
    raise ValueError(f'{name} must be > 0, got {value}.')


def _sampler(draw, per):
  if per not in ('batch', 'sequence'):
    raise ValueError(f'per must be batch or sequence, got {per!r}.')

  def sample(key, rows):
    shape = (rows,) if per == 'sequence' else ()
    counts = draw(key, shape).astype(jnp.int32)
    return jnp.broadcast_to(counts, (rows,))

  return sample
