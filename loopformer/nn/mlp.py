"""Position-wise MLPs: SwiGLU, GELU, squared ReLU and their likes."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.config import BlockConfig
from loopformer.nn.convolution import Depthwise
from loopformer.nn.gates import swiglu
from loopformer.nn.linear import Linear

ACTIVATIONS = {
  'gelu': jax.nn.gelu,
  'gelu_exact': lambda x: jax.nn.gelu(x, approximate=False),
  'relu': jax.nn.relu,
  'relu2': lambda x: jnp.square(jax.nn.relu(x)),
  'half_relu2': lambda x: 0.5 * jnp.square(jax.nn.relu(x)),
  'silu': jax.nn.silu,
}

GATED = 'gated_'


def is_gated(kind: str) -> bool:
  """Whether W1 is twice as wide: it makes a gate and what the gate lets by."""
  return kind == 'swiglu' or kind.startswith(GATED)


def activate(
  kind: str, x: Float[Array, '*batch G']
) -> Float[Array, '*batch F']:
  """act(x), or act(g) u for a gated kind and x = [g; u]."""
  if kind == 'swiglu':
    return swiglu(x)
  if not kind.startswith(GATED):
    return ACTIVATIONS[kind](x)
  gate, value = jnp.split(x, 2, -1)
  return ACTIVATIONS[kind.removeprefix(GATED)](gate) * value


class MLP(nnx.Module):
  """W2 act(W1 x), with biases if `mlp_bias`.

  swiglu: W1 x = [g; u] and act = silu(g) u (arXiv:2002.05202); gated_f:
  f(g) u. gelu: the tanh form; gelu_exact: with erf. relu2: relu(x)^2
  (arXiv:2109.08668); half_relu2: relu(x)^2 / 2, as the code of Parcae has it.
  With `taps` the activation is followed by a causal depthwise convolution over
  the tokens and another silu: URM's ConvSwiGLU (arXiv:2512.14693).
  """

  def __init__(self, cfg: BlockConfig, *, taps: int = 0, rngs: nnx.Rngs):
    self.kind = cfg.mlp
    gated = 2 if is_gated(cfg.mlp) else 1
    common = {
      'bias': cfg.mlp_bias,
      'dtype': cfg.compute_dtype,
      'rngs': rngs,
    }
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
    hidden = activate(self.kind, hidden)
    if self.taps:
      hidden = jax.nn.silu(self.convolution(hidden))
    return self.down(hidden)
