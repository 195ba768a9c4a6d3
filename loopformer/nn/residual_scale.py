"""Residual scales that bound a looped state (FPRM, arXiv:2606.18206).

    h = a2 u + b2 x,    h <- a1 h + b1 f(N h)    for each of n branches

with a1, a2 in (0, 1) and b1, b2 tied to them so that the state stays bounded
by max(|x|, |f|): b2 = 1 - a2 a1^n and b1 = b2 (1 - a1) / (1 - a1^n + 1e-5).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.config import require_one_of
from loopformer.nn.variables import Frozen, Param

KINDS = ('none', 'fixed', 'learned', 'input')
EPSILON = 1e-5


def require_scales(kind: str, inner: float, outer: float) -> None:
  """Raises `ValueError` unless kind and scales at the start are allowed."""
  require_one_of('residual_scale', kind, KINDS)
  for name, value in {'alpha_inner': inner, 'alpha_outer': outer}.items():
    if not 0 < value < 1:
      raise ValueError(f'{name} must be in (0, 1), got {value}.')


class ResidualScale(nnx.Module):
  """(a1, b1, a2, b2), each broadcast over [B, L, D].

  Kinds: `none`, all one; `fixed`, two numbers that are not trained; `learned`,
  a vector for each; `input`, sigmoid(W u + c). With `outer_only` a1 = b1 = 1
  and b2 = 1 - a2.
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
    return nnx.Linear(width, width, rngs=rngs)

  def _value(self, alpha, u_BLD):
    if self.kind == 'fixed':
      return alpha[...].reshape(1, 1, 1)
    logits = alpha(u_BLD) if self.kind == 'input' else alpha[...][None, None]
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
