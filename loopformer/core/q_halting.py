"""Halting learned as a value: the Q-heads of HRM and TRM, and exploration.

A head is a function `(state, args) -> [*rows, 2]`: logits of the value of
halting (entry 0) and of going on (entry 1).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from loopformer.core.halting import as_cause, due, stateless
from loopformer.core.rows import fold_rows
from loopformer.core.types import Cause, HaltRule

Head = Callable[[Any, Any], Array]
EXPLORE = 0x6578706C  # sets the draws of the rule apart from those of the step


def q_halts(head: Head) -> HaltRule:
  """Stops when q_halt > 0: a probability of being right above one half.

  The rule of TRM (arXiv:2510.04871), which does not train q_continue.
  """
  return stateless(lambda seen: head(seen.new, seen.args)[..., 0] > 0)


def q_halts_over_continue(head: Head) -> HaltRule:
  """Stops when q_halt > q_continue, the rule of HRM (arXiv:2506.21734).

  Equal values go on: a head that starts at -5 for both stops no row.
  """

  def update(seen):
    q_B2 = head(seen.new, seen.args)
    return q_B2[..., 0] > q_B2[..., 1]

  return stateless(update)


def explore(rule: HaltRule, probability: float, longest: int) -> HaltRule:
  """`rule`, held back at random so that training sees longer runs.

  At every recurrence n = 1, 2, ... a row draws afresh: with `probability` a
  minimum m ~ U{2, .., longest}, else none. A halt at n < m is refused. From
  `longest` on nothing is refused, so a cap there holds. In training HRM
  (arXiv:2506.21734; as its code draws, not once per sample) stops by
  `any_of(fixed_steps(M), explore(q_halts_over_continue(head), 0.1, M))`.

  Args:
    rule: what is held back; its state goes on.
    probability: of drawing a minimum.
    longest: largest minimum.

  Raises:
    ValueError: if `probability` is not in [0, 1], `longest` is below 2, or,
      when the loop starts, it was given no keys.
  """
  if not 0 <= probability <= 1:
    raise ValueError(f'probability must be in [0, 1], got {probability}.')
  if longest < 2:
    raise ValueError(f'longest must be >= 2, got {longest}.')

  def draw(key):
    whether, length = jax.random.split(key)
    minimum = jax.random.randint(length, (), 2, longest + 1)
    return jnp.where(jax.random.uniform(whether) < probability, minimum, 0)

  def update(state, seen):
    keys_B = seen.info.keys_B
    if keys_B is None:
      raise ValueError('keys must be given to explore, got None.')
    keys_B = fold_rows(keys_B, jnp.full(keys_B.shape, EXPLORE, jnp.int32))
    minimum_B = jax.vmap(draw)(keys_B.ravel()).reshape(keys_B.shape)
    state, halt_B, weight_B = rule.update(state, seen)
    early_B = seen.info.steps_B + 1 < minimum_B
    cause_B = as_cause(rule, halt_B)
    return state, jnp.where(early_B, Cause.LIVE, cause_B), weight_B

  return rule._replace(
    update=update, count=due(rule, longest), counts_only=False
  )
