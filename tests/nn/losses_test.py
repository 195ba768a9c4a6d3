"""Cross-entropies against float64 NumPy, and the stablemax by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import tasks
from loopformer.nn.losses import (
  CROSS_ENTROPIES,
  IGNORE,
  log_stablemax,
  softmax_cross_entropy,
  stablemax_cross_entropy,
)


def reference(name, logits, labels):
  """Row means in float64, cell by cell."""
  x = np.float64(logits)
  size = np.where(x >= 0, x + 1, 1 / (1 - np.minimum(x, 0)))
  size = np.exp(x) if name == 'softmax' else size
  p = size / size.sum(-1, keepdims=True)
  rows = []
  for p_TV, labels_T in zip(p, labels, strict=True):
    cells = [-np.log(p_TV[t, y]) for t, y in enumerate(labels_T) if y >= 0]
    rows.append(np.mean(cells) if cells else 0.0)
  return rows


def batch(seed, scale=4.0):
  rng = np.random.default_rng(seed)
  logits = np.float32(rng.normal(size=(5, 7, 11)) * scale)
  labels = rng.integers(0, 11, (5, 7))
  labels[rng.random((5, 7)) < 0.4] = IGNORE
  labels[3] = IGNORE
  labels[4] = np.abs(labels[4]) % 11
  return jnp.asarray(logits), jnp.asarray(labels)


def test_what_is_ignored_is_what_tasks_leave_unlabelled():
  assert IGNORE == tasks.IGNORE


@pytest.mark.parametrize('name', CROSS_ENTROPIES)
@pytest.mark.parametrize('scale', [0.1, 4.0])
def test_row_means_against_float64(name, scale):
  """Ignored cells do not count; a row of nothing else has loss zero."""
  logits, labels = batch(0, scale)
  loss_B = jax.jit(CROSS_ENTROPIES[name])(logits, labels)
  assert loss_B.shape == (5,) and loss_B.dtype == jnp.float32
  expected = reference(name, logits, np.asarray(labels))
  np.testing.assert_allclose(loss_B, expected, rtol=1e-6, atol=1e-6)
  assert loss_B[3] == 0


def test_stablemax_by_hand():
  """s(0) = 1, s(-1) = 1/2, s(3) = 4: p = (2, 1, 8) / 11."""
  p = jnp.exp(log_stablemax(jnp.array([0.0, -1.0, 3.0])))
  np.testing.assert_allclose(p, np.array([2, 1, 8]) / 11, rtol=1e-6)


def slope(x):
  """s'(x), from log p of (x, 0): p = s / (s + 1), so s = p / (1 - p)."""

  def s(x):
    p = jnp.exp(log_stablemax(jnp.stack([x, jnp.zeros(())]))[0])
    return p / (1 - p)

  return jax.grad(s)(jnp.float32(x))


def test_the_slope_is_continuous_at_zero():
  """1 from both sides; 1 / (1 - x)^2 below, 1 above."""
  by_hand = [(-3, 1 / 16), (-1e-6, 1), (-0.0, 1), (0, 1), (1e-6, 1), (3, 1)]
  for x, expected in by_hand:
    np.testing.assert_allclose(slope(x), expected, rtol=1e-5)


@pytest.mark.parametrize('name', CROSS_ENTROPIES)
@pytest.mark.parametrize('level', [-2.5, 0.0, 7.0])
def test_uniform_logits_cost_log_v(name, level):
  labels = jnp.array([[0, 3, IGNORE]])
  loss_B = CROSS_ENTROPIES[name](jnp.full((1, 3, 11), level), labels)
  np.testing.assert_allclose(loss_B, np.log(11), rtol=1e-6)


def test_the_softmax_is_shift_invariant_and_the_stablemax_is_not():
  logits, labels = batch(1)
  shifted = lambda loss: loss(logits + 3, labels) - loss(logits, labels)
  np.testing.assert_allclose(shifted(softmax_cross_entropy), 0, atol=2e-6)
  assert np.abs(shifted(stablemax_cross_entropy)[:3]).min() > 0.01


@pytest.mark.parametrize('name', CROSS_ENTROPIES)
def test_gradients_match_finite_differences_and_skip_ignored_cells(name):
  logits, labels = batch(2)
  total = lambda x: CROSS_ENTROPIES[name](x, labels).sum()
  grads = np.asarray(jax.grad(total)(logits))
  way = np.random.default_rng(3).normal(size=logits.shape)
  ends = (np.float64(logits) + sign * 1e-6 * way for sign in (1, -1))
  up, down = (sum(reference(name, x, np.asarray(labels))) for x in ends)
  np.testing.assert_allclose((grads * way).sum(), (up - down) / 2e-6, 1e-4)
  np.testing.assert_array_equal(grads[np.asarray(labels) == IGNORE], 0)


def test_extreme_logits_have_finite_gradients():
  """The branch that is not taken must not bring in NaN: 1 - x is 0 at 1."""
  logits = jnp.array([[[1.0, 0.0, -0.0, 1e30, -1e30, -jnp.inf]]])
  for label in range(5):
    labels = jnp.array([[label]])
    total = lambda x, y: stablemax_cross_entropy(x, y).sum()
    value, grads = jax.value_and_grad(total)(logits, labels)
    assert np.isfinite(value) and np.isfinite(grads).all()


def test_low_precision_logits_are_widened_first():
  logits, labels = batch(4)
  low = logits.astype(jnp.bfloat16)
  for loss in CROSS_ENTROPIES.values():
    np.testing.assert_array_equal(
      loss(low, labels), loss(low.astype(jnp.float32), labels)
    )
