"""Multi-head and grouped-query self-attention."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.cache import Store, View
from loopformer.nn.config import BlockConfig
from loopformer.nn.gates import gated
from loopformer.nn.kernels import attend, attend_past, rms_normalise
from loopformer.nn.linear import Linear
from loopformer.nn.place import Place, mask_of
from loopformer.nn.rotary import rotate_by, tables_of
from loopformer.nn.variables import Param

# What is added to the values of a layer, see `loopformer.nn.value_embedding`.
Extra = Any


class Attention(nnx.Module):
  """Self-attention; `kv_heads` groups share keys and values.

  q, k, v = W_q x, W_k x, W_v x        k, q (clipped), (+ bias), rotated,
                                       (normalised); v (+ extra), (clipped)
  y = W_o (softmax(q k^T / sqrt(K)) v (* sigmoid(W_g x)))
  """

  def __init__(self, cfg: BlockConfig, *, rngs: nnx.Rngs):
    self.cfg = cfg
    inner = cfg.heads * cfg.head_width
    kv = cfg.groups * cfg.head_width
    gate = inner if cfg.gated else 0
    common = {
      'bias': cfg.attention_bias,
      'dtype': cfg.compute_dtype,
      'rngs': rngs,
    }
    self.qkv = Linear(
      cfg.width, inner + 2 * kv + gate, 'embed', 'heads', **common
    )
    self.out = Linear(inner, cfg.width, 'heads', 'embed', **common)
    if cfg.qk_bias:
      self.qk_bias = Param(jnp.zeros((2, cfg.heads, cfg.head_width)))

  def __call__(
    self,
    x_BTD: Float[Array, 'B T D'],
    place: Place | None = None,
    extra: Extra = None,
  ) -> Float[Array, 'B T D']:
    """Mixes tokens: at their place, or in rows without padding for None."""
    q, k, v, gate = self.project(x_BTD, place, extra)
    return self.mix(q, k, v, gate, place)

  def cached(
    self,
    x_BTD: Float[Array, 'B T D'],
    place: Place,
    view: View,
    layer: Any,
    extra: Extra = None,
  ) -> tuple[Float[Array, 'B T D'], View]:
    """The same with the keys and values of earlier tokens."""
    q, k, v, gate = self.project(x_BTD, place, extra)
    past = view.past(layer)
    view = view.written(k, v, layer)
    return self.mix(q, k, v, gate, place, past), view

  def project(
    self, x_BTD: Array, place: Place | None, extra: Extra
  ) -> tuple[Array, Array, Array, Array | None]:
    """Queries, keys and values at their positions, and the gate's logits."""
    cfg = self.cfg
    batch, length, _ = x_BTD.shape
    inner = cfg.heads * cfg.head_width
    joined = self.qkv(x_BTD)
    gate_BTI = joined[..., -inner:] if cfg.gated else None
    joined = joined[..., :-inner] if cfg.gated else joined
    qkv = joined.reshape(batch, length, -1, cfg.head_width)
    q, k, v = jnp.split(qkv, [cfg.heads, cfg.heads + cfg.groups], axis=2)
    if extra is not None:
      v = v + extra(x_BTD)
    if cfg.clip_qkv:
      q, k, v = (jnp.clip(x, -cfg.clip_qkv, cfg.clip_qkv) for x in (q, k, v))
    return *self.turn(q, k, place), v, gate_BTI

  def turn(self, q: Array, k: Array, place: Place | None) -> tuple:
    """Adds biases, rotates, normalises and tempers queries and keys."""
    cfg = self.cfg
    if cfg.qk_bias:
      q, k = q + self.qk_bias[0], k + self.qk_bias[1]
    if place is None:
      tables = tables_of(cfg, jnp.arange(q.shape[1]))
    else:
      tables = place.tables
    q, k = (rotate_by(x, tables, layout=cfg.rotary) for x in (q, k))
    if cfg.qk_norm:
      epsilon = float(jnp.finfo(jnp.float32).eps)
      q, k = (rms_normalise(x, epsilon) for x in (q, k))
    return (q / cfg.temperature if cfg.temperature != 1 else q), k

  def mix(
    self,
    q: Array,
    k: Array,
    v: Array,
    gate_BTI: Array | None,
    place: Place | None,
    past: Store | None = None,
  ) -> Float[Array, 'B T D']:
    """Reads the values and projects them back."""
    cfg, (batch, length, *_) = self.cfg, q.shape
    if place is None:
      mask = mask_of(cfg.mask, length, window=cfg.window, prefix=cfg.prefix)
    else:
      mask = place.mask_BTT
    if past is None or place is None:
      mixed = attend(q, k, v, mask)
    else:
      mixed = attend_past(q, *past, place.past_BTS, k, v, mask)
    mixed_BTI = mixed.reshape(batch, length, -1)
    if gate_BTI is not None:
      mixed_BTI = gated(mixed_BTI, gate_BTI)
    return self.out(mixed_BTI)
