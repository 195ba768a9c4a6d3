"""The linear layer of attention and MLPs."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.kernels import linear
from loopformer.nn.variables import Param, named


class Linear(nnx.Module):
  """y = x W without a bias, float32 weights, products in `dtype`."""

  def __init__(
    self,
    features_in: int,
    features_out: int,
    *names: str,
    dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
  ):
    init = named(nnx.initializers.lecun_normal(), *names)
    self.kernel = Param(init(rngs.params(), (features_in, features_out)))
    self.dtype = jnp.dtype(dtype)

  def __call__(self, x: Float[Array, '*batch I']) -> Float[Array, '*batch O']:
    """Applies W to the last axis."""
    return linear(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
