"""How the prelude's output e re-enters the state s at every recurrence.

    none             s
    add              s + e                       spectral radius 1
    add_after_first  s + e, but s alone at the first recurrence
    concat           W [s; e] (+ b)              unconstrained
    diagonal_euler   a s + delta (B e)           0 < a < 1 by construction
    diagonal_zoh     a s + (1 - a) / A (B e)     the exact zero-order hold
    diagonal_free    as diagonal_euler, a unbounded in floating point

with a = exp(-delta A), delta = softplus(dt) > 0, A = exp(A_log) > 0 per
channel (Parcae, arXiv:2604.12946, decays exactly and gains by Euler). delta A
is held within [1e-4, 20], since exp(-x) is exactly 1 in float32 below 2^-25;
`diagonal_free` leaves it alone, as the public code does.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from loopformer.nn.config import require_one_of
from loopformer.nn.initialise import orthogonal
from loopformer.nn.variables import Param, named

INJECTIONS = (
  'none',
  'add',
  'add_after_first',
  'concat',
  'diagonal_euler',
  'diagonal_zoh',
  'diagonal_free',
)
# exp(-x) is exactly 1 in float32 once x < 2^-25, so "a < 1" needs a floor.
FLOOR, CEILING = 1e-4, 20.0
# softplus^-1(-ln sqrt(1/5)), so that a = sqrt(1/5) = 0.4472 at the start.
DT_BIAS = math.log(math.expm1(0.5 * math.log(5.0)))


class Injection(nnx.Module):
  """Mixes the state with the prelude's output."""

  def __init__(
    self,
    kind: str,
    width: int,
    *,
    state_width: int | None = None,
    bias: bool = False,
    rngs: nnx.Rngs,
  ):
    require_one_of('injection', kind, INJECTIONS)
    self.kind = kind
    state_width = state_width or width
    init = nnx.initializers.lecun_normal()
    if kind == 'concat':
      self.mix = nnx.Linear(
        state_width + width,
        state_width,
        use_bias=bias,
        kernel_init=named(init, 'embed', 'embed_out'),
        bias_init=named(nnx.initializers.zeros, 'embed_out'),
        rngs=rngs,
      )
    if kind.startswith('diagonal'):
      self.decay_log = Param(jnp.zeros(state_width))
      self.dt_bias = Param(jnp.full(state_width, DT_BIAS))
      self.gain = nnx.Linear(
        width,
        state_width,
        use_bias=False,
        rngs=rngs,
        kernel_init=named(_identity, 'embed', 'embed_out'),
      )

  def __call__(
    self,
    state_BTD: Float[Array, 'B T S'],
    e_BTD: Float[Array, 'B T D'],
    steps_B: Int[Array, '*rows'],
  ) -> Float[Array, 'B T S']:
    """The state that enters the block; `steps_B` counts recurrences made."""
    if self.kind == 'none':
      return state_BTD
    if self.kind == 'add':
      return state_BTD + e_BTD
    if self.kind == 'add_after_first':
      first = steps_B.reshape(steps_B.shape + (1,) * (3 - steps_B.ndim)) == 0
      return state_BTD + jnp.where(first, 0.0, e_BTD)
    if self.kind == 'concat':
      return self.mix(jnp.concatenate([state_BTD, e_BTD], -1))
    delta_D, product_D = self.rates()
    scale_D = delta_D
    if self.kind == 'diagonal_zoh':
      scale_D = delta_D * -jnp.expm1(-product_D) / product_D
    return jnp.exp(-product_D) * state_BTD + scale_D * self.gain(e_BTD)

  def rates(self) -> tuple[Float[Array, ' S'], Float[Array, ' S']]:
    """delta and delta A in float32, the latter held within its bounds.

    The product is formed and clipped as a logarithm, so that its gradient is
    finite wherever the optimiser has driven the two parameters.
    """
    dt_D = self.dt_bias[...].astype(jnp.float32)
    delta_D = jax.nn.softplus(dt_D)
    tail_D = dt_D < -20
    log_delta_D = jnp.log(jax.nn.softplus(jnp.where(tail_D, 0.0, dt_D)))
    log_product_D = self.decay_log[...].astype(jnp.float32) + jnp.where(
      tail_D, dt_D, log_delta_D
    )
    if self.kind != 'diagonal_free':
      limits = math.log(FLOOR), math.log(CEILING)
      log_product_D = jnp.clip(log_product_D, *limits)
    return delta_D, jnp.exp(log_product_D)


def _identity(key, shape, dtype=jnp.float32):
  """The identity, or an orthogonal map between two widths."""
  if shape[0] == shape[1]:
    return jnp.eye(shape[0], dtype=dtype)
  return orthogonal(max(shape) ** -0.5)(key, shape, dtype)
