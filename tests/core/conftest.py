"""The loop is tested where arrays of unequal rank do not mix silently."""

import jax
import pytest


@pytest.fixture(autouse=True)
def rank_promotion_raises():
  """Refuses `[B, T, D] + [D]`; optax and Flax rely on it, `core` must not."""
  with jax.numpy_rank_promotion('raise'):
    yield
