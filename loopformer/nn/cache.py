"""Keys and values of earlier tokens, indexed by (recurrence, layer).

A looped layer sees other keys at every recurrence, so a cache of a looped model
has a slot for each, or as few as a policy of `loopformer.nn.slots` leaves. What
is kept is read-only while a token runs through the loop; its own keys and
values gather beside it, small, and are put in place once, at the end
(`Cache.commit`).
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from loopformer.nn.slots import Part, Policy

# Arrays by (slot, layer): one array [slots, layers, B, groups, S, K], or, where
# slots and layers are known while a program is built, a tuple for each slot of
# an array [B, groups, S, K] for each layer, of which none is ever copied.
Grid = Any


class Store(NamedTuple):
  """Keys and values of one part, each a `Grid`."""

  keys: Grid
  values: Grid


def _get(grid, slot, layer):
  """[B, G, S, K] of one slot and layer."""
  if isinstance(grid, tuple):
    return grid[slot][layer]
  at = _index(slot, layer, 0, 0, 0, 0)
  return jax.lax.dynamic_slice(grid, at, (1, 1, *grid.shape[2:]))[0, 0]


def _set(grid, slot, layer, new):
  """The grid with another array at one slot and layer."""
  if isinstance(grid, tuple):
    row = (*grid[slot][:layer], new, *grid[slot][layer + 1 :])
    return (*grid[:slot], row, *grid[slot + 1 :])
  at = _index(slot, layer, 0, 0, 0, 0)
  return jax.lax.dynamic_update_slice(grid, new[None, None], at)


def _index(*at):
  return tuple(jnp.asarray(i, jnp.int32) for i in at)


def _put_tokens(kept, new, start):
  """Arrays with those of new tokens at `start` of their last axis but one."""
  at = [0] * (kept.ndim - 2) + [start, 0]
  return jax.lax.dynamic_update_slice(kept, new, _index(*at))


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('store', 'recent', 'slot', 'live_B'),
  meta_fields=('fresh', 'span'),
)
@dataclasses.dataclass(frozen=True)
class View:
  """One part of a cache as a stack of layers is called with it.

  Attributes:
    store: what earlier calls have left; read only.
    recent: what this call writes, S being its own tokens.
    slot: the slot of this call.
    live_B: rows whose keys and values are written.
    fresh: whether there are no earlier tokens.
    span: keys of the store that are read, from index 0 on.
  """

  store: Store
  recent: Store
  slot: Any
  live_B: Bool[Array, ' B']
  fresh: bool
  span: int

  def written(self, k_BTGK: Array, v_BTGK: Array, layer: Any) -> 'View':
    """The view with the keys and values of a layer's live rows."""

    def put(grid, new_BTGK):
      old = _get(grid, self.slot, layer)
      new = new_BTGK.swapaxes(1, 2).astype(old.dtype)
      new = jnp.where(self.live_B[:, None, None, None], new, old)
      return _set(grid, self.slot, layer, new)

    keys, values = self.recent
    recent = Store(put(keys, k_BTGK), put(values, v_BTGK))
    return dataclasses.replace(self, recent=recent)

  def past(self, layer: Any) -> Store | None:
    """Keys and values [B, G, S, K] of earlier tokens, S = span."""
    if self.fresh:
      return None

    def get(grid):
      if isinstance(grid, tuple):
        return grid[self.slot][layer]
      at = _index(self.slot, layer, 0, 0, 0, 0)
      _, _, rows, groups, _, width = grid.shape
      size = (1, 1, rows, groups, self.span, width)
      return jax.lax.dynamic_slice(grid, at, size)[0, 0]

    return Store(*map(get, self.store))


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('stores', 'recents'),
  meta_fields=('policy', 'fresh', 'span'),
)
@dataclasses.dataclass(frozen=True)
class Cache:
  """What a model keeps of the tokens read so far, and writes of those it reads.

  Attributes:
    stores: by the name of the part, read only.
    recents: by the name of the part, of the tokens of this call.
    policy: which slot a call uses.
    fresh: whether there are no earlier tokens.
    span: keys of the stores that are read, from index 0 on.
  """

  stores: Mapping[str, Store]
  recents: Mapping[str, Store]
  policy: Policy
  fresh: bool
  span: int

  def opened(self, tokens: int, *, fresh: bool, span: int) -> 'Cache':
    """The cache as a call with so many tokens is given it."""

    def room(kept):
      shape = (*kept.shape[:-2], tokens, kept.shape[-1])
      return jnp.zeros(shape, kept.dtype)

    recents = jax.tree.map(room, self.stores)
    return Cache(self.stores, recents, self.policy, fresh, span)

  def apart(self) -> 'Cache':
    """The cache with every slot and layer by itself."""
    split = lambda grid: tuple(tuple(layers) for layers in grid)
    stores = {
      name: Store(*map(split, store)) for name, store in self.stores.items()
    }
    return dataclasses.replace(self, stores=stores)

  def widened(self, length: int) -> 'Cache':
    """The cache with places for so many tokens, no fewer than it has."""

    def pad(kept):
      spare = ((0, 0),) * (kept.ndim - 2)
      return jnp.pad(kept, (*spare, (0, length - kept.shape[-2]), (0, 0)))

    return dataclasses.replace(self, stores=jax.tree.map(pad, self.stores))

  def view(self, name: str, call: Any = 0, live_B: Array | None = None) -> View:
    """A part at one of its calls; all rows are written unless told."""
    slot = self.policy.slot(call)
    kept = self.stores[name], self.recents[name]
    if live_B is None:
      leaves = jax.tree.leaves(kept[1])
      live_B = jnp.ones(leaves[0].shape[-4] if leaves else 0, bool)
    return View(*kept, slot, live_B, self.fresh, self.span)

  def put(self, name: str, view: View) -> 'Cache':
    """The cache with what a call has written."""
    recents = {**self.recents, name: view.recent}
    return dataclasses.replace(self, recents=recents)

  def only(self, names: Collection[str]) -> 'Cache':
    """The cache of some parts."""
    pick = lambda tree: {name: tree[name] for name in names}
    kept = {'stores': pick(self.stores), 'recents': pick(self.recents)}
    return dataclasses.replace(self, **kept)

  def joined(self, other: 'Cache') -> 'Cache':
    """The cache with what another of some of its parts has written."""
    recents = {**self.recents, **other.recents}
    return dataclasses.replace(self, recents=recents)

  def commit(self, start: Int[Array, ''] | int) -> 'Cache':
    """Puts what was written in place, the first token at index `start`."""
    put = lambda kept, new: _put_tokens(kept, new, start)
    stores = jax.tree.map(put, self.stores, self.recents)
    return dataclasses.replace(self, stores=stores, recents={})


def allocate(
  parts: Mapping[str, Part],
  policy: Policy,
  *,
  rows: int,
  length: int,
  recurrences: int,
  dtype: Any = jnp.float32,
) -> Cache:
  """An empty cache for `rows` texts of at most `length` tokens."""
  shapes = shapes_of(
    parts, policy, rows=rows, length=length, recurrences=recurrences
  )
  stores = {
    name: Store(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
    for name, shape in shapes.items()
  }
  return Cache(stores, {}, policy, fresh=True, span=length)


def shapes_of(
  parts: Mapping[str, Part],
  policy: Policy,
  *,
  rows: int,
  length: int,
  recurrences: int,
) -> dict[str, tuple[int, ...]]:
  """Shape of the keys, and of the values, of every part."""
  return {
    name: (
      policy.slots(part.total_calls(recurrences)),
      part.layers,
      rows,
      part.groups,
      length,
      part.head_width,
    )
    for name, part in parts.items()
  }


def nbytes(
  parts: Mapping[str, Part],
  policy: Policy,
  *,
  rows: int,
  length: int,
  recurrences: int,
  dtype: Any = jnp.float32,
) -> int:
  """Bytes that `allocate` will take, nothing being allocated."""
  shapes = shapes_of(
    parts, policy, rows=rows, length=length, recurrences=recurrences
  )
  itemsize = jnp.dtype(dtype).itemsize
  return 2 * itemsize * sum(math.prod(shape) for shape in shapes.values())


def fill_skipped(
  cache: Cache,
  parts: Mapping[str, Part],
  steps_B: Int[Array, ' B'],
  *,
  recurrences: int,
) -> Cache:
  """Gives the slots that a row's early exit left unwritten its last entries.

  A later token that goes deeper then reads, at recurrence t, the deepest entry
  an earlier token has: `latest-m4` of arXiv:2502.05171, for any block.
  """
  recents = dict(cache.recents)
  for name, part in parts.items():
    if part.calls:
      slots = recents[name].keys.shape[0]
      source_NB = _sources(cache.policy, part, steps_B, recurrences, slots)
      index = source_NB[:, None, :, None, None, None]
      fill = lambda kept, index=index: jnp.take_along_axis(kept, index, axis=0)
      recents[name] = Store(*map(fill, recents[name]))
  return dataclasses.replace(cache, recents=recents)


def _sources(policy, part, steps_B, recurrences, slots):
  """For each slot its own index if a row wrote it, else its deepest one.

  Calls of one recurrence are told apart: a slot that only call c of a
  recurrence uses is filled from call c of the row's last recurrence.
  """
  calls = jnp.arange(part.calls * recurrences)
  used_C = jnp.broadcast_to(policy.slot(calls), calls.shape)
  last_CB = (steps_B - 1) * part.calls + (calls % part.calls)[:, None]
  made_CB = calls[:, None] < steps_B * part.calls
  source_CB = jnp.where(made_CB, used_C[:, None], policy.slot(last_CB))
  # Calls in falling order, so that the first call of a slot decides.
  own = jnp.zeros((slots, steps_B.shape[0]), jnp.int32)
  return own.at[used_C[::-1]].set(source_CB[::-1].astype(jnp.int32))
