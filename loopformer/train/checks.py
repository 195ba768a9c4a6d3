"""What an experiment's parts ask of each other."""

from typing import Any

from loopformer.nn.config import require
from loopformer.zoo import FAMILIES

# Adjoints with the gradient an objective needs: of the end, of the recurrences
# it sees, or of all of them.
ADJOINTS_OF = {
  'last': ('full', 'last_k', 'one_step', 'implicit', 'phantom'),
  'every': ('full', 'last_k', 'one_step'),
  'expected': ('full',),
  'supervision': ('full',),
  'expected_exit': ('full',),
  'exit_gate': ('full',),
}


def check_objective(experiment: Any) -> None:
  """Raises `ValueError` unless model and loop allow the objective."""
  objective, loop = experiment.train.objective, experiment.loop
  adjoint = loop.adjoint['name']
  if adjoint not in ADJOINTS_OF[objective]:
    raise ValueError(
      f'loop.adjoint.name must be one of {ADJOINTS_OF[objective]} for '
      f'train.objective = {objective!r}, got {adjoint!r}.'
    )
  if objective in ('every', 'supervision') and 'act' in _names(loop.halt):
    raise ValueError(
      f'loop.halt must not hold act for train.objective = {objective!r}, '
      f'which does not pay for pondering, got {dict(loop.halt)}.'
    )
  check = {
    'supervision': _check_supervision,
    'expected': _check_expected,
    'expected_exit': _check_gated,
    'exit_gate': _check_gate_alone,
  }.get(objective)
  if check is not None:
    check(experiment)


def _names(halt):
  """Names of a halt rule and of all it is made of."""
  parts = [*halt.get('rules', ()), *([halt['rule']] if 'rule' in halt else [])]
  return {halt['name']}.union(*map(_names, parts))


def _check_supervision(experiment):
  loop, family = experiment.loop, FAMILIES[experiment.family]
  if loop.depth is not None or loop.rows != 'sample':
    raise ValueError(
      "train.objective = 'supervision' needs loop.depth = None and "
      f"loop.rows = 'sample', got {loop.depth} and {loop.rows!r}."
    )
  if getattr(experiment.task, 'pack', False):
    raise ValueError(
      "task.pack must be False for train.objective = 'supervision', which "
      'does not tell packed documents apart, got True.'
    )
  if family.terms is not None and 'q' not in family.heads(experiment.model):
    raise ValueError(
      "model.halting must be 'q' for train.objective = 'supervision', "
      f'which trains Q-values, got {experiment.model.halting!r}.'
    )


def _check_expected(experiment):
  halt, rows = experiment.loop.halt, experiment.loop.rows
  if (halt['name'], rows) != ('ponder', 'sample') or halt.get('sample'):
    raise ValueError(
      "train.objective = 'expected' needs loop.halt.name = 'ponder', "
      f'unsampled, per sample; got {dict(halt)} per {rows}.'
    )


def _check_gated(experiment):
  """Every recurrence is made, and a head gives each token a hazard."""
  loop, objective = experiment.loop, experiment.train.objective
  made = dict(loop.halt), loop.depth, loop.rows
  if made != ({'name': 'fixed_steps'}, None, 'sample'):
    raise ValueError(
      f"train.objective = {objective!r} needs loop.halt = {{'name': "
      "'fixed_steps'}, loop.depth = None and loop.rows = 'sample', got "
      f'{made[0]}, {made[1]} and {made[2]!r}.'
    )
  heads = FAMILIES[experiment.family].heads(experiment.model)
  if 'halt_token' not in heads:
    raise ValueError(
      f'train.objective = {objective!r} reads the head halt_token, which '
      f'this model does not have; it has {sorted(heads)}.'
    )


def _check_gate_alone(experiment):
  _check_gated(experiment)
  require('loop.max_steps', experiment.loop.max_steps, at_least=2)
  decay = experiment.train.optimizer.weight_decay
  if decay:
    raise ValueError(
      'train.optimizer.weight_decay must be 0 for train.objective = '
      f"'exit_gate', which trains the gate alone, got {decay}."
    )


def check_real(experiment: Any) -> None:
  """Raises `ValueError` unless model and objective take real numbers."""
  if not hasattr(experiment.model, 'features'):
    able = [
      name for name, family in FAMILIES.items()
      if hasattr(family.config(), 'features')
    ]  # fmt: skip
    raise ValueError(
      f'model.family must be one of {able} for task '
      f'{experiment.task_name!r} of real numbers, got {experiment.family!r}.'
    )
  if experiment.train.objective == 'supervision':
    raise ValueError(
      "train.objective must not be 'supervision' for task "
      f'{experiment.task_name!r}, which has no classes.'
    )


def check_source(experiment: Any) -> None:
  """Raises `ValueError` unless layers are taken by a family that can."""
  layers = experiment.train.source.layers
  if not layers:
    return
  if FAMILIES[experiment.family].adopt is None:
    raise ValueError(
      f'train.source.layers must be () for model.family = '
      f'{experiment.family!r}, which is not made of other models, got '
      f'{layers}.'
    )
  model = experiment.model
  count = model.prelude + model.core + model.coda
  if len(layers) != count:
    raise ValueError(
      f'train.source.layers must name {count} layers, those of prelude, core '
      f'and coda, got {layers}.'
    )
