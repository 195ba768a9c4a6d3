"""Rotary position embedding (arXiv:2104.09864), in both published layouts."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

LAYOUTS = ('half', 'interleaved')


def rotary_table(
  positions_T: Int[Array, '*batch T'], head_width: int, *, theta: float = 1e4
) -> tuple[Float[Array, '*batch T K2'], Float[Array, '*batch T K2']]:
  """cos and sin of m theta^(-2i/K) for position m and pair i < K/2, float32.

  Raises:
    ValueError: if the head width is odd.
  """
  if head_width % 2:
    raise ValueError(f'head_width must be even for rotary, got {head_width}.')
  exponents = jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width
  angles = positions_T[..., None].astype(jnp.float32) / theta**exponents
  return jnp.cos(angles), jnp.sin(angles)


def rotate(
  x_BTHK: Float[Array, 'B T H K'],
  table: tuple[Array, Array],
  *,
  layout: str = 'half',
) -> Float[Array, 'B T H K']:
  """Turns each pair (a, b) by its angle: (a cos - b sin, b cos + a sin).

  Pair i is (x_i, x_{i + K/2}) in layout `half` (Llama, HRM, Ouro) and
  (x_{2i}, x_{2i+1}) in layout `interleaved` (Huginn, Parcae).
  """
  if layout not in LAYOUTS:
    raise ValueError(f'layout must be one of {LAYOUTS}, got {layout!r}.')
  cos, sin = (part[..., None, :] for part in table)
  wide = x_BTHK.astype(jnp.float32)
  if layout == 'half':
    # Signed sines and a roll: no half is split off or joined.
    cos = jnp.concatenate([cos, cos], -1)
    sin = jnp.concatenate([-sin, sin], -1)
    turned = wide * cos + jnp.roll(wide, wide.shape[-1] // 2, -1) * sin
  else:
    a, b = wide[..., 0::2], wide[..., 1::2]
    turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], -1)
    turned = turned.reshape(wide.shape)
  return turned.astype(x_BTHK.dtype)
