"""The pure train step: `(state, batch) -> (state, metrics)`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from loopformer.core.rows import row_keys
from loopformer.core.sampling import window
from loopformer.train import sharding, supervised
from loopformer.train.objectives import (
  Batch,
  Objective,
  loss_sums,
  scored_count,
)
from loopformer.train.optimizers import make_schedule
from loopformer.train.state import Setup, TrainState, merge
from loopformer.zoo import FAMILIES
from loopformer.zoo.choices import make_plan, make_sampler, ramped_mean

Metrics = Mapping[str, Array]
StepFn = Callable[[TrainState, Mapping[str, Array]], tuple[TrainState, Metrics]]


def make_train_step(setup: Setup) -> StepFn:
  """The jitted step; its first argument is donated."""
  data = NamedSharding(setup.mesh, sharding.BATCH)
  whole = NamedSharding(setup.mesh, P())
  return jax.jit(
    lambda state, batch: train_step(setup, state, batch),
    in_shardings=(setup.shardings, data),
    out_shardings=(setup.shardings, whole),
    donate_argnums=0,
    compiler_options=sharding.compiler_options(setup.mesh),
  )


def train_step(
  setup: Setup, state: TrainState, batch: Mapping[str, Array]
) -> tuple[TrainState, Metrics]:
  """One optimiser step on `inputs`, `labels` and `ids` of a whole batch."""
  cfg = setup.experiment.train
  rows = prepare(setup, state, batch)
  rest, carry = state.rest, state.carry
  if cfg.objective == 'supervision':
    grads, metrics, carry, rest = supervised.gradients(setup, state, rows)
  else:
    grads, metrics = _gradients(setup, state, rows)
  norm = optax.tree.norm(grads)
  updates, opt_state = setup.optimizer.update(
    grads, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema is not None:
    ema = optax.incremental_update(params, ema, 1 - cfg.ema)
  finite = jnp.isfinite(metrics['loss']) & jnp.isfinite(norm)
  finite &= first_bad_leaf((updates, rest)) < 0
  # A step that is not finite changes nothing, so what is saved stays sound.
  params, rest, ema, opt_state = jax.tree.map(
    lambda new, old: jnp.where(finite, new, old),
    (params, rest, ema, opt_state),
    (state.params, state.rest, state.ema, state.opt_state),
  )
  new = state._replace(
    step=state.step + 1,
    params=params,
    rest=rest,
    carry=carry,
    ema=ema,
    opt_state=opt_state,
    skipped=state.skipped + ~finite,
  )
  # The optimiser counts the updates that were made.
  made = state.step - state.skipped
  rate = make_schedule(cfg.optimizer, cfg.steps)(made)
  return new, {
    **metrics,
    'gradient_norm': norm,
    'learning_rate': jnp.float32(rate),
    'finite': finite,
    'first_bad_leaf': first_bad_leaf(grads),
    'skipped': new.skipped,
  }


def first_bad_leaf(grads: Any) -> Int[Array, '']:
  """Index of the first array with a number that is not finite, or -1."""
  bad = [~jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(grads)]
  flags = jnp.stack(bad)
  return jnp.where(jnp.any(flags), jnp.argmax(flags), -1).astype(jnp.int32)


def prepare(
  setup: Setup, state: TrainState, batch: Mapping[str, Array]
) -> Batch:
  """Keys and sampled depths of the rows; the same on any devices."""
  step_key = jax.random.fold_in(state.key, state.step)
  row_key, depth_key = jax.random.split(step_key)
  loop, depth_B, free_B = setup.experiment.loop, None, None
  if loop.depth is not None:
    mean = ramped_mean(loop, state.step / setup.experiment.train.steps)
    sampler = make_sampler(loop.depth)
    depth_B = sampler(depth_key, batch['inputs'].shape[0], mean)
    # Drawn whole on every device: a draw that loops until all rows accept, cut
    # by rows, would hold a collective in a loop, and devices could deadlock.
    everywhere = NamedSharding(setup.mesh, P())
    depth_B = jax.lax.with_sharding_constraint(depth_B, everywhere)
    if loop.adjoint['name'] == 'full':
      depth_B = jnp.minimum(depth_B, loop.max_steps)
    if mean is not None and loop.adjoint['name'] == 'last_k':
      k = jnp.minimum(mean, loop.adjoint['k'])
      free_B = window(depth_B, k).free_B
  return Batch(
    batch['inputs'],
    batch['labels'],
    row_keys(row_key, batch['ids']),
    depth_B,
    batch.get('puzzles'),
    free_B,
    batch.get('segments'),
  )


def _gradients(setup, state, batch):
  """Gradients and metrics of the whole batch.

  Under `shard_map` over data and fsdp every device gathers the weights, runs
  its rows and reduces its gradients, each once.
  """
  specs = sharding.manual(setup.specs)
  positions = jnp.maximum(scored_count(batch.labels_BT), 1)

  def local(params, rest, batch, positions):
    whole = sharding.gather(params, specs)
    grads, sums = _accumulate(setup, whole, rest, batch, positions)
    sums = jax.lax.psum(sums, ('data', 'fsdp'))
    return sharding.reduce_gradients(grads, specs), sums

  # Sampled depths are None or per row; None is an empty tree for any spec.
  run = jax.shard_map(
    local,
    mesh=setup.mesh,
    axis_names={'data', 'fsdp'},
    check_vma=False,
    in_specs=(specs, P(), sharding.BATCH, P()),
    out_specs=(specs, P()),
  )
  return run(state.params, state.rest, batch, positions)


def _accumulate(setup, params, rest, batch, positions):
  """Sums of gradients and metrics over the parts of a local batch."""
  cfg = setup.experiment.train

  def part(params, rows):
    model = merge(setup, params, rest)
    return loss_sums(
      model,
      rows,
      make_objective(setup, rows.depth_B, rows.free_B),
      positions,
      cfg.batch_size,
    )

  gradient = jax.grad(part, has_aux=True)
  if cfg.accumulate == 1:
    return gradient(params, batch)
  count = cfg.accumulate
  parts = jax.tree.map(
    lambda x: x.reshape((count, x.shape[0] // count) + x.shape[1:]), batch
  )
  shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], parts))
  zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  total, _ = jax.lax.scan(
    lambda sums, rows: (
      jax.tree.map(jnp.add, sums, gradient(params, rows)),
      None,
    ),
    zero,
    parts,
  )
  return total


def make_objective(setup: Setup, depth_B: Any, free_B: Any = None) -> Objective:
  """The configured loss, for rows of the given sampled depths."""
  experiment = setup.experiment
  heads = FAMILIES[experiment.family].heads(experiment.model)
  return Objective(
    name=experiment.train.objective,
    plan=_plan(setup, heads, depth_B, free_B),
    ponder_weight=experiment.train.ponder_weight,
    prior=experiment.train.prior,
    exit_gate=experiment.train.exit_gate,
    exit_head=heads.get('halt_token'),
  )


def _plan(setup, heads, depth_B, free_B):
  """The configured loop; under tensor parallelism all devices loop alike."""
  loop = setup.experiment.loop
  plan = make_plan(loop, heads, depth_B=depth_B, free_B=free_B)
  if setup.mesh.shape['tensor'] == 1:
    return plan
  return plan._replace(axes=('data', 'fsdp'))
