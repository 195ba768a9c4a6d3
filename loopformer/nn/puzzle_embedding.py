"""Embedding of puzzles: a grid of tokens behind a few prefix tokens.

    x = sqrt(D) [p_1 .. p_P, E[grid]]                    learned positions:
    x = sqrt(D / 2) ([p_1 .. p_P, E[grid]] + positions)

p is one vector per puzzle id, cut into P tokens and padded with zeros, which
act as registers (HRM, arXiv:2506.21734; TRM, arXiv:2510.04871).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from loopformer.nn.config import require
from loopformer.nn.variables import Param, Table, named

# Standard deviation of a standard normal cut at two of them.
CUT_AT_TWO = 0.8796256610342398


def truncated_normal(std: float):
  """Initialiser: a normal cut at two deviations, its own deviation `std`."""
  return nnx.initializers.truncated_normal(std / CUT_AT_TWO)


class PuzzleEmbedding(nnx.Module):
  """Prefix and grid tokens of unit scale."""

  def __init__(
    self,
    vocab_size: int,
    width: int,
    *,
    seq_len: int,
    puzzles: int,
    puzzle_width: int,
    prefix: int,
    learned_positions: bool,
    rngs: nnx.Rngs,
  ):
    self.width, self.prefix = width, prefix
    init = truncated_normal(width**-0.5)
    table = named(init, 'vocab', 'embed')
    self.tokens = Param(table(rngs.params(), (vocab_size, width)))
    if puzzle_width:
      self.puzzles = Table(jnp.zeros((puzzles, puzzle_width)))
    else:
      self.puzzles = None
    if learned_positions:
      shape = (prefix + seq_len, width)
      self.positions = Param(named(init, None, 'embed')(rngs.params(), shape))
    else:
      self.positions = None

  def rows(self, puzzles_B: Int[Array, ' B']) -> Float[Array, 'B E'] | None:
    """The vectors of puzzle ids, of which the trainer wants the gradient."""
    return None if self.puzzles is None else self.puzzles[...][puzzles_B]

  def __call__(
    self,
    inputs_BT: Int[Array, 'B T'],
    puzzle_rows_BE: Float[Array, 'B E'] | None = None,
  ) -> Float[Array, 'B L D']:
    """Embeds; without `puzzle_rows_BE` every sample is puzzle 0."""
    x_BLD = self.tokens[...][inputs_BT]
    batch = inputs_BT.shape[0]
    if self.prefix:
      rows_BE: Any = puzzle_rows_BE
      if rows_BE is None:
        rows_BE = self.rows(jnp.zeros(batch, jnp.int32))
      room = self.prefix * self.width - rows_BE.shape[-1]
      flat = jnp.pad(rows_BE, ((0, 0), (0, room)))
      front = flat.reshape(batch, self.prefix, self.width)
      x_BLD = jnp.concatenate([front.astype(x_BLD.dtype), x_BLD], 1)
    if self.positions is not None:
      x_BLD = (x_BLD + self.positions[...]) * 2**-0.5
    return self.width**0.5 * x_BLD


def prefix_tokens(puzzle_width: int, width: int, prefix: int) -> int:
  """P: as given, or as many as the puzzle's vector fills; 0 without one.

  Raises:
    ValueError: if the vector is longer than the prefix.
  """
  require('puzzle_width', puzzle_width, at_least=0)
  require('prefix', prefix, at_least=0)
  if not puzzle_width:
    return 0
  tokens = prefix or -(-puzzle_width // width)
  if puzzle_width > tokens * width:
    raise ValueError(
      f'puzzle_width must be <= prefix * width = {tokens * width}, got '
      f'{puzzle_width}.'
    )
  return tokens


def truncated_state(draws: jax.Array, std: float) -> jax.Array:
  """Draws of a normal cut at two deviations, scaled to deviation `std`."""
  return draws * (std / CUT_AT_TWO)
