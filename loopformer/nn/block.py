"""One attention and one MLP with the four published norm placements.

    pre              x <- x + f(N x)
    post             x <- N(x + f x)
    sandwich_sum     x <- N'(x + f(N x))     Huginn, arXiv:2502.05171
    sandwich_branch  x <- x + N' f(N x)      Ouro, arXiv:2510.25741

The last two are both called sandwich norm and are not the same map.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.core import LoopInfo
from loopformer.nn.attention import Attention, Extra
from loopformer.nn.cache import Cache, View
from loopformer.nn.config import BlockConfig
from loopformer.nn.kernels import rms_normalise
from loopformer.nn.mlp import MLP
from loopformer.nn.place import Place
from loopformer.nn.stack import apply_stack, stack, unrolled
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
    self.layer: Any = layer
    self.style = cfg.style
    self.norm = make_norm(cfg, rngs=rngs)
    if cfg.style.startswith('sandwich'):
      self.norm_out = make_norm(cfg, rngs=rngs)

  def __call__(
    self,
    x_BTD: Float[Array, 'B T D'],
    scales: tuple[Array, Array] | None = None,
    **given: Any,
  ) -> Float[Array, 'B T D']:
    """Applies the sub-layer in the block's style.

    With `scales` = (a, b) the sum x + f is a x + b f. What else is given goes
    to the sub-layer.
    """
    branch_BTD = self.layer(self.enter(x_BTD), **given)
    return self.leave(x_BTD, branch_BTD, scales)

  def enter(self, x_BTD: Float[Array, 'B T D']) -> Float[Array, 'B T D']:
    """What the sub-layer reads."""
    return x_BTD if self.style == 'post' else self.norm(x_BTD)

  def leave(
    self,
    x_BTD: Float[Array, 'B T D'],
    branch_BTD: Float[Array, 'B T D'],
    scales: tuple[Array, Array] | None = None,
  ) -> Float[Array, 'B T D']:
    """Joins what the sub-layer returned with the residual stream."""
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

  def __call__(
    self,
    x_BTD: Float[Array, 'B T D'],
    place: Place | None = None,
    extra: Extra = None,
  ) -> Float[Array, 'B T D']:
    """x -> mlp(attention(x)), each with norms and residual."""
    return self.mlp(self.attention(x_BTD, place=place, extra=extra))

  def cached(
    self,
    x_BTD: Float[Array, 'B T D'],
    place: Place,
    view: View,
    index: Any,
    extra: Extra = None,
  ) -> tuple[Float[Array, 'B T D'], View]:
    """The same with the keys and values of earlier tokens."""
    branch = self.attention
    mixed_BTD, view = branch.layer.cached(
      branch.enter(x_BTD), place, view, index, extra
    )
    return self.mlp(branch.leave(x_BTD, mixed_BTD)), view


class Block(nnx.Module):
  """Some layers in a row, stacked and scanned."""

  def __init__(self, cfg: BlockConfig, depth: int, *, rngs: nnx.Rngs):
    self.layers = stack(
      lambda layer_rngs: Layer(cfg, rngs=layer_rngs), depth, rngs=rngs
    )

  def __call__(
    self,
    x_BTD: Float[Array, 'B T D'],
    place: Place | None = None,
    view: View | None = None,
    extras: Sequence[Extra] | None = None,
  ) -> tuple[Float[Array, 'B T D'], View | None]:
    """Applies the layers in turn.

    Args:
      x_BTD: what enters the first layer.
      place: where the tokens stand; None for rows without padding.
      view: keys and values of earlier tokens, which need a place; or None.
      extras: what is added to the values of each layer, or None.

    Returns:
      What leaves the last layer, and the view with the new keys and values.
    """

    def call(layer, carry, index):
      x_BTD, view = carry
      extra = None if extras is None else extras[index]
      if view is None:
        return layer(x_BTD, place, extra), None
      return layer.cached(x_BTD, place, view, index, extra)

    if extras is not None:
      return unrolled(self.layers, (x_BTD, view), call)
    return apply_stack(self.layers, (x_BTD, view), call)

  def through(
    self,
    x_BTD: Float[Array, 'B T D'],
    place: Place | None,
    cache: Cache | None,
    name: str,
    call: Any = 0,
    live_B: Array | None = None,
    extras: Sequence[Extra] | None = None,
  ) -> tuple[Float[Array, 'B T D'], Cache | None]:
    """Applies the layers in turn, with the part `name` of a cache, or without.

    The keys and values are those of one `call` of the part; rows that are not
    live write none.
    """
    if cache is None:
      return self(x_BTD, place, extras=extras)[0], None
    view = cache.view(name, call, live_B)
    x_BTD, view = self(x_BTD, place, view, extras)
    return x_BTD, cache.put(name, view)

  def recur(
    self,
    x_BTD: Float[Array, 'B T D'],
    place: Place | None,
    aux: Any,
    info: LoopInfo,
    name: str = 'block',
  ) -> tuple[Float[Array, 'B T D'], Any]:
    """Applies the layers in a recurrence; `aux` is a cache, or empty.

    A cache keeps the keys and values under `name`, in the slot of this one.
    """
    cache = aux if isinstance(aux, Cache) else None
    x_BTD, cache = self.through(x_BTD, place, cache, name, info.t, info.live_B)
    return x_BTD, aux if cache is None else cache
