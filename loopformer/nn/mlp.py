"""Position-wise MLPs: SwiGLU, GELU and squared ReLU."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.config import BlockConfig
from loopformer.nn.variables import named


class MLP(nnx.Module):
  """W2 act(W1 x) without biases.

  swiglu: W1 x = [g; u] and act = silu(g) u (arXiv:2002.05202). gelu: the
  tanh form. relu2: relu(x)^2 (arXiv:2109.08668).
  """

  def __init__(self, cfg: BlockConfig, *, rngs: nnx.Rngs):
    self.kind = cfg.mlp
    gated = 2 if cfg.mlp == 'swiglu' else 1
    init = nnx.initializers.lecun_normal()

    def linear(features_in, features_out, *names):
      return nnx.Linear(
        features_in,
        features_out,
        use_bias=False,
        dtype=cfg.compute_dtype,
        kernel_init=named(init, *names),
        rngs=rngs,
      )

    self.up = linear(cfg.width, gated * cfg.hidden_width, 'embed', 'mlp')
    self.down = linear(cfg.hidden_width, cfg.width, 'mlp', 'embed')

  def __call__(self, x_BTD: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
    """Applies the MLP to every position."""
    hidden = self.up(x_BTD)
    if self.kind == 'swiglu':
      gate, value = jnp.split(hidden, 2, -1)
      hidden = jax.nn.silu(gate) * value
    elif self.kind == 'gelu':
      hidden = jax.nn.gelu(hidden)
    else:
      hidden = jnp.square(jax.nn.relu(hidden))
    return self.down(hidden)
