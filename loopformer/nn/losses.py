"""Cross-entropies per sample: of the softmax and of the stablemax."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

IGNORE = -100  # as `loopformer.tasks.IGNORE`; the rooms do not know each other


def stablemax_cross_entropy(
  logits_BTV: Float[Array, 'B T V'], labels_BT: Int[Array, 'B T']
) -> Float[Array, ' B']:
  """Mean over labelled positions of -log p, p = s(x) / sum s(x).

  The loss of HRM, TRM and their successors (arXiv:2506.21734), see
  `log_stablemax`. A row without labels has loss zero.
  """
  return _mean_loss(log_stablemax(logits_BTV), labels_BT)


def softmax_cross_entropy(
  logits_BTV: Float[Array, 'B T V'], labels_BT: Int[Array, 'B T']
) -> Float[Array, ' B']:
  """Mean over labelled positions of -log softmax, as the stablemax one."""
  wide_BTV = logits_BTV.astype(jnp.float32)
  return _mean_loss(jax.nn.log_softmax(wide_BTV, -1), labels_BT)


CROSS_ENTROPIES = {
  'softmax': softmax_cross_entropy,
  'stablemax': stablemax_cross_entropy,
}


def log_stablemax(
  logits: Float[Array, '*shape V'],
) -> Float[Array, '*shape V']:
  """log(s(x) / sum s(x)), s(x) = x + 1 for x >= 0 and 1 / (1 - x) below.

  A softmax that grows linearly, not exponentially (arXiv:2501.04697). s is
  positive with a continuous slope; unlike the softmax, p changes when a
  constant is added to all logits. In float32 where the published code of HRM
  takes float64: there is no exponential that could overflow.
  """
  x = logits.astype(jnp.float32)
  # Each branch sees only its own side, so neither makes a gradient of NaN.
  positive = x >= 0
  above, below = jnp.where(positive, x, 0.0), jnp.where(positive, 0.0, x)
  s = jnp.where(positive, above + 1, 1 / (1 - below))
  log_s = jnp.where(positive, jnp.log1p(above), -jnp.log1p(-below))
  return log_s - jnp.log(jnp.sum(s, -1, keepdims=True))


def _mean_loss(log_p_BTV, labels_BT):
  labelled_BT = labels_BT != IGNORE
  place_BT1 = jnp.where(labelled_BT, labels_BT, 0)[..., None]
  picked_BT = jnp.take_along_axis(log_p_BTV, place_BT1, -1)[..., 0]
  count_B = jnp.maximum(jnp.sum(labelled_BT, -1), 1)
  return -jnp.sum(jnp.where(labelled_BT, picked_BT, 0.0), -1) / count_B
