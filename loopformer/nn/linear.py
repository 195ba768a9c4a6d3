"""The linear layer of attention and MLPs."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.kernels import linear, linear_by_panels, panels
from loopformer.nn.variables import Param, named


class Linear(nnx.Module):
  """y = x W (+ b), float32 weights, products in `dtype`.

  With an `axis` of a mesh x and W are one device's share of the inputs, and x W
  is summed over it, see `loopformer.nn.shares`. With W in panels `outputs` are
  its columns, see `loopformer.nn.kernels.panels`.
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
    self.outputs: int | None = None

  def __call__(self, x: Float[Array, '*batch I']) -> Float[Array, '*batch O']:
    """Applies W to the last axis."""
    kernel = self.kernel[...].astype(self.dtype)
    x = x.astype(self.dtype)
    if self.outputs is None:
      y = linear(x, kernel)
    else:
      y = linear_by_panels(x, kernel, self.outputs)
    y = y if self.axis is None else jax.lax.psum(y, self.axis)
    return y if self.bias is None else y + self.bias.astype(self.dtype)

  def cut(self, columns: int) -> None:
    """Puts W in panels, if their zeros are at most an eighth of it."""
    kernel = self.kernel[...]
    outputs = kernel.shape[-1]
    if 8 * (-outputs % columns) <= outputs:
      self.outputs = outputs
      self.kernel.set_value(panels(kernel, columns))
