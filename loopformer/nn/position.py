"""Signals of position and recurrence, keyed initial states and noise."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from loopformer.core.rows import fold_rows, keyed_normal
from loopformer.nn.config import require_one_of

STARTS = ('zero', 'embed', 'normal')


def sinusoid(
  index: Int[Array, '*shape'], width: int, *, period: float = 1e4
) -> Float[Array, '*shape D']:
  """sin and cos of index / period^(2i/D), the sines first (arXiv:1706.03762).

  The Universal Transformer (arXiv:1807.03819, eqs. 6, 7) adds this signal for
  the position and for the recurrence, at every recurrence.

  Raises:
    ValueError: if the width is odd.
  """
  if width % 2:
    raise ValueError(f'width must be even for sinusoids, got {width}.')
  rates = period ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
  angles = index[..., None].astype(jnp.float32) * rates
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def initial_state(
  kind: str,
  context_BTD: Float[Array, 'B T D'],
  keys_B: Any,
  *,
  scale: float = 1.0,
  width: int | None = None,
  positions_BT: Int[Array, 'B T'] | None = None,
) -> Float[Array, 'B T S']:
  """s_0: zeros, the context, or truncated noise keyed by (row, position).

  Args:
    kind: `zero`, `embed` or `normal`.
    context_BTD: the prelude's output.
    keys_B: one key per row; needed for `normal`.
    scale: standard deviation of the normal before its cut at three of them.
    width: width of the state, if not D.
    positions_BT: positions that key the noise; 0 .. T - 1 for None.

  Raises:
    ValueError: if noise is asked for without keys.
  """
  require_one_of('start', kind, STARTS)
  batch, length, context_width = context_BTD.shape
  width = width or context_width
  if kind == 'zero':
    return jnp.zeros((batch, length, width), jnp.float32)
  if kind == 'embed':
    if width != context_width:
      raise ValueError(
        f'start = embed needs a state of width {context_width}, got {width}.'
      )
    return context_BTD.astype(jnp.float32)
  if keys_B is None:
    raise ValueError('keys must be given for a normal initial state, got None.')
  noise = keyed_normal(
    keys_B, (length, width), truncate=3.0, positions_BT=positions_BT
  )
  return scale * noise


def path_noise(
  keys_B: Any, call: Any, like_BLD: Float[Array, 'B L D'], std: float
) -> Float[Array, 'B L D'] | float:
  """std N(0, 1), keyed by (row, recurrence, call, position); 0 for std 0.

  Raises:
    ValueError: if noise is asked for without keys.
  """
  if not std:
    return 0.0
  if keys_B is None:
    raise ValueError(f'keys must be given for noise = {std}, got None.')
  calls_B = jnp.full(like_BLD.shape[:1], call, jnp.int32)
  return std * keyed_normal(fold_rows(keys_B, calls_B), like_BLD.shape[1:])
