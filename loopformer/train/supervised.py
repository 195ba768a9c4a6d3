"""The part of the train step that deep supervision has of its own.

Gradients of one segment of the rows in flight, the rows after it, and sign
descent on the rows of a puzzle table that the segment has read.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from loopformer.core.rows import row_keys
from loopformer.nn.variables import Table
from loopformer.train import sharding
from loopformer.train.objectives import Batch
from loopformer.train.optimizers import make_schedule
from loopformer.train.sparse import sign_sgd
from loopformer.train.supervision import (
  Held,
  Supervision,
  fresh,
  idle,
  refill,
  supervise,
)
from loopformer.zoo import FAMILIES
from loopformer.zoo.choices import make_plan
from loopformer.zoo.family import puzzle_rows


def supervision_of(experiment: Any) -> Supervision:
  """How an experiment is supervised."""
  family = FAMILIES[experiment.family]
  return Supervision(
    family=family,
    plan=make_plan(experiment.loop, family.heads(experiment.model)),
    segment=experiment.train.segment,
    cross_entropy=experiment.train.cross_entropy,
  )


def first_carry(experiment: Any, model: nnx.Module) -> Held:
  """Every slot free, so that the first batch fills them all."""
  size, length = experiment.train.batch_size, experiment.model.seq_len
  blank_BT = jnp.zeros((size, length), jnp.int32)
  ids_B = jnp.arange(size)
  batch = Batch(
    blank_BT,
    blank_BT,
    row_keys(jax.random.key(0), ids_B),
    None,
    jnp.zeros(size, jnp.int32),
  )
  return idle(fresh(supervision_of(experiment), model, batch))


def carry_specs(carry: Any) -> Any:
  """Rows over data and fsdp; counters without rows on every device."""
  return jax.tree.map(lambda x: sharding.BATCH if x.ndim else P(), carry)


def gradients(setup: Any, state: Any, batch: Batch) -> tuple[Any, ...]:
  """Gradients, metrics, the rows after the segment, and `rest` moved.

  Weights are gathered and gradients reduced once, as for other objectives.
  """
  how = supervision_of(setup.experiment)
  specs = sharding.manual(setup.specs)
  batch = _with_puzzles(batch)
  total = setup.experiment.train.batch_size

  def local(params, rest, held, batch):
    whole = sharding.gather(params, specs)
    merged = lambda params: nnx.merge(setup.graph, params, rest)
    held = refill(how, merged(whole), held, batch)
    rows_BE = puzzle_rows(merged(whole), held.batch.puzzles_B)

    def loss(params, rows_BE):
      return supervise(how, merged(params), rows_BE, held, total)

    both = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (grads, d_rows_BE), (after, sums) = both(whole, rows_BE)
    sums = jax.lax.psum(sums, ('data', 'fsdp'))
    return sharding.reduce_gradients(grads, specs), d_rows_BE, after, sums

  held_specs = carry_specs(state.carry)
  run = jax.shard_map(
    local,
    mesh=setup.mesh,
    axis_names={'data', 'fsdp'},
    check_vma=False,
    in_specs=(specs, P(), held_specs, sharding.BATCH),
    out_specs=(specs, sharding.BATCH, held_specs, P()),
  )
  grads, d_rows_BE, after, sums = run(
    state.params, state.rest, state.carry, batch
  )
  rest = state.rest
  if d_rows_BE is not None:
    rest = _move_table(setup, state, after.batch.puzzles_B, d_rows_BE)
  return grads, sums, after, rest


def _with_puzzles(batch):
  if batch.puzzles_B is not None:
    return batch
  return batch._replace(
    puzzles_B=jnp.zeros(batch.inputs_BT.shape[0], jnp.int32)
  )


def _move_table(setup, state, ids_B, d_rows_BE):
  """`rest` with the puzzle table moved; nothing else in it is."""
  cfg = setup.experiment.train
  schedule = make_schedule(cfg.optimizer, cfg.steps)
  share = schedule(state.step - state.skipped) / cfg.optimizer.learning_rate

  def move(variable):
    if not isinstance(variable, Table):
      return variable
    table_NE = sign_sgd(
      variable[...],
      ids_B,
      d_rows_BE,
      share * cfg.table.learning_rate,
      weight_decay=cfg.table.weight_decay,
    )
    return variable.replace(table_NE)

  is_variable = lambda x: isinstance(x, nnx.Variable)
  return jax.tree.map(move, state.rest, is_leaf=is_variable)
