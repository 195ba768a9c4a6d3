"""Losses of Q-heads by hand: BCE(z, t) = log(1 + e^z) - t z."""

import jax
import jax.numpy as jnp
import numpy as np

from loopformer.nn.q_learning import (
  Supervised,
  halt_and_continue_terms,
  halt_terms,
)

LOG2, LOG3, LOG4 = np.log([2.0, 3.0, 4.0])


class Values:
  """A model whose state is its Q-values."""

  def q_values(self, state):
    return state


def seen(q_B2, exact_B, last_B=None, ahead_B2=None):
  exact_B = jnp.asarray(exact_B)
  last_B = jnp.zeros_like(exact_B) if last_B is None else jnp.asarray(last_B)
  return Supervised(jnp.asarray(q_B2), exact_B, last_B, lambda: ahead_B2)


def test_halting_by_hand():
  """-log 1/2, -log 3/4 and -log 1/4, each half; nothing is asked ahead."""
  q_B2 = [[0.0, 9.0], [LOG3, 9.0], [LOG3, -9.0]]
  terms_B = halt_terms(Values(), seen(q_B2, [True, True, False]))
  want = [LOG2 / 2, (LOG4 - LOG3) / 2, LOG4 / 2]
  np.testing.assert_allclose(terms_B, want, rtol=1e-6)


def test_going_on_by_hand():
  """Targets 3/4 (the larger value ahead), 1/2 at the last, 3/4 again."""
  q_B2 = jnp.array([[0.0, LOG3]] * 3)
  ahead_B2 = jnp.array([[0.0, LOG3], [0.0, LOG3], [LOG3, 0.0]])
  last_B, exact_B = [False, True, False], [True, True, False]
  terms_B = halt_and_continue_terms(
    Values(), seen(q_B2, exact_B, last_B, ahead_B2)
  )
  going_on = LOG4 - np.array([3 / 4, 1 / 2, 3 / 4]) * LOG3
  np.testing.assert_allclose(terms_B, (LOG2 + going_on) / 2, rtol=1e-6)


def test_at_the_start_both_are_nearly_free_for_a_wrong_row():
  """log(1 + e^-5) for halting, and the entropy of sigmoid(-5)."""
  q_B2 = jnp.full((1, 2), -5.0)
  told = seen(q_B2, [False], [False], q_B2)
  free = np.log1p(np.exp(-5.0))
  np.testing.assert_allclose(halt_terms(Values(), told), free / 2, rtol=1e-5)
  both = 2 * free + 5 / (1 + np.exp(5.0))
  np.testing.assert_allclose(
    halt_and_continue_terms(Values(), told), both / 2, rtol=1e-5
  )


def test_halting_alone_leaves_the_other_value_without_a_gradient():
  """d / dz = (sigmoid(z) - t) / 2."""
  total = lambda q_B2: halt_terms(Values(), seen(q_B2, [True, False])).sum()
  grad_B2 = jax.grad(total)(jnp.array([[LOG3, 1.0], [LOG3, -1.0]]))
  np.testing.assert_allclose(grad_B2[:, 0], [-1 / 8, 3 / 8], rtol=1e-6)
  np.testing.assert_array_equal(grad_B2[:, 1], 0.0)


def test_the_values_ahead_are_targets_and_have_no_gradient():
  q_B2 = jnp.array([[0.0, LOG3]])

  def total(q_B2, ahead_B2):
    told = seen(q_B2, [True], [False], ahead_B2)
    return halt_and_continue_terms(Values(), told).sum()

  ours, ahead = jax.grad(total, (0, 1))(q_B2, jnp.zeros((1, 2)))
  np.testing.assert_array_equal(ahead, 0.0)
  np.testing.assert_allclose(ours, [[-1 / 4, 1 / 8]], rtol=1e-6)
