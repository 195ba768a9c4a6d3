"""Rotary position embedding (arXiv:2104.09864), in both published layouts."""

import functools
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real

from loopformer.nn.config import BlockConfig

LAYOUTS = ('half', 'interleaved')
# Cosines and sines, a pair for each part of a head.
Tables = tuple[tuple[Array, Array], ...]


def rotary_table(
  positions_T: Real[Array, '*batch T'], head_width: int, *, theta: float = 1e4
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


def tables_of(cfg: BlockConfig, positions_T: Int[Array, '*batch T']) -> Tables:
  """What every layer of a block turns the tokens of a call by.

  Positions are divided by `rotary_condense`. In layout `grid` (EqR,
  arXiv:2605.21488) token t is cell t of a board: the first half of a head turns
  by its row and the second by its column. The board has as many columns as
  given, or is a square for 0.

  Returns:
    No table without rotary positions, two in layout `grid`, else one.

  Raises:
    ValueError: if T cells make no such board in layout `grid`.
  """
  if cfg.rotary == 'none':
    return ()
  table = functools.partial(rotary_table, theta=cfg.rotary_theta)
  if cfg.rotary != 'grid':
    condense = cfg.rotary_condense
    places_T = positions_T / condense if condense != 1 else positions_T
    return (table(places_T, cfg.head_width),)
  columns = _board_columns(positions_T.shape[-1], cfg.rotary_columns)
  sides = positions_T // columns, positions_T % columns
  return tuple(table(side_T, cfg.head_width // 2) for side_T in sides)


def _board_columns(length, columns):
  square = not columns
  columns = columns or math.isqrt(length)
  if length % columns or (square and length != columns**2):
    board = 'a square' if square else f'rows of {columns}'
    raise ValueError(f'tokens must be {board} for rotary grid, got {length}.')
  return columns


def rotate_by(
  x_BTHK: Float[Array, 'B T H K'], tables: Tables, *, layout: str
) -> Float[Array, 'B T H K']:
  """Turns equal parts of each head by a table each, one after the other."""
  if not tables:
    return x_BTHK
  layout = 'half' if layout == 'grid' else layout
  parts = jnp.split(x_BTHK, len(tables), -1)
  turned = [
    rotate(part, table, layout=layout)
    for part, table in zip(parts, tables, strict=True)
  ]
  return turned[0] if len(turned) == 1 else jnp.concatenate(turned, -1)
