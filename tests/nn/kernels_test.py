"""Products by panels are the products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.nn.kernels import FEW, PANEL, linear_by_panels, panels


@pytest.mark.parametrize('rows', [(2, 1), (FEW, 1), (FEW + 1,), (3, 7)])
def test_a_weight_in_panels_multiplies_as_it_is(rows):
  weight = jax.random.normal(jax.random.key(0), (5, 3 * PANEL))
  x = jax.random.normal(jax.random.key(1), (*rows, 5))
  found = linear_by_panels(x, panels(weight))
  np.testing.assert_allclose(found, x @ weight, rtol=1e-5, atol=1e-5)


def test_panels_hold_neighbouring_columns():
  weight = jnp.arange(2 * 2 * PANEL).reshape(2, -1)
  cut = panels(weight.astype(jnp.float32))
  assert cut.shape == (2, 2, PANEL)
  np.testing.assert_array_equal(cut[1, 0], weight[0, PANEL:])
