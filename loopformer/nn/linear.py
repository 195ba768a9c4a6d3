"""The linear layer of attention and MLPs."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.kernels import linear, linear_by_panels
from loopformer.nn.variables import Param, named


class Linear(nnx.Module):
  """y = x W (+ b), float32 weights, products in `dtype`.

  With an `axis` of a mesh x and W are one device's share of the inputs, and x W
  is summed over it, see `loopformer.nn.shares`.
  """

  def __init__(
    self,
    features_in: int,
    features_out: int,
    *names: str | None,
    bias: bool = False,
    dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
  ):
    init = named(nnx.initializers.lecun_normal(), *names)
    self.kernel = Param(init(rngs.params(), (features_in, features_out)))
    zeros = named(nnx.initializers.zeros, *names[-1:])
    self.bias = Param(zeros(None, (features_out,))) if bias else None
    self.dtype = jnp.dtype(dtype)
    self.axis: str | None = None

  def __call__(self, x: Float[Array, '*batch I']) -> Float[Array, '*batch O']:
    """Applies W to the last axis."""
    kernel = self.kernel[...].astype(self.dtype)
    multiply = linear if kernel.ndim == 2 else linear_by_panels
    y = multiply(x.astype(self.dtype), kernel)
    y = y if self.axis is None else jax.lax.psum(y, self.axis)
    return y if self.bias is None else y + self.bias.astype(self.dtype)
