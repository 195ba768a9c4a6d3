"""One batch of texts on several devices, which share its rows or its heads.

    rows     a device has all weights and some of the texts: nothing is
             exchanged, and it stops when its rows are done
    heads    a device has all texts and some heads and hidden units of every
             layer: two sums per layer, and each reads only its weights

A token of one text takes the time in which the weights are read, so that heads
are worth sharing where texts are fewer than devices: what `auto` does, if the
layers can be divided and are so large that the sums cost less than they save.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from loopformer.core.rows import parts_of
from loopformer.decode import copies
from loopformer.decode import session as decode
from loopformer.decode.copies import ALL, AXIS, Copies
from loopformer.decode.session import Session
from loopformer.nn.config import require_one_of
from loopformer.nn.kernels import FEW
from loopformer.nn.shares import are_shared, check_shares, layer_bytes
from loopformer.nn.slots import Part

SHARED = ('auto', 'rows', 'heads')
# Bytes of a layer whose half is read in the time of two sums: on two cores one
# was measured at 30 to 60 microseconds and reading at 11 to 45 GB/s.
LEAST = 8 * 2**20


class Way(NamedTuple):
  """How the rows of a batch are read: by which devices, and what these share.

  Attributes:
    mesh: the devices; None for one.
    by_heads: whether each has some heads of all rows.
  """

  mesh: Mesh | None
  by_heads: bool

  @property
  def texts(self) -> P:
    """Where arrays lie that have rows in front."""
    return ALL if self.by_heads else P(AXIS)

  def session(self, *, apart: bool) -> Session:
    """Where a session lies.

    Keys and values are [slots, layers, B, G, S, K], or apart: [B, G, S, K].
    """
    fields = dict.fromkeys(Session._fields, self.texts)
    axis = int(self.by_heads) + (0 if apart else 2)
    return Session(**fields | {'cache': P(*[None] * axis, AXIS)})


class Spread:
  """A model, and the devices that share each batch."""

  def __init__(self, model: Any, devices: Sequence[Any], shared: str = 'auto'):
    """Checks the choice; weights are placed when a batch needs them.

    Raises:
      ValueError: if heads or hidden units cannot be shared by the devices.
    """
    require_one_of('shared', shared, SHARED)
    self.model, self.devices = model, tuple(devices)
    self._most_by_heads = _most_by_heads(model, len(self.devices), shared)
    self._copies = {}

  def way(self, rows: int) -> Way:
    """How so many rows are read."""
    if rows <= self._most_by_heads:
      return Way(Mesh(np.array(self.devices), (AXIS,)), by_heads=True)
    count = parts_of(rows, min(len(self.devices), rows))
    devices = np.array(self.devices[:count])
    return Way(Mesh(devices, (AXIS,)) if count > 1 else None, by_heads=False)

  def copies(self, rows: int, tokens: int = 1) -> Copies:
    """The model where rows are read, so many tokens of each at a time."""
    way = self.way(rows)
    own = rows if way.by_heads or way.mesh is None else rows // way.mesh.size
    few = 1 < own * tokens <= FEW and copies.on_cpu(way.mesh)
    columns = copies.host_columns() if few else 0
    if (way, columns) not in self._copies:
      self._copies[way, columns] = self._placed(way, columns)
    return self._copies[way, columns]

  def _placed(self, way, columns):
    if way.by_heads:
      return copies.shared(self.model, way.mesh, columns=columns)
    return copies.whole(copies.in_panels(self.model, columns), way.mesh)

  def parts(self, rows: int) -> dict[str, Part]:
    """The parts of a cache as one device has them."""
    count = len(self.devices) if self.way(rows).by_heads else 1
    return {
      name: part._replace(groups=part.groups // count)
      for name, part in self.model.cache_parts().items()
    }


def _most_by_heads(model: Any, count: int, shared: str) -> float:
  """Rows up to which so many devices share heads."""
  if count < 2 or shared == 'rows':
    return 0
  if shared == 'heads':
    check_shares(model, count)
    return math.inf
  large = layer_bytes(model) >= LEAST
  return count - 1 if large and are_shared(model, count) else 0


def prefill(
  spread: Spread, arrays: Any, tokens_BT: Any, *args: Any, **choices: Any
) -> Session:
  """`session.prefill` on every device."""
  *own, limit = args
  rows, tokens = tokens_BT.shape
  parts = spread.parts(rows)
  call = functools.partial(decode.prefill, parts=parts, **choices)
  way = spread.way(rows)
  specs = (way.texts,) * 4 + (ALL,)
  run = _on_devices(call, way, spread.copies(rows, tokens), specs, limit)
  return run(arrays, tokens_BT, *own)


def advance(
  spread: Spread,
  arrays: Any,
  session: Session,
  until: Any,
  limit: Any,
  **choices: Any,
) -> Session:
  """`session.advance` on every device."""

  def call(model, session, until, limit):
    own = session._replace(cursor=session.cursor.reshape(()))
    return decode.advance(model, own, until, limit, **choices)

  rows = session.next_B.shape[0]
  way = spread.way(rows)
  specs = (way.session(apart=isinstance(limit, int)), ALL)
  run = _on_devices(call, way, spread.copies(rows), specs, limit)
  return run(arrays, session, until)


def _on_devices(
  call: Callable[..., Session],
  way: Way,
  placed: Copies,
  specs: tuple,
  limit: Any,
) -> Callable[..., Session]:
  """The call with each device's model; a traced limit goes to every one."""

  def own(limit, arrays, *args):
    session = call(placed.model(arrays), *args, limit)
    # A cursor per device, as rows of one may end before those of another.
    return session._replace(cursor=session.cursor[None])

  if way.mesh is None:
    return functools.partial(own, limit)
  known = isinstance(limit, int)
  specs = (list(placed.specs), *specs)
  run = jax.shard_map(
    functools.partial(own, limit) if known else own,
    mesh=way.mesh,
    in_specs=specs if known else (ALL, *specs),
    out_specs=way.session(apart=known),
    check_vma=False,
  )
  return run if known else functools.partial(run, limit)
