"""The loss of a language model at every recurrence, and the curve it follows.

    L(r) = L_inf + Z exp(-z r)          (Parcae, arXiv:2604.12946)

falls to a limit near the depth of training; L is in nats per token.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from loopformer import core
from loopformer.evaluate.likelihood import log_probabilities
from loopformer.evaluate.measure import (
  READ,
  Subject,
  batches,
  plan_of,
  run_rows,
)
from loopformer.tasks import IGNORE, Batch

_GRID, _GOLDEN = 64, (math.sqrt(5.0) - 1) / 2


class Curve(NamedTuple):
  """L(r) = limit + scale exp(-rate r), and how far the points are from it.

  rms: root mean square of what is left, in the unit of the losses.
  """

  limit: float
  scale: float
  rate: float
  rms: float

  def at(self, steps: Any) -> np.ndarray | float:
    """L at some recurrences."""
    return self.limit + self.scale * np.exp(-self.rate * np.asarray(steps))

  def covered(self, first: float, last: float) -> float:
    """Share of the way from L(first) to the limit that L(last) has gone."""
    return -math.expm1(-self.rate * (last - first))


def fit(
  steps_R: Float[np.ndarray, ' R'], losses_R: Float[np.ndarray, ' R']
) -> Curve | None:
  """The least-squares curve; None from fewer than four finite losses.

  For a given rate the other two are a linear regression, so only the rate is
  searched: on a grid of its logarithm from 0.1 / (r_max - r_min), below which
  the points are on a line, to 10, above which they are on a step; then by
  golden section.
  """
  finite_R = np.isfinite(losses_R)
  steps_R, losses_R = steps_R[finite_R], losses_R[finite_R]
  if len(np.unique(steps_R)) < 4:
    return None
  cost = lambda log_rate: _regress(steps_R, losses_R, math.exp(log_rate)).rms
  lowest = math.log(0.1 / float(np.ptp(steps_R)))
  grid = np.linspace(lowest, math.log(10.0), _GRID)
  best = int(np.argmin([cost(x) for x in grid]))
  low, high = (
    float(grid[max(best - 1, 0)]),
    float(grid[min(best + 1, _GRID - 1)]),
  )
  while high - low > 1e-9:
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    low, high = (low, b) if cost(a) <= cost(b) else (a, high)
  return _regress(steps_R, losses_R, math.exp((low + high) / 2))


def _regress(steps_R, losses_R, rate):
  """Limit and scale for a rate; the basis is 1 where the first point is."""
  first = steps_R.min()
  basis_R = np.exp(-rate * (steps_R - first))
  centred_R = basis_R - basis_R.mean()
  slope = float(centred_R @ losses_R / (centred_R @ centred_R))
  limit = float(losses_R.mean() - slope * basis_R.mean())
  left_R = losses_R - limit - slope * basis_R
  rms = math.sqrt(float(np.mean(left_R**2)))
  return Curve(limit, slope * math.exp(rate * float(first)), rate, rms)


def nats_by_depth(
  subject: Subject, batch: Batch, *, depth: int, batch_size: int
) -> Float[np.ndarray, 'R N']:
  """Sum over the labels of each row of -log p, after 1 .. `depth` recurrences.

  One run of the loop serves all depths.
  """
  plan = plan_of(subject, core.fixed_steps(), depth, 'sample')

  @jax.jit
  def run(model, rows):
    def trace(state, args, info):
      del info
      logits_BTV = args[0].readout(state, args[1])
      return -jnp.sum(log_probabilities(logits_BTV, rows['labels']), -1)

    return run_rows(model, rows, plan, trace=trace)[0].trace.values

  parts = batches(batch, batch_size, (*READ, 'labels'))
  found = [np.asarray(run(subject.model, part)) for part in parts]
  return np.concatenate(found, 1)[:, : len(batch['ids'])]


def measure(
  subject: Subject, task: Any, batch: Batch, *, depth: int, batch_size: int
) -> dict[str, Any]:
  """Losses of held-out text against recurrences, and their fit.

  Args:
    subject: the trained model.
    task: a text task, which knows the bytes of its tokens.
    batch: held-out rows of it.
    depth: the most recurrences.
    batch_size: rows at a time.

  Returns:
    `tokens` and `bytes` scored; `losses`, with `steps`, `nats` per token and
    `bits_per_byte` of each depth, None where they are not finite; `fit` of
    the nats, or None.
  """
  nats_RN = nats_by_depth(subject, batch, depth=depth, batch_size=batch_size)
  tokens = int(np.sum(batch['labels'] != IGNORE))
  size = int(np.sum(task.byte_counts(batch)))
  total_R = nats_RN.sum(1, dtype=np.float64)
  steps_R = np.arange(1, depth + 1, dtype=np.float64)
  curve = fit(steps_R, total_R / tokens)
  return {
    'tokens': tokens,
    'bytes': size,
    'losses': [
      {
        'steps': int(steps),
        'nats': _finite(total / tokens),
        'bits_per_byte': _finite(total / math.log(2) / max(size, 1)),
      }
      for steps, total in zip(steps_R, total_R, strict=True)
    ],
    'fit': None if curve is None else curve._asdict(),
  }


def curve_of(results: Mapping[str, Any]) -> Curve | None:
  """The fit in what `measure` returned."""
  return None if results['fit'] is None else Curve(**results['fit'])


def _finite(value: float) -> float | None:
  return float(value) if math.isfinite(value) else None
