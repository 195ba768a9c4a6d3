"""A linear layer, whole and in panels."""

import jax
import numpy as np
import pytest

from loopformer.nn.linear import Linear
from tests.models import random


@pytest.mark.parametrize(
  ('outputs', 'cut'), [(32, True), (30, True), (9, False)]
)
def test_a_layer_cut_into_panels_is_the_layer(outputs, cut):
  """Unless the zeros of the last panel would be more than an eighth of it."""
  make = lambda rngs: Linear(5, outputs, 'embed', 'mlp', bias=True, rngs=rngs)
  layer = random(make)
  x = jax.random.normal(jax.random.key(1), (3, 1, 5))
  wanted = layer(x)
  layer.cut(8)
  assert (layer.kernel[...].ndim == 3) == cut
  assert layer(x).shape == (3, 1, outputs)
  np.testing.assert_allclose(layer(x), wanted, rtol=1e-5, atol=1e-6)
