"""What training carries from step to step, and how it is made."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from loopformer.core.devices import check_memory
from loopformer.nn.variables import axis_names
from loopformer.train import sharding
from loopformer.train.experiment import Experiment
from loopformer.train.optimizers import make_optimizer
from loopformer.train.supervised import carry_specs, first_carry
from loopformer.zoo import FAMILIES


class TrainState(NamedTuple):
  """The whole state of a run; the data position is the step.

  Attributes:
    step: optimiser steps made, int32.
    params: trained arrays, float32.
    rest: arrays that are saved but not trained by gradients.
    ema: averaged parameters, or None.
    opt_state: of the optimiser.
    key: the run's key; never changes, everything is folded from it.
    skipped: updates skipped because they were not finite, int32.
    carry: a loop's state that lives on between steps; () for none.
  """

  step: Int[Array, '']
  params: Any
  rest: Any
  ema: Any
  opt_state: Any
  key: Any
  skipped: Int[Array, '']
  carry: Any = ()


class Setup(NamedTuple):
  """The static side of a run.

  Attributes:
    experiment: with sizes bound to the task.
    graph: the model's structure, to merge with arrays.
    optimizer: gradient transformation.
    mesh: devices.
    specs: `PartitionSpec` of each parameter.
    shardings: of a whole `TrainState`.
    abstract: `TrainState` of shapes with shardings, for restoring.
  """

  experiment: Experiment
  graph: Any
  optimizer: optax.GradientTransformation
  mesh: Mesh
  specs: Any
  shardings: Any
  abstract: Any


def make_setup(experiment: Experiment) -> Setup:
  """Everything static about a run; allocates nothing on a device."""
  family = FAMILIES[experiment.family]
  model = family.abstract(experiment.model)
  graph, _, _ = nnx.split(model, nnx.Param, ...)
  cfg = experiment.train
  optimizer = make_optimizer(cfg.optimizer, cfg.steps, axis_names(model))
  mesh = sharding.make_mesh(cfg.mesh.data, cfg.mesh.fsdp, cfg.mesh.tensor)
  sharding.check_batch(mesh, cfg.batch_size, cfg.accumulate)
  specs = sharding.parameter_specs(model, mesh)
  setup = Setup(experiment, graph, optimizer, mesh, specs, None, None)
  shapes = jax.eval_shape(lambda: _create(setup))
  placed = _state_shardings(setup, shapes)
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    placed,
  )
  return setup._replace(shardings=placed, abstract=abstract)


def check_state_fits(setup: Setup) -> None:
  """Raises `ValueError` unless this process's devices can hold the state."""
  shard = lambda x: math.prod(x.sharding.shard_shape(x.shape))
  leaves = jax.tree.leaves(setup.abstract)
  devices = setup.mesh.local_devices
  needed = len(devices) * sum(shard(x) * x.dtype.itemsize for x in leaves)
  what = f'weights and optimizer state on {len(devices)} devices'
  check_memory(what, needed, devices)


def create(setup: Setup) -> TrainState:
  """The initial state, made on the devices it lives on."""
  return jax.jit(lambda: _create(setup), out_shardings=setup.shardings)()


def _create(setup):
  experiment = setup.experiment
  key = jax.random.key(experiment.train.seed)
  init_key, run_key = jax.random.split(key)
  model = FAMILIES[experiment.family].build(experiment.model, init_key)
  _, params, rest = nnx.split(model, nnx.Param, ...)
  supervised = experiment.train.objective == 'supervision'
  return TrainState(
    step=jnp.int32(0),
    params=params,
    rest=rest,
    ema=jax.tree.map(jnp.copy, params) if experiment.train.ema else None,
    opt_state=setup.optimizer.init(params),
    key=run_key,
    skipped=jnp.int32(0),
    carry=first_carry(experiment, model) if supervised else (),
  )


def _state_shardings(setup, shapes):
  """Parameters by their names, and whatever the optimiser keeps like them."""
  whole = NamedSharding(setup.mesh, P())
  params = sharding.shardings(setup.mesh, setup.specs)
  place = lambda tree: jax.tree.map(lambda _: whole, tree)
  # `params` has one sharding where the state has a variable of one array.
  like_params = jax.tree.map(
    lambda s, v: jax.tree.map(lambda _: s, v),
    params,
    shapes.params,
    is_leaf=lambda x: isinstance(x, NamedSharding),
  )
  # Moments lie under the path of their parameter, and as it does.
  known = {
    path: (leaf.shape, spec)
    for (path, leaf), spec in zip(
      jax.tree_util.tree_leaves_with_path(shapes.params),
      jax.tree.leaves(like_params),
      strict=True,
    )
  }

  def of_moment(path, leaf):
    tails = (known.get(path[i:], ((), None)) for i in range(len(path)))
    return next((s for shape, s in tails if s and shape == leaf.shape), whole)

  opt_state = jax.tree_util.tree_map_with_path(of_moment, shapes.opt_state)
  return TrainState(
    step=whole,
    params=like_params,
    rest=place(shapes.rest),
    ema=None if shapes.ema is None else like_params,
    opt_state=opt_state,
    key=whole,
    skipped=whole,
    carry=jax.tree.map(
      lambda spec: NamedSharding(setup.mesh, spec),
      carry_specs(shapes.carry),
      is_leaf=lambda x: isinstance(x, P),
    ),
  )


def merge(setup: Setup, params: Any, rest: Any) -> nnx.Module:
  """The model with the given arrays."""
  return nnx.merge(setup.graph, params, rest)
