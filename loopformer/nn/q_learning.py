"""Losses of the Q-heads that learn when to halt.

q_halt estimates whether the answer is right now, q_continue whether it will be
if the row goes on (HRM, arXiv:2506.21734, section 2; TRM, arXiv:2510.04871,
keeps the first alone).
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

WEIGHT = 0.5


class Supervised(NamedTuple):
  """What a family's own loss terms may read after a segment.

  Attributes:
    state: the state that was read out.
    exact_B: rows whose every labelled cell is right.
    last_B: rows that have made all the recurrences they may.
    ahead: calls the model for the state one segment later, no gradient.
  """

  state: Any
  exact_B: Bool[Array, ' B']
  last_B: Bool[Array, ' B']
  ahead: Any


@runtime_checkable
class HasQ(Protocol):
  """A model with two Q-values per row."""

  def q_values(self, state: Any) -> Float[Array, 'B 2']:
    """Logits of halting and of going on."""


def halt_terms(model: HasQ, seen: Supervised) -> Float[Array, ' B']:
  """BCE(q_halt, exact) / 2 of every row."""
  return WEIGHT * _halt(model.q_values(seen.state), seen.exact_B)


def halt_and_continue_terms(
  model: HasQ, seen: Supervised
) -> Float[Array, ' B']:
  """(BCE(q_halt, exact) + BCE(q_continue, target)) / 2 of every row.

  target = sigmoid(max(q'_halt, q'_continue)) with q' one segment ahead, or
  sigmoid(q'_halt) for a row that may not go on.
  """
  q_B2 = model.q_values(seen.state)
  next_B2 = jax.lax.stop_gradient(model.q_values(seen.ahead()))
  best_B = jnp.where(seen.last_B, next_B2[:, 0], jnp.max(next_B2, -1))
  going_on_B = optax.sigmoid_binary_cross_entropy(
    q_B2[:, 1], jax.nn.sigmoid(best_B)
  )
  return WEIGHT * (_halt(q_B2, seen.exact_B) + going_on_B)


def _halt(q_B2, exact_B):
  target_B = exact_B.astype(jnp.float32)
  return optax.sigmoid_binary_cross_entropy(q_B2[:, 0], target_B)
