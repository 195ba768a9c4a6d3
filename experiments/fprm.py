"""Fixed-Point Reasoning Model (arXiv:2606.18206) on puzzles and groups.

Shows: a state that stops moving is a stopping signal that needs no training.
Hardware: two CPU cores (sudoku4*, sudoku6_1k, maze7, group*); a GPU or TPU host
for the published runs (sudoku9, maze30), none of which was run.
Time and score: see experiments/RESULTS.md.
Command: loopformer-train --config=experiments/fprm.py:sudoku4
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
from loopformer.experiments.shared import puzzles

from loopformer.train.experiment import config_dict

WINDOW = 6
MODEL = {
  'family': 'fprm',
  'block': {**puzzles.SMALL_BLOCK, 'style': 'pre'},
  'start_std': 1.0,
}
CONVERGED = {
  'name': 'any_of',
  'rules': (
    {'name': 'fixed_point', 'rtol': 0.1, 'norm': 'token_max'},
    {'name': 'step_size_below', 'threshold': 1e-3},
  ),
}
LOOP = {
  'max_steps': 8 * WINDOW,
  'norm': 'token_max',
  'halt': {'name': 'at_multiples', 'k': WINDOW, 'rule': CONVERGED},
  'solver': {'name': 'patience_damped', 'decay': 0.9, 'patience': 5},
}
TRAIN = {'segment': WINDOW}
RULES = (
  CONVERGED,
  {'name': 'fixed_point', 'rtol': 0.03, 'norm': 'token_max'},
  {'name': 'q'},
)
SMALL = {
  'train': TRAIN,
  'rules': RULES,
  'depths': (1, 2, 4, 8, 16, 32, 48, 96),
  'cap': 96,
}
LINE = {'conv': 'line', 'conv_taps': 4}


def maze7() -> ml_collections.ConfigDict:
  """Mazes of 7 by 7 with one shortest path."""
  model = {**MODEL, **LINE, 'map_norm': 'output'}
  return puzzles.small('maze7', model, LOOP, **SMALL)


def _group(
  loop: Mapping[str, Any], rules: tuple[Mapping[str, Any], ...]
) -> ml_collections.ConfigDict:
  """Word problem of S_3: trained at length 16, tested at longer ones too."""
  return config_dict(
    model={
      **MODEL,
      'block': {**MODEL['block'], 'mask': 'causal', 'rotary': 'none'},
      'puzzle_width': 0,
      **LINE,
      'alpha_inner': 0.5,
      'alpha_outer': 0.5,
    },
    task={'name': 'group', 'group': 's3', 'length': 16},
    loop=loop,
    train={**puzzles.SMALL_TRAIN, **TRAIN, 'ema': 0.0},
    eval={
      'rows': 1024,
      'batch_size': 256,
      'cap': 96,
      'rules': rules,
      'depths': (1, 2, 4, 6, 8, 16, 32, 48, 96),
      'variations': ({'length': 32}, {'length': 64}),
    },
  )


def group() -> ml_collections.ConfigDict:
  """Words of a group, iterated to a fixed point.

  Causal, so the Q-head on the first token sees no word and halts none.
  """
  return _group(LOOP, RULES[:2])


def group_fixed() -> ml_collections.ConfigDict:
  """The same map and work per step, but always one window of recurrences."""
  loop = {'max_steps': WINDOW, 'norm': LOOP['norm']}
  return _group(loop, ({'name': 'fixed_steps', 'count': WINDOW}, *RULES[1:2]))


def _published(
  model: Mapping[str, Any],
  windows: int,
  optimizer: Mapping[str, Any],
  **fields: Any,
) -> ml_collections.ConfigDict:
  """A published run."""
  return puzzles.published(
    {'family': 'fprm', **model},
    {**LOOP, 'max_steps': windows * WINDOW},
    {'name': 'adamw', **optimizer},
    rules=RULES,
    steps=78_125,
    ema=0.999,
    **TRAIN,
    **fields,
  )


def sudoku9() -> ml_collections.ConfigDict:
  """Of Sudoku-Extreme."""
  return _published({}, 12, {'learning_rate': 1e-3, 'weight_decay': 1e-3})


def maze30() -> ml_collections.ConfigDict:
  """Of Maze-Hard, without symmetries; as many steps as on Sudoku."""
  return _published(
    {**LINE, 'map_norm': 'output'},
    24,
    {'learning_rate': 1e-4, 'weight_decay': 1.0},
    task='maze30',
    table={'learning_rate': 1e-2, 'weight_decay': 1.0},
  )


VARIANTS = {
  **puzzles.small_variants(MODEL, LOOP, **SMALL),
  'maze7': maze7,
  'group': group,
  'group_fixed': group_fixed,
  'sudoku9': sudoku9,
  'maze30': maze30,
}


def get_config(variant: str = 'sudoku4') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return puzzles.choose(VARIANTS, variant)
