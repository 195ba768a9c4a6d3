"""Where the tokens of a call stand, and which of them a token may read.

A batch of prompts is padded, several documents share a row, a cache holds what
came before: in all three cases the index in the array is not the position in
the text. `Place` carries both facts into every layer, made once per call.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from loopformer.nn.config import BlockConfig
from loopformer.nn.rotary import Tables, tables_of

MASKS = ('none', 'causal', 'window', 'prefix')


class Place(NamedTuple):
  """Positions of the tokens of a call and what they may read.

  Attributes:
    positions_BT: position of each token in its text, for rotary and learned
      positions and for the keys of initial states. Padding takes none.
    mask_BTT: whether token t may read token s of the same call.
    tables: what rotary layers turn the tokens by, made of their positions.
    past_BTS: whether it may read key s of a cache, or None without one.
  """

  positions_BT: Int[Array, 'B T']
  mask_BTT: Bool[Array, 'B T T']
  tables: Tables
  past_BTS: Bool[Array, 'B T S'] | None = None

  def at(self, cfg: BlockConfig, positions_BT: Int[Array, 'B T']) -> 'Place':
    """Tokens at other positions that read what they read here."""
    tables = tables_of(cfg, positions_BT)
    return self._replace(positions_BT=positions_BT, tables=tables)


class Context(NamedTuple):
  """What stays the same over the loop of a causal model.

  Attributes:
    e_BTD: what the loop starts from and may be injected.
    place: where the tokens stand, or None.
    values: rows of the value embeddings by layer.
  """

  e_BTD: Float[Array, 'B T D']
  place: Place | None
  values: Mapping[str, Array]


class Keys(NamedTuple):
  """What may be read: positions, and which of them hold a token.

  Attributes:
    positions_BS: position of each key in its text.
    real_BS: false for padding and for the part of a cache not written yet.
    segments_BS: number of the document a key belongs to, or None.
    prefix_BS: keys of one block that is read in both directions, or None.
  """

  positions_BS: Int[Array, 'B S']
  real_BS: Bool[Array, 'B S']
  segments_BS: Int[Array, 'B S'] | None = None
  prefix_BS: Bool[Array, 'B S'] | None = None


def place_of(cfg: BlockConfig, tokens: Keys, past: Keys | None = None) -> Place:
  """The place of the tokens of a call, by the mask kind of a block.

  A token reads keys of its own segment that the mask allows by position, and,
  when both belong to the prefix, later ones too. What padding computes is never
  read.
  """
  among = _readable(cfg, tokens, tokens)
  before = None if past is None else _readable(cfg, tokens, past)
  tables = tables_of(cfg, tokens.positions_BS)
  return Place(tokens.positions_BS, among, tables, before)


def _readable(cfg, queries, keys):
  t, s = queries.positions_BS[..., :, None], keys.positions_BS[..., None, :]
  allowed = _allowed(cfg.mask, t, s, window=cfg.window, prefix=cfg.prefix)
  pair = lambda f, a, b: f(a[..., :, None], b[..., None, :])
  if keys.prefix_BS is not None and queries.prefix_BS is not None:
    allowed |= pair(jnp.logical_and, queries.prefix_BS, keys.prefix_BS)
  if keys.segments_BS is not None and queries.segments_BS is not None:
    allowed &= pair(jnp.equal, queries.segments_BS, keys.segments_BS)
  return allowed & keys.real_BS[..., None, :]


def tokens_of(
  real_BT: Bool[Array, 'B T'],
  *,
  segments_BT: Int[Array, 'B T'] | None = None,
  prefix_BT: Bool[Array, 'B T'] | None = None,
) -> Keys:
  """Keys of a padded or packed batch.

  Positions count the real tokens before a token, in its segment if there are
  several; padding on either side takes none.
  """
  counted_BT = real_BT.astype(jnp.int32)
  positions_BT = jnp.cumsum(counted_BT, 1) - counted_BT
  if segments_BT is not None:
    same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
    earlier_TS = jnp.tril(jnp.ones((real_BT.shape[1],) * 2, bool), -1)
    before_BTS = same_BTS & earlier_TS & real_BT[:, None, :]
    positions_BT = before_BTS.sum(-1, dtype=jnp.int32)
  return Keys(positions_BT, real_BT, segments_BT, prefix_BT)


def mask_of(
  kind: str, length: int, *, window: int = 0, prefix: int = 0
) -> Bool[Array, 'T S'] | None:
  """Which positions s a position t may read; None for all.

  causal: s <= t. window: t - window < s <= t. prefix: s <= t, or both lie in
  the first `prefix` positions, which read each other in both directions.

  Raises:
    ValueError: if the kind is not one of `MASKS`.
  """
  if kind == 'none':
    return None
  t, s = jnp.arange(length)[:, None], jnp.arange(length)[None, :]
  return _allowed(kind, t, s, window=window, prefix=prefix)


def _allowed(kind, t, s, *, window, prefix):
  if kind == 'none':
    return jnp.ones(jnp.broadcast_shapes(t.shape, s.shape), bool)
  if kind == 'causal':
    return s <= t
  if kind == 'window':
    return (s <= t) & (s > t - window)
  if kind == 'prefix':
    return (s <= t) | ((s < prefix) & (t < prefix))
  raise ValueError(f'mask must be one of {MASKS}, got {kind!r}.')
