"""A trained run from its workdir, ready to be measured."""

import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
from flax import nnx

from loopformer.evaluate.measure import Subject
from loopformer.tasks import Task
from loopformer.train import checkpoint
from loopformer.train.experiment import (
  EvalConfig,
  Experiment,
  bind,
  build_task,
  build_variations,
  from_dict,
)
from loopformer.train.state import Setup, TrainState, merge
from loopformer.zoo import FAMILIES


class Run(NamedTuple):
  """A checkpoint's family and model, its task and how it is to be measured.

  `variations` are the tasks of `EvalConfig.variations` by name.
  """

  subject: Subject
  task: Task
  eval: EvalConfig
  step: int
  variations: Mapping[str, Task]
  family: str


def restore_run(workdir: str | pathlib.Path, *, step: int | None = None) -> Run:
  """The newest intact checkpoint of a run, or the given step.

  Only the model that is measured is read, whole and onto one device, whatever
  mesh and batch it was trained with.

  Raises:
    ValueError: if the workdir holds no run or no such step.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / 'config.json'
  if not path.exists():
    raise ValueError(f'workdir must hold a run (config.json), got {workdir}.')
  experiment = from_dict(json.loads(path.read_text()))
  task = build_task(experiment)
  experiment = bind(experiment, task)
  abstract = FAMILIES[experiment.family].abstract(experiment.model)
  graph, params, rest = nnx.split(abstract, nnx.Param, ...)
  measured = 'ema' if _averaged(experiment) else 'params'
  like = {measured: params, 'rest': rest}
  restored = checkpoint.restore(
    workdir / 'checkpoints', like, step=step, partial=True
  )
  if restored is None:
    raise ValueError(f'workdir must hold a checkpoint, got {workdir}.')
  state = restored.state
  model = nnx.merge(graph, state[measured], state['rest'])
  return Run(
    _subject(experiment, jax.device_put(model, jax.local_devices()[0])),
    task,
    experiment.eval,
    restored.step,
    build_variations(experiment),
    experiment.family,
  )


def subject_of(setup: Setup, state: TrainState) -> Subject:
  """The model of a training state, with averaged parameters if it has them."""
  experiment = setup.experiment
  params = state.ema if _averaged(experiment) else state.params
  model = merge(setup, params, state.rest)
  if setup.mesh.shape['data'] == setup.mesh.size:
    # Copies of the whole model: one is measured, not all at once.
    model = jax.device_put(model, setup.mesh.local_devices[0])
  return _subject(experiment, model)


def _averaged(experiment: Experiment) -> bool:
  """Whether it is the averaged parameters that are measured."""
  return experiment.eval.use_ema and experiment.train.ema > 0


def _subject(experiment: Experiment, model: nnx.Module) -> Subject:
  return Subject(
    model=model,
    heads=FAMILIES[experiment.family].heads(experiment.model),
    loop=experiment.loop,
  )
