"""One attention and one MLP with the four published norm placements.

    pre              x <- x + f(N x)
    post             x <- N(x + f x)
    sandwich_sum     x <- N'(x + f(N x))     Huginn, arXiv:2502.05171
    sandwich_branch  x <- x + N' f(N x)      Ouro, arXiv:2510.25741

The last two are both called sandwich norm and are not the same map.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.attention import Attention
from loopformer.nn.config import BlockConfig
from loopformer.nn.kernels import rms_normalise
from loopformer.nn.mlp import MLP
from loopformer.nn.stack import apply_stack, stack
from loopformer.nn.variables import Param


class RMSNorm(nnx.Module):
  """y = g x / sqrt(mean(x^2) + epsilon), in float32; g is optional."""

  def __init__(self, cfg: BlockConfig, *, rngs: nnx.Rngs):
    del rngs
    self.epsilon = cfg.epsilon
    self.scale = Param(jnp.ones(cfg.width)) if cfg.norm_gain else None

  def __call__(self, x_BTD: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
    """Normalises the last axis."""
    y_BTD = rms_normalise(x_BTD, self.epsilon)
    return y_BTD if self.scale is None else y_BTD * self.scale


def make_norm(cfg: BlockConfig, *, rngs: nnx.Rngs) -> nnx.Module:
  """Root-mean-square or layer norm over the width, computed in float32."""
  if cfg.norm == 'rms':
    return RMSNorm(cfg, rngs=rngs)
  return nnx.LayerNorm(
    cfg.width,
    epsilon=cfg.epsilon,
    use_scale=cfg.norm_gain,
    use_bias=cfg.norm_gain,
    rngs=rngs,
  )


class Branch(nnx.Module):
  """A sub-layer f with its norms and its residual connection."""

  def __init__(self, layer: nnx.Module, cfg: BlockConfig, *, rngs: nnx.Rngs):
    self.layer = layer
    self.style = cfg.style
    self.norm = make_norm(cfg, rngs=rngs)
    if cfg.style.startswith('sandwich'):
      self.norm_out = make_norm(cfg, rngs=rngs)

  def __call__(
    self,
    x_BTD: Float[Array, 'B T D'],
    scales: tuple[Array, Array] | None = None,
  ) -> Float[Array, 'B T D']:
    """Applies the sub-layer in the block's style.

    With `scales` = (a, b) the sum x + f is a x + b f.
    """
    before = x_BTD if self.style == 'post' else self.norm(x_BTD)
    branch_BTD = self.layer(before)
    if self.style == 'sandwich_branch':
      branch_BTD = self.norm_out(branch_BTD)
    if scales is not None:
      x_BTD, branch_BTD = scales[0] * x_BTD, scales[1] * branch_BTD
    sum_BTD = x_BTD + branch_BTD
    if self.style == 'post':
      return self.norm(sum_BTD)
    return self.norm_out(sum_BTD) if self.style == 'sandwich_sum' else sum_BTD


class Layer(nnx.Module):
  """Attention, then MLP."""

  def __init__(self, cfg: BlockConfig, *, rngs: nnx.Rngs):
    self.attention = Branch(Attention(cfg, rngs=rngs), cfg, rngs=rngs)
    self.mlp = Branch(MLP(cfg, rngs=rngs), cfg, rngs=rngs)

  def __call__(self, x_BTD: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
    """x -> mlp(attention(x)), each with norms and residual."""
    return self.mlp(self.attention(x_BTD))


class Block(nnx.Module):
  """Some layers in a row, stacked and scanned."""

  def __init__(self, cfg: BlockConfig, depth: int, *, rngs: nnx.Rngs):
    self.layers = stack(
      lambda layer_rngs: Layer(cfg, rngs=layer_rngs), depth, rngs=rngs
    )

  def __call__(self, x_BTD: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
    """Applies the layers in turn."""
    return apply_stack(self.layers, x_BTD, lambda layer, h: layer(h))
