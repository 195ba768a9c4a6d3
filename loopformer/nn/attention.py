"""Multi-head and grouped-query self-attention."""

import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from loopformer.nn.config import BlockConfig
from loopformer.nn.kernels import attend
from loopformer.nn.linear import Linear
from loopformer.nn.rotary import rotate_positions

MASKS = ('none', 'causal', 'window', 'prefix')


def mask_of(
  kind: str, length: int, *, window: int = 0, prefix: int = 0
) -> Bool[Array, 'T S'] | None:
  """Which positions s a position t may read; None for all.

  causal: s <= t. window: t - window < s <= t. prefix: s <= t, or both lie in
  the first `prefix` positions, which read each other in both directions.
  """
  if kind == 'none':
    return None
  t, s = jnp.arange(length)[:, None], jnp.arange(length)[None, :]
  if kind == 'causal':
    return s <= t
  if kind == 'window':
    return (s <= t) & (s > t - window)
  if kind == 'prefix':
    return (s <= t) | ((s < prefix) & (t < prefix))
  raise ValueError(f'mask must be one of {MASKS}, got {kind!r}.')


class Attention(nnx.Module):
  """Self-attention without biases; `kv_heads` groups share keys and values."""

  def __init__(self, cfg: BlockConfig, *, rngs: nnx.Rngs):
    self.cfg = cfg
    inner = cfg.heads * cfg.head_width
    kv = cfg.groups * cfg.head_width
    common = {'dtype': cfg.compute_dtype, 'rngs': rngs}
    self.qkv = Linear(cfg.width, inner + 2 * kv, 'embed', 'heads', **common)
    self.out = Linear(inner, cfg.width, 'heads', 'embed', **common)

  def __call__(
    self,
    x_BTD: Float[Array, 'B T D'],
  ) -> Float[Array, 'B T D']:
    """Mixes tokens."""
    cfg = self.cfg
    batch, length, _ = x_BTD.shape
    qkv = self.qkv(x_BTD).reshape(batch, length, -1, cfg.head_width)
    q, k, v = jnp.split(qkv, [cfg.heads, cfg.heads + cfg.groups], axis=2)
    if cfg.rotary != 'none':
      turn = functools.partial(
        rotate_positions,
        layout=cfg.rotary,
        theta=cfg.rotary_theta,
        columns=cfg.rotary_columns,
      )
      q, k = turn(q), turn(k)
    if cfg.temperature != 1:
      q = q / cfg.temperature
    mask = mask_of(cfg.mask, length, window=cfg.window, prefix=cfg.prefix)
    mixed_BTHK = attend(q, k, v, mask)
    return self.out(mixed_BTHK.reshape(batch, length, -1))
