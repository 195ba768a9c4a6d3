"""Puzzle experiments: one laptop size and the published one per family.

A family's file gives its model and its loop; tasks, batch and optimiser are
the same for all, so that they can be compared.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from loopformer.nn.reasoner import published_block
from loopformer.train.config import to_mapping
from loopformer.train.experiment import config_dict

PUBLISHED_BLOCK = to_mapping(published_block())
SMALL_BLOCK = {**PUBLISHED_BLOCK, 'width': 64, 'heads': 4}
SMALL = {'puzzle_width': 64, 'prefix': 0, 'positions': 'learned'}
# Held back one time in ten, as all of them train.
SEGMENTS = 8
Q_HALT = {
  'name': 'explore',
  'probability': 0.1,
  'longest': SEGMENTS,
  'rule': {'name': 'q'},
}
Q_CONTINUE = {**Q_HALT, 'rule': {'name': 'q_continue'}}
EVALUATED = (
  {'name': 'q'},
  {'name': 'fixed_point', 'rtol': 0.3},
  {'name': 'fixed_point', 'rtol': 0.1},
  {'name': 'fixed_point', 'rtol': 0.03},
  {'name': 'argmax', 'patience': 2},
)
SMALL_TRAIN = {
  'steps': 1000,
  'batch_size': 64,
  'objective': 'supervision',
  'cross_entropy': 'stablemax',
  'optimizer': {
    'name': 'adam_atan2',
    'learning_rate': 1e-3,
    'warmup': 100,
    'weight_decay': 0.1,
    'clip': 0.0,
  },
  'table': {'learning_rate': 1e-3, 'weight_decay': 0.1},
  'ema': 0.99,
  'save_every': 500,
  'log_every': 50,
}
# Of `_1k` 1,000 puzzles are trained on, as in the papers; of the mazes and of
# 6x6 boards never more.
TASKS = {
  'sudoku4': {'name': 'sudoku', 'size': 4},
  'sudoku4_1k': {'name': 'sudoku', 'size': 4, 'train_puzzles': 1000},
  'sudoku6_1k': {
    'name': 'sudoku',
    'size': 6,
    'pool_size': 1500,
    'train_puzzles': 1000,
  },
  'maze7': {'name': 'maze', 'size': 7, 'train_puzzles': 1000},
}
PUBLISHED_TASKS = {
  'sudoku9': {'name': 'sudoku', 'size': 9},
  'maze30': {'name': 'maze', 'size': 30, 'kind': 'hard'},
  'maze30_unique': {'name': 'maze', 'size': 30},
  'arc': {'name': 'arc'},
}
# Mixes tokens by an MLP.
ACROSS = {'mixer': 'mlp', 'block': {**PUBLISHED_BLOCK, 'rotary': 'none'}}
TABLE = {'learning_rate': 1e-4, 'weight_decay': 1.0}
# On ARC a row stands for a task: it learns faster than the weights.
ARC_TABLE = {'learning_rate': 1e-2, 'weight_decay': 0.1}
# 100,000 epochs of 400 + 400 + 160 tasks; 723,914 for those of ARC-AGI-2.
ARC_STEPS = 518_071


def small(
  task: str,
  model: Mapping[str, Any],
  loop: Mapping[str, Any],
  *,
  train: Mapping[str, Any] | None = None,
  rules: tuple[Mapping[str, Any], ...] = EVALUATED,
  depths: tuple[int, ...] = (1, 2, 4, 8, 16),
  cap: int = 16,
  rollouts: Mapping[str, Any] | None = None,
) -> ml_collections.ConfigDict:
  """An experiment of minutes on two cores."""
  return config_dict(
    model={**SMALL, **model},
    task=TASKS[task],
    loop={'max_steps': SEGMENTS, **loop},
    train={**SMALL_TRAIN, **(train or {})},
    eval={
      'rows': 2048,
      'batch_size': 256,
      'cap': cap,
      'rules': rules,
      'depths': depths,
      'rollouts': rollouts or {},
    },
  )


def small_variants(
  model: Mapping[str, Any], loop: Mapping[str, Any], **fields: Any
) -> dict[str, Callable[[], ml_collections.ConfigDict]]:
  """A small experiment for every task."""
  return {
    task: functools.partial(small, task, model, loop, **fields)
    for task in TASKS
  }


def published(
  model: Mapping[str, Any],
  loop: Mapping[str, Any],
  optimizer: Mapping[str, Any],
  *,
  task: str = 'sudoku9',
  rules: tuple[Mapping[str, Any], ...] = EVALUATED,
  **train: Any,
) -> ml_collections.ConfigDict:
  """A paper's run; give its data by --config.task.path=PATH.

  A CSV of boards or a folder of mazes; of ARC the evaluated tasks, with the
  others in --config.task.train_paths. Without a path puzzles are made up.
  Papers compute in bfloat16: --config.model.block.dtype=bfloat16.
  """
  return config_dict(
    model=model,
    task=PUBLISHED_TASKS[task],
    loop={'max_steps': 16, **loop},
    train={
      'batch_size': 768,
      'objective': 'supervision',
      'cross_entropy': 'stablemax',
      'optimizer': {
        'name': 'adam_atan2',
        'warmup': 2000,
        'clip': 0.0,
        **optimizer,
      },
      'table': ARC_TABLE if task == 'arc' else TABLE,
      'save_every': 1000,
      **train,
    },
    eval={
      'rows': 1024,
      'batch_size': 256,
      'rules': rules,
      'depths': (1, 4, 16),
    },
  )


def segmented(
  model: Mapping[str, Any],
  *,
  halt: Mapping[str, Any] = Q_HALT,
  weight_decay: float = 1.0,
  **fields: Any,
) -> ml_collections.ConfigDict:
  """A run as `published`, of at most 16 segments, ended by a Q-head."""
  return published(
    model,
    {'halt': {**halt, 'longest': 16}},
    {'learning_rate': 1e-4, 'weight_decay': weight_decay},
    **fields,
  )


def choose(
  variants: Mapping[str, Callable[[], ml_collections.ConfigDict]], variant: str
) -> ml_collections.ConfigDict:
  """The config of a variant.

  Raises:
    ValueError: if there is no such variant.
  """
  if variant not in variants:
    raise ValueError(
      f'variant must be one of {sorted(variants)}, got {variant!r}.'
    )
  return variants[variant]()
