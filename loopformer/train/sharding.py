"""Where arrays live: a mesh of data, fsdp and tensor axes, and logical rules.

The train step runs under `shard_map` over data and fsdp: weights are gathered
before the loop and their gradients reduced after it, once per step, however
many recurrences read them. The tensor axis is left to the compiler.
"""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from loopformer.nn.variables import axis_names

AXES = ('data', 'fsdp', 'tensor')
BATCH = P(('data', 'fsdp'))
# Logical axis of a parameter -> axis of the mesh.
RULES = {
  'embed': 'fsdp',
  'mlp': 'tensor',
  'heads': 'tensor',
  'vocab': 'tensor',
  'layers': None,
}


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
  """A mesh over all devices, its axes left to the compiler (Auto types).

  Raises:
    ValueError: if the sizes do not multiply to the number of devices.
  """
  sizes, count = [data, fsdp, tensor], jax.device_count()
  known = int(np.prod([size for size in sizes if size != -1]))
  sizes = [count // known if size == -1 else size for size in sizes]
  if int(np.prod(sizes)) != count or 0 in sizes:
    raise ValueError(
      f'train.mesh must multiply to the {count} devices here, got '
      f'data = {data}, fsdp = {fsdp}, tensor = {tensor}.'
    )
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3)


def compiler_options(mesh: Mesh) -> dict[str, bool] | None:
  """What the compiler is told: several CPU devices are one thread each."""
  cpu = mesh.devices.flat[0].platform == 'cpu'
  return (
    {'xla_cpu_multi_thread_eigen': False} if cpu and mesh.size > 1 else None
  )


def check_batch(mesh: Mesh, batch_size: int, accumulate: int) -> None:
  """Raises `ValueError` unless every device gets rows of every part."""
  devices = mesh.shape['data'] * mesh.shape['fsdp']
  if batch_size % (accumulate * devices):
    raise ValueError(
      f'train.batch_size must be a multiple of accumulate = {accumulate} times '
      f'data * fsdp = {devices}, got {batch_size}.'
    )


def parameter_specs(model: Any, mesh: Mesh) -> Any:
  """A `PartitionSpec` for each parameter, by its logical names.

  An axis that the mesh does not divide, or that an earlier axis of the same
  array already uses, stays whole.
  """

  def spec(variable, names):
    shape, used, axes = variable.get_value().shape, set(), []
    for size, name in zip(shape, names, strict=True):
      axis = RULES.get(name)
      if axis in used or axis is None or size % mesh.shape[axis]:
        axis = None
      used.add(axis)
      axes.append(axis)
    return P(*axes)

  is_variable = lambda x: isinstance(x, nnx.Variable)
  params = nnx.state(model, nnx.Param)
  return jax.tree.map(spec, params, axis_names(model), is_leaf=is_variable)


def manual(specs: Any) -> Any:
  """The part of the specs that `shard_map` over data and fsdp sees."""
  keep = lambda axis: axis if axis == 'fsdp' else None
  return map_specs(lambda spec: P(*map(keep, spec)), specs)


def map_specs(function: Any, specs: Any, *rest: Any) -> Any:
  """`tree.map` with specs as leaves."""
  return jax.tree.map(
    function, specs, *rest, is_leaf=lambda x: isinstance(x, P)
  )


def shardings(mesh: Mesh, specs: Any) -> Any:
  """`NamedSharding`s of specs."""
  return map_specs(lambda spec: NamedSharding(mesh, spec), specs)


def gather(params: Any, specs: Any) -> Any:
  """Whole weights from their fsdp shards; inside `shard_map`."""

  def whole(spec, variable):
    axis = _fsdp_axis(spec)
    if axis is None:
      return variable
    return jax.tree.map(
      lambda x: jax.lax.all_gather(x, 'fsdp', axis=axis, tiled=True), variable
    )

  return map_specs(whole, specs, params)


def reduce_gradients(grads: Any, specs: Any) -> Any:
  """Sums over devices, each keeping its fsdp shard; inside `shard_map`."""

  def reduce(spec, variable):
    axis = _fsdp_axis(spec)
    if axis is None:
      return jax.lax.psum(variable, ('data', 'fsdp'))
    scattered = jax.tree.map(
      lambda x: jax.lax.psum_scatter(
        x, 'fsdp', scatter_dimension=axis, tiled=True
      ),
      variable,
    )
    return jax.lax.psum(scattered, 'data')

  return map_specs(reduce, specs, grads)


def _fsdp_axis(spec):
  return spec.index('fsdp') if 'fsdp' in spec else None
