"""The gates of attention and SwiGLU, gradients written by hand.

As in `loopformer.nn.kernels`, the rules keep only what the gradient needs.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def _opening(gate):
  """sigmoid(g) as (1 + tanh(g / 2)) / 2, which vectorises better on CPU."""
  return 0.5 + 0.5 * jnp.tanh(0.5 * gate)


@jax.custom_vjp
def gated(
  x: Float[Array, '*batch F'], gate: Float[Array, '*batch F']
) -> Float[Array, '*batch F']:
  """x sigmoid(g) as x / (1 + exp(-g)); keeps x and g.

  What a quotient gives is computed once, where a compiler for CPU repeats a
  product for every panel of the weight that reads it.
  """
  return x / (1 + jnp.exp(-gate))


def _gated_backward(saved, d_y):
  x, gate = saved
  opening = _opening(gate)
  return d_y * opening, d_y * x * opening * (1 - opening)


gated.defvjp(lambda x, gate: (gated(x, gate), (x, gate)), _gated_backward)


@jax.custom_vjp
def swiglu(u: Float[Array, '*batch G']) -> Float[Array, '*batch F']:
  """silu(g) v for u = [g; v], G = 2 F (arXiv:2002.05202); keeps u alone."""
  gate, value = jnp.split(u, 2, -1)
  return gated(gate * value, gate)


def _swiglu_backward(u, d_out):
  gate, value = jnp.split(u, 2, -1)
  opening = _opening(gate)
  silu = gate * opening
  d_gate = d_out * value * (opening + silu * (1 - opening))
  return (jnp.concatenate([d_gate, d_out * silu], -1),)


swiglu.defvjp(lambda u: (swiglu(u), u), _swiglu_backward)
