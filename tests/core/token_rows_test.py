"""Tokens as rows of their own: gradients and norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core import rows

NEW = jnp.array([[[3.0, 4.0], [0.0, 1.0]]])
OLD = jnp.array([[[0.0, 0.0], [0.0, 2.0]]])


def test_implicit_with_tokens_as_rows_equals_full():
  """A cotangent reaches the first token of a chain through all others."""
  inputs_BT1 = jnp.array([[[1.0], [2.0], [3.0], [4.0], [5.0]]])
  state = jnp.zeros_like(inputs_BT1)

  def chain(z_BT1, aux, b_BT1, info):
    del info
    before = jnp.pad(z_BT1, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return 0.3 * z_BT1 + 0.5 * before + b_BT1, aux

  def loss(inputs, adjoint, row_ndim):
    result = core.iterate(
      chain,
      state,
      inputs,
      halt=core.fixed_steps(),
      max_steps=80,
      adjoint=adjoint,
      row_ndim=row_ndim,
    )
    return jnp.sum(result.state[:, -1])

  gradient = lambda *choice: jax.jit(jax.grad(lambda x: loss(x, *choice)))(
    inputs_BT1
  )
  np.testing.assert_allclose(
    gradient(core.implicit(), 2), gradient(core.full(), 2), rtol=1e-4
  )


@pytest.mark.parametrize(
  'token,whole', [('token_l2', 'l2'), ('token_inf', 'inf')]
)
def test_a_norm_of_tokens_is_that_of_rows_where_tokens_are_rows(token, whole):
  ratio = lambda name: rows.norm_of(name).ratio(NEW, OLD, 2)
  np.testing.assert_array_equal(ratio(token), ratio(whole))
