"""Halting with mixed outputs: ACT and PonderNet, and their losses.

Both rules weigh the states they pass; the loop gives the step at which a row
stops, also at the cap, what is left to one, so the weights sum to one exactly.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from loopformer.core.rows import expand
from loopformer.core.types import HaltRule, LoopResult

Head = Callable[[Any, Any], Array]
HALT = 0x68616C74  # sets the draws of the rule apart from those of the step


class ActState(NamedTuple):
  """Running sum of halting probabilities, and what it left a step earlier."""

  total_B: Float[Array, '*rows']
  remainder_B: Float[Array, '*rows']


def act(head: Head, *, epsilon: float = 0.01) -> HaltRule:
  """Adaptive computation time (Graves, arXiv:1603.08983, eqs. 5 to 8).

  Stops at N, the first n with sum_{i<=n} p_i >= 1 - epsilon, p_i = head(z_i).
  Weights: p_n for n < N and the remainder R = 1 - sum_{i<N} p_i for N.
  """
  if not 0 <= epsilon < 1:
    raise ValueError(f'epsilon must be in [0, 1), got {epsilon}.')

  def init(seen):
    rows = seen.residual_B.shape
    return ActState(jnp.zeros(rows), jnp.ones(rows))

  def update(state, seen):
    p_B = head(seen.new, seen.args).astype(jnp.float32)
    total_B = state.total_B + p_B
    # A row that another rule keeps from stopping here has nothing left.
    new = ActState(total_B, jnp.maximum(1 - state.total_B, 0.0))
    return new, total_B >= 1 - epsilon, p_B

  return HaltRule(init, update)


def ponder_cost(result: LoopResult) -> Float[Array, '*rows']:
  """N + R of a loop that ran under `act` (arXiv:1603.08983, eq. 9).

  Differentiable through the remainder R; the count N has no gradient.
  """
  states = _act_states(result)
  if not states:
    raise ValueError('halt must be or hold act, got a loop without it.')
  return result.steps_B + states[0].remainder_B


def holds_act(result: LoopResult) -> bool:
  """Whether the loop ran under `act`, alone or within another rule."""
  return bool(_act_states(result))


def _act_states(result):
  is_act = lambda node: isinstance(node, ActState)
  nodes = jax.tree.leaves(result.carry.rule, is_leaf=is_act)
  return [node for node in nodes if is_act(node)]


def ponder(head: Head, *, sample: bool = False) -> HaltRule:
  """PonderNet (arXiv:2107.05407): l_n = head(z_n) is a halting hazard.

  In training (`sample=False`) every step is taken and weighs
  p_n = l_n prod_{j<n} (1 - l_j), the last one the rest. With `sample=True`
  each row stops with probability l_n, drawn from its own key, unweighted.
  """

  def init(seen):
    return jnp.ones(seen.residual_B.shape, jnp.float32)

  def update(survival_B, seen):
    hazard_B = head(seen.new, seen.args).astype(jnp.float32)
    if not sample:
      weight_B = survival_B * hazard_B
      go_on_B = jnp.zeros(hazard_B.shape, bool)
      return survival_B * (1 - hazard_B), go_on_B, weight_B
    if seen.info.keys_B is None:
      raise ValueError('keys must be given to sample halting, got None.')
    draws_B = _uniform(seen.info.keys_B)
    return survival_B * (1 - hazard_B), draws_B < hazard_B, None

  return HaltRule(init, update)


def _uniform(keys_B):
  """A draw per row that the step, which is given the same keys, cannot make."""
  keys = jax.vmap(jax.random.fold_in, (0, None))(keys_B.ravel(), HALT)
  return jax.vmap(jax.random.uniform)(keys).reshape(keys_B.shape)


def geometric_prior(hazard: float, steps: int) -> Float[Array, ' R']:
  """p_n = h (1 - h)^(n-1), n = 1..R; the last step takes the rest."""
  return jnp.exp(_log_geometric(hazard, steps))


def _log_geometric(hazard, steps):
  """In logarithms, where a long tail does not vanish."""
  if not 0 < hazard < 1:
    raise ValueError(f'hazard must be in (0, 1), got {hazard}.')
  log_R = jnp.arange(steps) * math.log1p(-hazard)
  return log_R.at[:-1].add(math.log(hazard))


def kl_to_geometric(
  weight_RB: Float[Array, 'R *rows'], hazard: float
) -> Float[Array, '*rows']:
  """KL(p || geometric(hazard)) per row (arXiv:2107.05407, eq. 5).

  Non-negative, and zero when every hazard equals `hazard`.
  """
  prior_R = _log_geometric(hazard, weight_RB.shape[0])
  tiny = jnp.finfo(weight_RB.dtype).tiny
  log_ratio = jnp.log(jnp.maximum(weight_RB, tiny)) - expand(prior_R, weight_RB)
  return jnp.sum(weight_RB * log_ratio, axis=0)


def expected_loss(
  weight_RB: Float[Array, 'R *rows'], loss_RB: Float[Array, 'R *rows']
) -> Float[Array, '*rows']:
  """sum_n p_n L_n, the reconstruction term of PonderNet and of Ouro."""
  return jnp.sum(weight_RB * loss_RB, axis=0)


def expected_steps(
  weight_RB: Float[Array, 'R *rows'],
) -> Float[Array, '*rows']:
  """sum_n n p_n, the mean exit of a halting distribution."""
  n = jnp.arange(1, weight_RB.shape[0] + 1, dtype=weight_RB.dtype)
  return jnp.tensordot(n, weight_RB, axes=1)
