"""The host loop: batches in, metrics and checkpoints out, resumed by itself."""

import json
import logging
import math
import pathlib
import platform
import signal
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

import loopformer
from loopformer.tasks import Task
from loopformer.train import config as config_lib
from loopformer.train import metrics as metrics_lib
from loopformer.train import sharding
from loopformer.train.checkpoint import Checkpointer
from loopformer.train.experiment import (
  Experiment,
  bind,
  build_task,
  from_dict,
  to_dict,
)
from loopformer.train.manifest import write_atomically
from loopformer.train.progress import Progress
from loopformer.train.source import begin
from loopformer.train.state import (
  Setup,
  TrainState,
  check_state_fits,
  make_setup,
)
from loopformer.train.step import StepFn, make_train_step

LOGGER = logging.getLogger('loopformer')
# Fields in which a resumed run may differ from the one it continues.
FREE_TO_CHANGE = (
  'eval',
  'train.steps',
  'train.log_every',
  'train.save_every',
  'train.keep',
  'train.tensorboard',
  'train.mesh',
)


class Outcome(NamedTuple):
  """How a run ended: its setup, its state, and whether a signal cut it."""

  setup: Setup
  state: TrainState
  task: Task
  interrupted: bool


class NonFiniteError(RuntimeError):
  """A loss or gradient was not finite and the policy is to abort."""


def train(experiment: Experiment, workdir: str | pathlib.Path) -> Outcome:
  """Trains until `experiment.train.steps`, from the newest intact checkpoint.

  The workdir gets config.json, env.json, metrics.jsonl, tb/ and checkpoints/,
  and DONE or FAILED at the end. SIGTERM saves the step at hand and returns.

  Raises:
    ValueError: if the workdir holds a run of another config, or the state of
      the run is larger than the memory.
    NonFiniteError: if `on_nonfinite` is abort and a step was not finite.
  """
  workdir = pathlib.Path(workdir)
  task = build_task(experiment)
  experiment = bind(experiment, task)
  _check_same_run(workdir, experiment)
  setup = make_setup(experiment)
  check_state_fits(setup)
  _write_records(workdir, experiment)
  LOGGER.info('%s', task.describe())
  try:
    state = _resume(setup, task, workdir)
  except BaseException:
    (workdir / 'FAILED').touch()
    raise
  finished = int(state.step) >= experiment.train.steps
  if finished:
    (workdir / 'DONE').touch()
  return Outcome(setup, state, task, not finished)


def _resume(setup: Setup, task: Task, workdir: pathlib.Path) -> TrainState:
  """From the newest checkpoint to the end or a signal, the last save done."""
  keep = setup.experiment.train.keep
  with (
    _Stop() as stop,
    Checkpointer(workdir / 'checkpoints', keep=keep) as saver,
  ):
    restored = saver.restore(setup.abstract)
    state = begin(setup) if restored is None else restored.state
    start = int(state.step)
    if start:
      LOGGER.info('Resumed from step %d.', start)
    return _Run(setup, task, workdir, saver, start).until_done(state, stop)


class _Run:
  """One stretch of training, from `start` to the end or a signal."""

  def __init__(
    self,
    setup: Setup,
    task: Task,
    workdir: pathlib.Path,
    saver: Checkpointer,
    start: int,
  ):
    self.setup, self.task, self.saver = setup, task, saver
    self.cfg = setup.experiment.train
    self.start = start
    self.leaves = parameter_names(setup.abstract.params)
    writers: list[Any] = [
      metrics_lib.JsonLinesWriter(workdir / 'metrics.jsonl')
    ]
    if self.cfg.tensorboard:
      writers.append(metrics_lib.TensorBoardWriter(workdir / 'tb'))
    self.writer = metrics_lib.MultiWriter(writers)
    self.writer.truncate_after(start)
    self.progress: Progress | None = None

  def until_done(self, state: TrainState, stop: '_Stop') -> TrainState:
    """Runs step after step; metrics are read one step late."""
    step_fn = make_train_step(self.setup)
    pending = None
    total = max(self.cfg.steps, self.start)
    with Progress(total, start=self.start) as self.progress:
      for step in range(self.start, self.cfg.steps):
        state, metrics = self.one(step_fn, state, step)
        self.record(pending)
        pending = (step + 1, metrics)
        last = step + 1 == self.cfg.steps or stop.requested
        if last or (step + 1) % self.cfg.save_every == 0:
          self.record(pending)
          pending = None
          self.save(state, step + 1)
        if last:
          break
    self.writer.close()
    return state

  def one(
    self, step_fn: StepFn, state: TrainState, step: int
  ) -> tuple[TrainState, Mapping[str, Any]]:
    """Dispatches one step; nothing crosses to or from the device unasked."""
    batch = self.task.train_batch(self.cfg.seed, step, self.cfg.batch_size)
    placed = place(self.setup, batch)
    with jax.transfer_guard('disallow'):
      return step_fn(state, placed)

  def record(self, pending: Any) -> None:
    """Checks a finished step and writes it where it is one to be logged."""
    if pending is None:
      return
    step, metrics = pending
    values = {k: float(v) for k, v in jax.device_get(metrics).items()}
    if not values.pop('finite'):
      self.nonfinite(step, values)
    values.pop('first_bad_leaf')
    if step % self.cfg.log_every == 0 or step == self.cfg.steps:
      self.writer.write(step, values)
    if self.progress is not None:
      self.progress.update(
        step, {k: values[k] for k in ('loss', 'exact_accuracy') if k in values}
      )

  def nonfinite(self, step: int, values: Mapping[str, float]) -> None:
    """Names the step and what went bad first; stops the run if told to."""
    leaf = int(values['first_bad_leaf'])
    where = 'the update'
    if leaf >= 0:
      where = f'the gradient of {self.leaves[leaf]}'
    elif not math.isfinite(values['loss']):
      where = 'the loss'
    elif not math.isfinite(values['gradient_norm']):
      where = 'the norm of the gradients'
    line = f'step {step}: {where} is not finite'
    if self.cfg.on_nonfinite == 'abort':
      raise NonFiniteError(f'{line}; parameters are those of step {step - 1}.')
    LOGGER.warning('%s; the update was skipped.', line)

  def save(self, state: TrainState, step: int) -> None:
    """Starts a checkpoint in the background, after the metrics are on disk."""
    self.writer.flush()
    self.saver.save(step, state, {'config': to_dict(self.setup.experiment)})


class _Stop:
  """Turns SIGTERM into a flag, so that the step at hand can be saved."""

  def __init__(self):
    self.requested = False

  def __enter__(self) -> '_Stop':
    self._old = None
    try:
      self._old = signal.signal(signal.SIGTERM, self._note)
    except ValueError:  # Not in the main thread: signals are not ours.
      pass
    return self

  def _note(self, *_):
    self.requested = True

  def __exit__(self, *_):
    if self._old is not None:
      signal.signal(signal.SIGTERM, self._old)


def place(setup: Setup, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """A batch on its devices, rows over data and fsdp."""
  rows = NamedSharding(setup.mesh, sharding.BATCH)
  return {name: jax.device_put(x, rows) for name, x in batch.items()}


def parameter_names(params: Any) -> list[str]:
  """Dotted path of every parameter, in the order of its leaves."""
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  return ['.'.join(str(key.key) for key in path[:-1]) for path in paths]


def _check_same_run(workdir: pathlib.Path, experiment: Experiment) -> None:
  """Refuses to go on with a run that was configured otherwise."""
  path = workdir / 'config.json'
  if not path.exists() or not (workdir / 'checkpoints').exists():
    return
  old = _with_defaults(json.loads(path.read_text()))
  new = json.loads(json.dumps(to_dict(experiment)))
  changed = [
    line
    for line in config_lib.differences(old, new)
    if not line.startswith(FREE_TO_CHANGE)
  ]
  if changed:
    raise ValueError(
      f'workdir {workdir} holds a run of another config: {"; ".join(changed)}.'
    )


def _with_defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
  """The config with fields that are newer than it, at their defaults."""
  try:
    return json.loads(json.dumps(to_dict(from_dict(config))))
  except ValueError:  # It holds a field that is no more: that is a difference.
    return config


def _write_records(workdir: pathlib.Path, experiment: Experiment) -> None:
  workdir.mkdir(parents=True, exist_ok=True)
  for name in ('DONE', 'FAILED'):
    (workdir / name).unlink(missing_ok=True)
  device = jax.devices()[0]
  records = {
    'config.json': to_dict(experiment),
    'env.json': {
      'loopformer': loopformer.__version__,
      'jax': jax.__version__,
      'python': platform.python_version(),
      'platform': platform.platform(),
      'device': device.device_kind,
      'devices': jax.device_count(),
    },
  }
  for name, record in records.items():
    content = json.dumps(record, indent=2) + '\n'
    write_atomically(workdir / name, content.encode())
