"""Position-wise MLPs: SwiGLU, GELU and squared ReLU."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.config import BlockConfig
from loopformer.nn.convolution import Depthwise
from loopformer.nn.kernels import swiglu
from loopformer.nn.linear import Linear


class MLP(nnx.Module):
  """W2 act(W1 x) without biases.

  swiglu: W1 x = [g; u] and act = silu(g) u (arXiv:2002.05202). gelu: the
  tanh form. relu2: relu(x)^2 (arXiv:2109.08668). With `taps` the activation
  is followed by a causal depthwise convolution over the tokens and another
  silu: URM's ConvSwiGLU (arXiv:2512.14693).
  """

  def __init__(self, cfg: BlockConfig, *, taps: int = 0, rngs: nnx.Rngs):
    self.kind = cfg.mlp
    gated = 2 if cfg.mlp == 'swiglu' else 1
    common = {'dtype': cfg.compute_dtype, 'rngs': rngs}
    self.up = Linear(
      cfg.width, gated * cfg.hidden_width, 'embed', 'mlp', **common
    )
    self.down = Linear(cfg.hidden_width, cfg.width, 'mlp', 'embed', **common)
    if taps:
      self.convolution = Depthwise(
        'line', cfg.hidden_width, taps, bias=True, name='mlp', rngs=rngs
      )
    self.taps = taps

  def __call__(self, x_BTD: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
    """Applies the MLP to every position."""
    hidden = self.up(x_BTD)
    if self.kind == 'swiglu':
      hidden = swiglu(hidden)
    elif self.kind == 'gelu':
      hidden = jax.nn.gelu(hidden)
    else:
      hidden = jnp.square(jax.nn.relu(hidden))
    if self.taps:
      hidden = jax.nn.silu(self.convolution(hidden))
    return self.down(hidden)
