"""The weights of a model on the devices that decode with it."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from loopformer.nn.linear import Linear
from loopformer.nn.shares import share

AXIS = 'devices'
ALL, EACH = P(), P(AXIS)

# Columns of the panels that few rows are multiplied by in the least time, by
# what a CPU has, the newest first: four vectors of sixteen numbers, or two of
# eight. Measured, see experiments/RESULTS.md.
COLUMNS = {'avx512f': 64, 'avx2': 16}


class Copies(NamedTuple):
  """A model's arrays, and what a device makes of its own.

  Programs are given the arrays alone: to take a module apart at every call
  takes the host longer than to launch the call.

  Attributes:
    arrays: weights; those of which every device has others have a leading axis
      of devices.
    specs: where they lie on the mesh.
    structure: of the module that a device's arrays belong to.
  """

  arrays: Sequence[Any]
  specs: Sequence[P]
  structure: Any

  def model(self, arrays: Sequence[Any]) -> Any:
    """The module of one device."""
    own = [
      x[0] if spec == EACH else x
      for x, spec in zip(arrays, self.specs, strict=True)
    ]
    return jax.tree.unflatten(self.structure, own)


def whole(model: Any, mesh: Mesh | None) -> Copies:
  """All weights on every device."""
  arrays, structure = jax.tree.flatten(model)
  specs = [ALL] * len(arrays)
  if mesh is not None:
    arrays = [_everywhere(array, mesh) for array in arrays]
  return Copies(arrays, specs, structure)


def shared(model: Any, mesh: Mesh, *, columns: int) -> Copies:
  """A share of every layer's heads and hidden units on each device."""
  shares = [share(model, i, mesh.size, axis=AXIS) for i in range(mesh.size)]
  pairs = zip(jax.tree.leaves(model), jax.tree.leaves(shares[0]), strict=True)
  specs = [ALL if a.shape == b.shape else EACH for a, b in pairs]
  shares = [in_panels(one, columns) for one in shares]
  structure = jax.tree.structure(shares[0])
  arrays = [
    _everywhere(each[0], mesh) if spec == ALL else _apart(each, mesh)
    for spec, *each in zip(specs, *map(jax.tree.leaves, shares), strict=True)
  ]
  return Copies(arrays, specs, structure)


def in_panels(model: Any, columns: int) -> Any:
  """The model with its linear layers in panels of so many columns; 0: whole."""
  if not columns:
    return model
  model = nnx.clone(model)
  for _, node in nnx.iter_graph(model):
    if isinstance(node, Linear):
      node.cut(columns)
  return model


def columns_of(cpu: str) -> int:
  """Columns of the panels for such a CPU; 0 where none are known to help.

  Args:
    cpu: what Linux says of it; of other systems' CPUs nothing is known.
  """
  flags = cpu.split()
  return next((n for flag, n in COLUMNS.items() if flag in flags), 0)


@functools.cache
def host_columns() -> int:
  """The same of this machine."""
  path = pathlib.Path('/proc/cpuinfo')
  return columns_of(path.read_text() if path.exists() else '')


def on_cpu(mesh: Mesh | None) -> bool:
  """Whether all devices are CPU ones; for None, the default one."""
  if mesh is None:
    return jax.default_backend() == 'cpu'
  return all(device.platform == 'cpu' for device in mesh.devices.flat)


def _everywhere(array: Any, mesh: Mesh) -> Any:
  """An array on every device of a mesh.

  CPU devices read one memory: put there as a view of the host, a weight stands
  once, in the cache that the cores share too.
  """
  if on_cpu(mesh):
    array = np.asarray(array)
  return jax.device_put(array, NamedSharding(mesh, ALL))


def _apart(arrays: Sequence[Any], mesh: Mesh) -> Any:
  """One array on each device, with an axis of devices in front."""
  sharding = NamedSharding(mesh, EACH)
  shape = (len(arrays), *arrays[0].shape)
  own = [
    jax.device_put(array[None], device)
    for array, device in zip(arrays, mesh.devices.flat, strict=True)
  ]
  return jax.make_array_from_single_device_arrays(shape, sharding, own)
