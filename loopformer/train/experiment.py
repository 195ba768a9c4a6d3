"""One experiment: model, task, loop, training and evaluation, validated."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from loopformer.evaluate.rollouts import RolloutConfig
from loopformer.nn.config import require, require_one_of
from loopformer.nn.losses import CROSS_ENTROPIES
from loopformer.tasks import TASKS, Real, Task
from loopformer.train import checks
from loopformer.train.config import from_mapping, to_mapping
from loopformer.train.exit_gate import ExitGateConfig
from loopformer.train.optimizers import OptimizerConfig
from loopformer.zoo import FAMILIES
from loopformer.zoo.choices import LoopConfig, check_rule, make_rule, nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """Devices along each axis; -1 for all that are left, on one axis at most."""

  data: int = -1
  fsdp: int = 1
  tensor: int = 1

  def __post_init__(self):
    sizes = (self.data, self.fsdp, self.tensor)
    for name, size in zip(('data', 'fsdp', 'tensor'), sizes, strict=True):
      if size < 1 and size != -1:
        raise ValueError(
          f'{name} must be >= 1, or -1 for the rest, got {size}.'
        )
    if sizes.count(-1) > 1:
      raise ValueError(f'data, fsdp, tensor may hold one -1, got {sizes}.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableConfig:
  """Sign descent on rows of a puzzle table, see `loopformer.train.sparse`.

  Attributes:
    learning_rate: peak rate; it follows the schedule of the optimiser.
    weight_decay: decoupled decay of the rows a batch has read.
  """

  learning_rate: float = 1e-2
  weight_decay: float = 0.1

  def __post_init__(self):
    for name in ('learning_rate', 'weight_decay'):
      require(name, getattr(self, name), at_least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig:
  """A run whose parameters this one starts from.

  Attributes:
    workdir: of the other run, whose newest checkpoint is read; '' for none.
    layers: of a plain decoder made into prelude, core and coda, which of its
      layers, in order; () for a run of the same model.
  """

  workdir: str = ''
  layers: tuple[int, ...] = ()

  def __post_init__(self):
    if self.layers and not self.workdir:
      raise ValueError(
        f'workdir must name a run whose layers are taken, got {self.layers} '
        'of none.'
      )
    for layer in self.layers:
      require('layers', layer, at_least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """How a model is trained.

  Attributes:
    steps: optimiser steps.
    batch_size: rows per step, over all devices and accumulation parts.
    accumulate: parts a batch is split into; equal to the whole batch.
    seed: of parameters, data and depths.
    objective: `last` (the loss where the loop ends, or of the mixed output),
      `every` (mean over all recurrences, under `last_k` over the last k, from
      which the state before is cut off), `expected` (PonderNet),
      `supervision` (one segment per step, rows carried on until they halt),
      `expected_exit` and `exit_gate` (Ouro's two stages).
    segment: recurrences per step under `supervision`.
    cross_entropy: `softmax` or `stablemax`, under `supervision`.
    table: how rows of a puzzle table are trained, under `supervision`.
    ponder_weight: tau of ACT's cost, or beta of PonderNet's KL.
    prior: hazard of PonderNet's geometric prior.
    exit_gate: constants of Ouro's losses.
    source: a run to start from.
    optimizer: see `OptimizerConfig`.
    ema: decay of the averaged parameters; 0 for none.
    mesh: devices.
    on_nonfinite: `abort` the run, or `skip` the update and count it.
    log_every: steps between two records of metrics.
    save_every: steps between two checkpoints; the last step is always saved.
    keep: checkpoints kept.
    tensorboard: whether event files are written besides metrics.jsonl.
  """

  steps: int = 1000
  batch_size: int = 64
  accumulate: int = 1
  seed: int = 0
  objective: str = 'last'
  segment: int = 1
  cross_entropy: str = 'softmax'
  table: TableConfig = dataclasses.field(default_factory=TableConfig)
  ponder_weight: float = 0.01
  prior: float = 0.2
  exit_gate: ExitGateConfig = dataclasses.field(default_factory=ExitGateConfig)
  source: SourceConfig = dataclasses.field(default_factory=SourceConfig)
  optimizer: OptimizerConfig = dataclasses.field(
    default_factory=OptimizerConfig
  )
  ema: float = 0.0
  mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
  on_nonfinite: str = 'abort'
  log_every: int = 20
  save_every: int = 200
  keep: int = 3
  tensorboard: bool = True

  def __post_init__(self):
    for name in (
      'steps',
      'batch_size',
      'accumulate',
      'segment',
      'log_every',
      'save_every',
      'keep',
    ):
      require(name, getattr(self, name), at_least=1)
    if not 0 <= self.seed < 2**32:
      raise ValueError(f'seed must be in [0, 2**32), got {self.seed}.')
    require('ponder_weight', self.ponder_weight, at_least=0)
    require_one_of('objective', self.objective, checks.ADJOINTS_OF)
    require_one_of('cross_entropy', self.cross_entropy, CROSS_ENTROPIES)
    if self.objective == 'supervision' and self.accumulate > 1:
      raise ValueError(
        'accumulate must be 1 under supervision, whose rows live on between '
        f'steps, got {self.accumulate}.'
      )
    require_one_of('on_nonfinite', self.on_nonfinite, ('abort', 'skip'))
    if not 0 <= self.ema < 1:
      raise ValueError(f'ema must be in [0, 1), got {self.ema}.')
    if not 0 < self.prior < 1:
      raise ValueError(f'prior must be in (0, 1), got {self.prior}.')
    if self.batch_size % self.accumulate:
      raise ValueError(
        f'batch_size must be a multiple of accumulate = {self.accumulate}, '
        f'got {self.batch_size}.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
  """How a trained model is measured.

  Attributes:
    rows: held-out rows.
    batch_size: rows at a time.
    depths: recurrences of the depth sweep.
    cap: recurrences at most under the halt rules.
    rules: halt rules to compare.
    rollouts: several answers per row, and which is kept.
    variations: fields of the task to be replaced, `{'length': 32}`; each is
      measured besides, with the same model.
    use_ema: whether averaged parameters are measured, where there are some.
  """

  rows: int = 1024
  batch_size: int = 256
  depths: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
  cap: int = 16
  rules: tuple[Mapping[str, Any], ...] = ()
  rollouts: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
  variations: tuple[Mapping[str, Any], ...] = ()
  use_ema: bool = True

  def __post_init__(self):
    for name in ('rows', 'batch_size', 'cap'):
      require(name, getattr(self, name), at_least=1)
    if not self.depths:
      raise ValueError('depths must hold at least one depth, got none.')
    for depth in self.depths:
      require('depths', depth, at_least=1)
    for rule in self.rules:
      check_rule(rule)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """All that decides a run; `name` of the family and of the task besides.

  Attributes:
    family: a key of `loopformer.zoo.FAMILIES`.
    model: its config.
    task_name: a key of `loopformer.tasks.TASKS`.
    task: its config.
    loop: how the loop runs.
    train: how it is trained.
    eval: how it is measured.
  """

  family: str
  model: Any
  task_name: str
  task: Any
  loop: LoopConfig
  train: TrainConfig
  eval: EvalConfig

  def __post_init__(self):
    heads = FAMILIES[self.family].heads(self.model)
    for spec in (self.loop.halt, *self.eval.rules):
      make_rule(spec, heads, rows=self.loop.rows)
    for index in range(len(self.eval.variations)):
      varied_task(self, index)
    checks.check_objective(self)
    checks.check_source(self)


def from_dict(config: Mapping[str, Any]) -> Experiment:
  """The experiment a mapping describes.

  `model` holds `family` and the family's fields, `task` holds `name` and the
  task's; fields may be left out. `bind` replaces vocab_size, num_classes and
  seq_len of the model by the task's.

  Raises:
    ValueError: one line naming field, value and what is allowed.
  """
  allowed = ('model', 'task', 'loop', 'train', 'eval')
  for name, value in config.items():
    if name not in allowed:
      raise ValueError(
        f'{name} is not a section; a config has {allowed}'
        f'{nearest(name, allowed)}.'
      )
    if not isinstance(value, Mapping):
      raise ValueError(f'{name} must be a mapping, got {value!r}.')
  sections = {name: to_mapping(value) for name, value in config.items()}
  model, task = sections.get('model', {}), sections.get('task', {})
  family = _pop_name(model, 'model.family', 'family', FAMILIES)
  task_name = _pop_name(task, 'task.name', 'name', TASKS)
  return Experiment(
    family=family,
    model=from_mapping(FAMILIES[family].config, model, path='model'),
    task_name=task_name,
    task=from_mapping(TASKS[task_name].config, task, path='task'),
    loop=from_mapping(LoopConfig, sections.get('loop', {}), path='loop'),
    train=from_mapping(TrainConfig, sections.get('train', {}), path='train'),
    eval=from_mapping(EvalConfig, sections.get('eval', {}), path='eval'),
  )


def to_dict(experiment: Experiment) -> dict[str, Any]:
  """The resolved config, as `from_dict` reads it."""
  return {
    'model': {'family': experiment.family, **to_mapping(experiment.model)},
    'task': {'name': experiment.task_name, **to_mapping(experiment.task)},
    'loop': to_mapping(experiment.loop),
    'train': to_mapping(experiment.train),
    'eval': to_mapping(experiment.eval),
  }


def build_task(experiment: Experiment) -> Task:
  """The task of an experiment; what it refuses is named `task.FIELD`.

  Raises:
    ValueError: one line, if its files cannot be used.
  """
  try:
    return TASKS[experiment.task_name].build(experiment.task)
  except (ValueError, OSError) as error:
    first = str(error).split(' ', 1)[0]
    fields = [field.name for field in dataclasses.fields(experiment.task)]
    prefix = 'task.' if first in fields else ''
    raise ValueError(f'{prefix}{error}') from None


def varied_task(experiment: Experiment, index: int) -> Any:
  """The task's config with a variation's fields.

  Raises:
    ValueError: one line naming the field, if it or its value is wrong.
  """
  fields = to_mapping(experiment.task) | experiment.eval.variations[index]
  kind = TASKS[experiment.task_name].config
  return from_mapping(kind, fields, path=f'eval.variations[{index}]')


def build_variations(experiment: Experiment) -> dict[str, Task]:
  """The varied tasks by what is varied: `length=32`.

  Raises:
    ValueError: if a task cannot be built, or has other tokens or features.
  """
  plain = build_task(experiment)
  eval_once = dataclasses.replace(experiment.eval, variations=())
  built = {}
  for index, change in enumerate(experiment.eval.variations):
    task = build_task(
      dataclasses.replace(
        experiment, task=varied_task(experiment, index), eval=eval_once
      )
    )
    for name in ('vocab_size', 'num_classes', 'features'):
      kept, got = (getattr(one, name, 0) for one in (plain, task))
      if got != kept:
        raise ValueError(
          f'eval.variations[{index}] must keep {name} = {kept}, got {got}.'
        )
    built[','.join(f'{k}={v}' for k, v in change.items())] = task
  return built


def bind(experiment: Experiment, task: Any) -> Experiment:
  """Sizes of the model taken from the task; causal tasks need causal models.

  Raises:
    ValueError: if a model that reads later positions is to predict them, one
      that does not tell documents apart is to read packed ones, or one that
      reads tokens is to read numbers.
  """
  sizes = {
    'vocab_size': task.vocab_size,
    'num_classes': task.num_classes,
    'seq_len': task.seq_len,
  }
  if isinstance(task, Real):
    checks.check_real(experiment)
  if hasattr(experiment.model, 'features'):
    sizes['features'] = getattr(task, 'features', 0)
  if hasattr(task, 'num_puzzles') and hasattr(experiment.model, 'puzzles'):
    sizes['puzzles'] = task.num_puzzles
  model = dataclasses.replace(experiment.model, **sizes)
  if task.causal and not model.block.causal:
    raise ValueError(
      f'model.block.mask must be causal or window for task '
      f'{experiment.task_name!r}, got {model.block.mask!r}.'
    )
  packed = getattr(experiment.task, 'pack', False)
  family = FAMILIES[experiment.family]
  if packed and not hasattr(family.model, 'cache_parts'):
    able = [n for n, f in FAMILIES.items() if hasattr(f.model, 'cache_parts')]
    raise ValueError(
      f'model.family must be one of {able} for packed documents, got '
      f'{experiment.family!r}.'
    )
  return dataclasses.replace(experiment, model=model)


def _pop_name(section, path, key, table):
  name = section.pop(key, None)
  if not isinstance(name, str) or name not in table:
    raise ValueError(
      f'{path} must be one of {tuple(table)}, got {name!r}'
      f'{nearest(name, table)}.'
    )
  return name


def config_dict(**sections: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """A whole config for absl flags: what is given, and every default.

  Every field of every section is present, so each can be overridden by a flag
  such as `--config.train.steps=100`, and a wrong name is refused.
  """
  return _config_dict(to_dict(from_dict(sections)))


def _config_dict(values):
  config = ml_collections.ConfigDict()
  for key, value in values.items():
    if isinstance(value, Mapping):
      config[key] = _config_dict(value)
    elif value is None:
      config[key] = placeholder(object)
    else:
      config[key] = tuple(value) if isinstance(value, list) else value
  return config
