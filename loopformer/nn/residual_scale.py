"""Residual scales that bound a looped state (FPRM, arXiv:2606.18206).

    h = a2 u + b2 x,    h <- a1 h + b1 f(N h)    for each of n branches

with a1, a2 in (0, 1) and b1, b2 tied to them so that the state stays bounded
by max(|x|, |f|): b2 = 1 - a2 a1^n and b1 = b2 (1 - a1) / (1 - a1^n + 1e-5).
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.config import require_one_of
from loopformer.nn.kernels import linear
from loopformer.nn.variables import Frozen, Param

KINDS = ('none', 'fixed', 'learned', 'input', 'spectral')
EPSILON = 1e-5
ITERATIONS = 50  # of the power method
SHORTEST = 1e-12  # a vector's length as it is divided by


def require_scales(kind: str, inner: float, outer: float) -> None:
  """Raises `ValueError` unless kind and scales at the start are allowed."""
  require_one_of('residual_scale', kind, KINDS)
  for name, value in {'alpha_inner': inner, 'alpha_outer': outer}.items():
    if not 0 < value < 1:
      raise ValueError(f'{name} must be in (0, 1), got {value}.')


class SpectralLinear(nnx.Module):
  """y = s x W / sigma + c, where sigma <= |W|_2 comes of the power method:

      v <- W u / |W u|,  u <- W^T v / |W^T v|    50 times, from the stored u
      sigma = v^T W u

  Gradients flow through the iterations; once u has settled they are those of
  v^T W u with u and v constant. s starts at |W|_2, u and v as ones. FPRM's code
  stores the last u and v of every call and goes on from them; here they stay
  what they are, so that no call depends on an earlier one. No v is read: it is
  there for the published file.
  """

  def __init__(self, width: int, *, rngs: nnx.Rngs):
    init = nnx.initializers.lecun_normal()
    self.kernel = Param(init(rngs.params(), (width, width)))
    self.bias = Param(jnp.zeros(width))
    self.scale = Param(jnp.linalg.norm(self.kernel[...], 2))
    self.u = Frozen(jnp.ones(width))
    self.v = Frozen(jnp.ones(width))

  def __call__(self, x_BLD: Float[Array, 'B L D']) -> Float[Array, 'B L D']:
    """Applies s W / sigma to the last axis."""
    gain = self.scale[...] / self._spectral_norm()
    return linear(x_BLD, gain * self.kernel[...]) + self.bias[...]

  def _spectral_norm(self):
    kernel_DD = self.kernel[...]
    times = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)

    def iterate(_, vectors):
      v_D = _unit(times(kernel_DD, vectors[1]))
      return v_D, _unit(times(v_D, kernel_DD))

    start = self.v[...], self.u[...]
    v_D, u_D = jax.lax.fori_loop(0, ITERATIONS, iterate, start)
    return times(v_D, times(kernel_DD, u_D))


def _unit(x_D):
  return x_D / jnp.maximum(jnp.linalg.norm(x_D), SHORTEST)


class ResidualScale(nnx.Module):
  """(a1, b1, a2, b2), each broadcast over [B, L, D].

  Kinds: `none`, all one; `fixed`, two numbers that are not trained; `learned`,
  a vector for each; `input`, sigmoid(W u + c); `spectral`, the same of a
  `SpectralLinear`. With `outer_only` a1 = b1 = 1 and b2 = 1 - a2.
  """

  def __init__(
    self,
    kind: str,
    width: int,
    branches: int,
    *,
    inner: float,
    outer: float,
    outer_only: bool,
    rngs: nnx.Rngs,
  ):
    require_scales(kind, inner, outer)
    self.kind, self.branches, self.outer_only = kind, branches, outer_only
    make = lambda value: self._alpha(value, width, rngs)
    if kind != 'none':
      self.outer = make(outer)
      if not outer_only:
        self.inner = make(inner)

  def _alpha(self, value, width, rngs):
    if self.kind == 'fixed':
      return Frozen(jnp.float32(value))
    if self.kind == 'learned':
      return Param(jnp.full(width, math.log(value / (1 - value)), jnp.float32))
    if self.kind == 'spectral':
      return SpectralLinear(width, rngs=rngs)
    return nnx.Linear(width, width, rngs=rngs)

  def _value(self, alpha, u_BLD):
    if self.kind == 'fixed':
      return alpha[...].reshape(1, 1, 1)
    learned = self.kind == 'learned'
    logits = alpha[...][None, None] if learned else alpha(u_BLD)
    return jax.nn.sigmoid(logits)

  def __call__(
    self, u_BLD: Float[Array, 'B L D']
  ) -> tuple[Array, Array, Array, Array]:
    """The scales for this state."""
    one = jnp.ones((1, 1, 1))
    if self.kind == 'none':
      return one, one, one, one
    a2 = self._value(self.outer, u_BLD)
    if self.outer_only:
      return one, one, a2, 1 - a2
    a1 = self._value(self.inner, u_BLD)
    power = a1**self.branches
    b2 = 1 - a2 * power
    return a1, b2 * (1 - a1) / (1 - power + EPSILON), a2, b2
