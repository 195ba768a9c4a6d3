"""The compiled programs of a family, each shared by several laws."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from loopformer import core
from loopformer.nn.variables import axis_names
from loopformer.train import (
  objectives,
  state,
  step,
  supervised,
  supervision,
)
from loopformer.zoo import Plan, output_logits, run
from loopformer.zoo.family import begin, puzzle_rows
from tests.conformance.tiny import Subject, fixed, subject, task_of
from tests.models import info

R = 4
HALT = core.fixed_point(1e-2)
HALT_CAP = 16


def outputs(model, inputs_BT, keys_B, carry=None, **plan) -> dict[str, Any]:
  """State, logits, steps and carry of one loop."""
  result, context = run(
    model, inputs_BT, Plan(**plan), keys_B=keys_B, carry=carry
  )
  return {
    'state': result.state,
    'logits': output_logits(model, result, context),
    'steps': result.steps_B,
    'carry': result.carry,
  }


def by_hand(model, inputs_BT, keys_B, steps: int) -> Any:
  """Direct calls of `model.step`, without a loop."""
  hidden, context = begin(model, inputs_BT, keys_B)
  aux = ()
  for t in range(steps):
    steps_B = jnp.full(inputs_BT.shape[0], t)
    told = info(steps_B, core.rows.fold_rows(keys_B, steps_B))
    hidden, aux = model.step(hidden, aux, context, told)
  return hidden


@jax.jit
def probe(model, contraction, inputs_BT, keys_B) -> dict[str, Any]:
  """Everything the forward laws compare, at one compiled shape."""
  loop = lambda *args, **kwargs: outputs(
    model, inputs_BT, keys_B, *args, **kwargs
  )
  ahead = loop(**fixed(1, core.none()))
  return {
    'scan': loop(**fixed(R, core.full())),
    'while': loop(**fixed(R, core.none())),
    'pieces': loop(ahead['carry'], **fixed(R - 1, core.none())),
    'one': loop(**fixed(1))['state'],
    'hand one': by_hand(model, inputs_BT, keys_B, 1),
    'two': loop(**fixed(2))['state'],
    'hand two': by_hand(model, inputs_BT, keys_B, 2),
    'halting': outputs(
      contraction,
      inputs_BT,
      keys_B,
      halt=HALT,
      max_steps=HALT_CAP,
      adjoint=core.none(),
    ),
  }


@functools.cache
def probed(name: str) -> dict[str, Any]:
  """The probe of a family's four samples."""
  return probe(*subject(name)[2:])


def probed_rows(one: Subject, rows: Any) -> dict[str, Any]:
  """The probe of some of the samples, in the order given."""
  inputs_BT, keys_B = one.inputs_BT[rows], one.keys_B[rows]
  return probe(one.model, one.contraction, inputs_BT, keys_B)


def loss_program(name: str, steps: int | None = None):
  """(params -> loss) of the family's full loss, and its parameters."""
  one = subject(name)
  setup = state.make_setup(one.experiment)
  rows = task_of(one.experiment).train_batch(0, 1, 8)
  batch = objectives.Batch(
    jnp.asarray(rows['inputs']),
    jnp.asarray(rows['labels']),
    core.row_keys(jax.random.key(1), jnp.asarray(rows['ids'])),
    None if setup.experiment.loop.depth is None else jnp.arange(8) % 4 + 1,
  )
  _, params, rest = nnx.split(one.model, nnx.Param, ...)

  def segment(params):
    model = state.merge(setup, params, rest)
    how = supervised.supervision_of(setup.experiment)
    if steps is not None:
      plan = how.plan._replace(max_steps=steps)
      how = how._replace(segment=steps, plan=plan)
    held = supervision.fresh(how, model, batch)
    rows = puzzle_rows(model, jnp.zeros(8, jnp.int32))
    return supervision.supervise(how, model, rows, held, 8.0)[0]

  if setup.experiment.train.objective == 'supervision':
    return segment, params

  def loss(params):
    objective = step.make_objective(setup, batch.depth_B)
    if steps is not None:
      plan = objective.plan._replace(max_steps=steps, adjoint=core.full())
      objective = objective._replace(plan=plan)
    model = state.merge(setup, params, rest)
    return objectives.loss_sums(model, batch, objective, 48.0, 8.0)[0]

  return loss, params


@functools.cache
def gradients(name: str) -> tuple[Any, dict[str, np.ndarray]]:
  """The full loss, and its gradient by path; a row per stacked layer."""
  loss, params = loss_program(name)
  value, grads = jax.jit(jax.value_and_grad(loss))(params)
  names = jax.tree.leaves(
    axis_names(subject(name).model), is_leaf=lambda x: isinstance(x, tuple)
  )
  leaves = jax.tree_util.tree_flatten_with_path(grads)[0]
  by_path = {}
  for (path, leaf), axes in zip(leaves, names, strict=True):
    rows = leaf.shape[0] if 'layers' in axes[:1] else 1
    flat = np.asarray(leaf).reshape(rows, -1)
    by_path[jax.tree_util.keystr(path)] = flat
  return value, by_path


def token_jacobian(one: Subject) -> np.ndarray:
  """|d logits[t] / d E[x_s]| of a text of distinct tokens, by t and s."""
  length = one.experiment.model.seq_len
  inputs_BT = jnp.arange(length)[None]
  _, params, rest = nnx.split(one.model, nnx.Param, ...)
  graph = nnx.split(one.model, nnx.Param, ...)[0]
  is_table = jax.tree.map(
    lambda axes: axes[:1] == ('vocab',),
    axis_names(one.model),
    is_leaf=lambda x: isinstance(x, tuple),
  )

  def read(params):
    model = nnx.merge(graph, params, rest)
    logits_BTV = outputs(model, inputs_BT, one.keys_B[:1], **fixed(2))['logits']
    return jnp.sum(logits_BTV * jnp.cos(jnp.arange(logits_BTV.shape[-1])), -1)

  def jacobian(params):
    _, pull = jax.vjp(read, params)
    return jax.vmap(pull)(jnp.eye(length)[:, None])[0]

  grads, found = jax.jit(jacobian)(params), jax.tree.leaves(is_table)
  tables = [
    np.abs(leaf).sum(-1)[:, :length]
    for leaf, hit in zip(jax.tree.leaves(grads), found, strict=True)
    if hit
  ]
  return np.sum(tables, 0)
