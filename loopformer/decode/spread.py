"""One batch of texts on several devices, each with its share of the rows.

Rows know nothing of each other, so nothing is exchanged: a device reads and
writes its rows as if they were all, and stops when they are done.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from loopformer.core.rows import parts_of
from loopformer.decode import session as decode
from loopformer.decode.session import Session

AXIS = 'rows'
ROWS, CACHE = P(AXIS), P(None, None, AXIS)
SESSION = Session(
  cache=CACHE,
  tokens_BS=ROWS,
  keys=ROWS,
  next_B=ROWS,
  cursor=ROWS,
  keys_B=ROWS,
  done_B=ROWS,
  depth_BS=ROWS,
)


class Replicas:
  """A model and the devices that share the rows of a batch.

  Programs are given its arrays alone: to take a module apart at every call
  takes the host longer than to launch the call.
  """

  def __init__(self, model: Any, devices: Sequence[Any]):
    self.arrays, self._structure = jax.tree.flatten(model)
    self.devices = tuple(devices)
    self._copies = {}

  def model(self, arrays: Sequence[Any]) -> Any:
    """The model that has these arrays."""
    return jax.tree.unflatten(self._structure, arrays)

  def mesh(self, rows: int) -> Mesh | None:
    """Of the most devices that divide the rows, or None for one."""
    count = parts_of(rows, min(len(self.devices), rows))
    if count == 1:
      return None
    return Mesh(np.array(self.devices[:count]), (AXIS,))

  def of(self, rows: int) -> Sequence[Any]:
    """The arrays on the devices that so many rows run on."""
    mesh = self.mesh(rows)
    if mesh is None:
      return self.arrays
    if mesh not in self._copies:
      self._copies[mesh] = _everywhere(self.arrays, mesh)
    return self._copies[mesh]


def _everywhere(arrays: Sequence[Any], mesh: Mesh) -> Sequence[Any]:
  """Arrays on every device of a mesh.

  CPU devices read one memory: put there as a view of the host, a weight stands
  once, in the cache that the cores share too.
  """
  sharding = NamedSharding(mesh, P())
  if all(device.platform == 'cpu' for device in mesh.devices.flat):
    arrays = [np.asarray(array) for array in arrays]
  return jax.device_put(arrays, sharding)


def prefill(
  replicas: Replicas, model: Any, tokens_BT: Any, *args: Any, **choices: Any
) -> Session:
  """`session.prefill`, each device with its rows."""
  mesh = replicas.mesh(tokens_BT.shape[0])
  if mesh is None:
    return decode.prefill(model, tokens_BT, *args, **choices)
  own, limit = args[:-1], args[-1]
  call = lambda limit, *args: _apart(decode.prefill(*args, limit, **choices))
  specs = (P(), ROWS, ROWS, ROWS, ROWS, P())
  return _mapped(call, mesh, specs, limit)(model, tokens_BT, *own)


def advance(
  replicas: Replicas,
  model: Any,
  session: Session,
  until: Any,
  limit: Any,
  **choices: Any,
) -> Session:
  """`session.advance`, each device with its rows."""
  mesh = replicas.mesh(session.next_B.shape[0])
  if mesh is None:
    return decode.advance(model, session, until, limit, **choices)

  def call(limit, model, session, until):
    own = session._replace(cursor=session.cursor[0])
    return _apart(decode.advance(model, own, until, limit, **choices))

  specs = (P(), SESSION, P())
  return _mapped(call, mesh, specs, limit)(model, session, until)


def _mapped(
  call: Callable[..., Session], mesh: Mesh, specs: tuple, limit: Any
) -> Callable[..., Session]:
  """The call on each device; a limit that is traced goes to every one."""
  known = isinstance(limit, int)
  call = functools.partial(call, limit) if known else call
  run = jax.shard_map(
    call,
    mesh=mesh,
    in_specs=specs if known else (P(), *specs),
    out_specs=SESSION,
    check_vma=False,
  )
  return run if known else functools.partial(run, limit)


def _apart(session):
  """With a cursor per device, as each may end before the others."""
  return session._replace(cursor=session.cursor[None])
