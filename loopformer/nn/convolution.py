"""Depthwise convolutions over the tokens, as sums of shifted products.

Kernels are a few taps wide: shifted products are fast on every backend, where
grouped convolutions are not on CPU.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.config import require, require_one_of
from loopformer.nn.variables import Param, named

KINDS = ('none', 'line', 'square')


def require_taps(kind: str, taps: int) -> None:
  """Raises `ValueError` unless a convolution can have so many taps."""
  require_one_of('conv', kind, KINDS)
  if kind != 'none':
    require('conv_taps', taps, at_least=1)
  if kind == 'square' and taps % 2 == 0:
    raise ValueError(f'conv_taps must be odd on a square, got {taps}.')


class Depthwise(nnx.Module):
  """y_t = b + sum_j w_j x_{t + j - before}, for every channel on its own.

  `line` runs over the sequence and is causal: token t reads the `taps` tokens
  that end with t. `square` runs over the cells of a square grid, `taps` by
  `taps` around each cell; beyond the border there are zeros.

  Raises:
    ValueError: for no taps, or an even number of them on a square.
  """

  def __init__(
    self,
    kind: str,
    width: int,
    taps: int,
    *,
    bias: bool = False,
    name: str = 'embed',
    rngs: nnx.Rngs,
  ):
    require_taps(kind, taps)
    self.kind = kind
    shape = (taps,) if kind == 'line' else (taps, taps)
    uniform = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
    init = named(uniform, *(None,) * len(shape), None, name)
    self.kernel = Param(init(rngs.params(), (*shape, 1, width)))
    bound = math.prod(shape) ** -0.5
    if bias:
      draw = jax.random.uniform(rngs.params(), (width,), jnp.float32, -1, 1)
      self.bias = Param(bound * draw)
    else:
      self.bias = None

  def __call__(self, x_BTD: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
    """Convolves; shapes and dtype stay.

    Raises:
      ValueError: if the tokens are no square grid and the kind is `square`.
    """
    kernel = self.kernel[...].astype(x_BTD.dtype)
    batch, length, width = x_BTD.shape
    shape: Any = (length,)
    if self.kind == 'square':
      side = math.isqrt(length)
      if side * side != length:
        raise ValueError(
          f'tokens must be a square grid for conv = square, got {length}.'
        )
      shape = (side, side)
    y = _taps(x_BTD.reshape(batch, *shape, width), kernel, self.kind)
    y_BTD = y.reshape(x_BTD.shape)
    return y_BTD if self.bias is None else y_BTD + self.bias.astype(y.dtype)


def _taps(x: Array, kernel: Array, kind: str) -> Array:
  """The sum over taps of shifted copies of x."""
  taps = kernel.shape[0]
  before = taps - 1 if kind == 'line' else taps // 2
  after = 0 if kind == 'line' else taps // 2
  axes = range(kernel.ndim - 2)
  padded = jnp.pad(x, [(0, 0), *((before, after) for _ in axes), (0, 0)])
  total = jnp.zeros_like(x)
  for offset in itertools.product(range(taps), repeat=len(axes)):
    window = padded
    for axis, start in zip(axes, offset, strict=True):
      size = x.shape[axis + 1]
      window = jax.lax.slice_in_dim(window, start, start + size, axis=axis + 1)
    total = total + kernel[offset][0] * window
  return total
