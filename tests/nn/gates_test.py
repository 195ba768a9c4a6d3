"""Gates are sigmoids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.nn.gates import gated, swiglu


def _plain_swiglu(u):
  gate, value = jnp.split(u, 2, -1)
  return jax.nn.silu(gate) * value


GATES = {
  'gated': (gated, lambda x, gate: x * jax.nn.sigmoid(gate), 2),
  'swiglu': (swiglu, _plain_swiglu, 1),
}


@pytest.mark.parametrize('name', GATES)
def test_gates_and_their_gradients_are_those_of_a_sigmoid(name):
  found, plain, count = GATES[name]
  keys = jax.random.split(jax.random.key(0), count)
  given = tuple(4 * jax.random.normal(key, (3, 8)) for key in keys)
  pulled = []
  for function in (found, plain):
    y, pull = jax.vjp(function, *given)
    pulled.append((y, pull(jnp.cos(y))))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *pulled
  )


@pytest.mark.parametrize('gate, opening', [(-200.0, 0.0), (200.0, 1.0)])
def test_a_gate_far_from_zero_is_shut_or_open(gate, opening):
  y, pull = jax.vjp(gated, jnp.full(1, 3.0), jnp.full(1, gate))
  d_x, d_gate = pull(jnp.ones(1))
  assert (y, d_x, d_gate) == (3 * opening, opening, 0)
