"""Products by panels are the products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.nn.kernels import FEW, linear_by_panels, panels


@pytest.mark.parametrize('outputs', [12, 10])
@pytest.mark.parametrize('rows', [(2, 1), (FEW, 1), (FEW + 1,), (3, 7)])
def test_a_weight_in_panels_multiplies_as_it_is(rows, outputs):
  weight = jax.random.normal(jax.random.key(0), (5, outputs))
  x = jax.random.normal(jax.random.key(1), (*rows, 5))
  found = linear_by_panels(x, panels(weight, 4), outputs)
  np.testing.assert_allclose(found, x @ weight, rtol=1e-5, atol=1e-5)


def test_panels_hold_neighbouring_columns_and_then_zeros():
  cut = panels(jnp.arange(1.0, 11.0).reshape(2, 5), 3)
  np.testing.assert_array_equal(cut[0], [[1, 2, 3], [6, 7, 8]])
  np.testing.assert_array_equal(cut[1], [[4, 5, 0], [9, 10, 0]])
