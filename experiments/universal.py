"""Universal Transformer (arXiv:1807.03819): one tied block, applied R times.

Shows: exact accuracy on Sudoku rises with recurrences, and halting at a fixed
point of the state spends them where they are needed.
Hardware: two CPU cores (sudoku4, group); one GPU or TPU host (sudoku9).
Time and score: see experiments/RESULTS.md.
Command: loopformer-train --config=experiments/universal.py:sudoku4
"""

import ml_collections
from loopformer.experiments.shared.puzzles import choose

from loopformer.train.experiment import config_dict

RULES = (
  {'name': 'fixed_steps', 'count': 8},
  {'name': 'fixed_point', 'rtol': 0.05},
  {'name': 'fixed_point', 'rtol': 0.03},
  {'name': 'argmax', 'patience': 2},
)
BLOCK = {'style': 'post', 'rotary': 'none', 'mlp': 'swiglu'}
LOOPED = {
  'family': 'universal',
  'positions': 'learned',
  'injection': 'add',
  'step_signal': False,
  'start': 'zero',
}


def sudoku4() -> ml_collections.ConfigDict:
  """84 thousand parameters; generated 4x4 boards; two minutes on a laptop."""
  return config_dict(
    model={
      **LOOPED,
      'layers': 2,
      'block': {**BLOCK, 'width': 64, 'heads': 4, 'hidden': 128},
    },
    task={'name': 'sudoku', 'size': 4},
    loop={'max_steps': 8},
    train={
      'steps': 500,
      'batch_size': 64,
      'objective': 'every',
      'optimizer': {
        'learning_rate': 2e-3,
        'warmup': 50,
        'schedule': 'cosine',
        'weight_decay': 0.01,
      },
      'save_every': 200,
    },
    eval={
      'rows': 5120,
      'batch_size': 256,
      'rules': RULES,
      'depths': (1, 2, 3, 4, 6, 8, 12, 16, 32),
    },
  )


def sudoku9() -> ml_collections.ConfigDict:
  """9x9; give real puzzles by --config.task.path=FILE.csv."""
  return config_dict(
    model={
      **LOOPED,
      'layers': 2,
      'block': {**BLOCK, 'width': 128, 'heads': 4, 'hidden': 344},
    },
    task={'name': 'sudoku', 'size': 9, 'pool_size': 1000},
    loop={'max_steps': 16, 'adjoint': {'name': 'full', 'remat': 1}},
    train={
      'steps': 20000,
      'batch_size': 64,
      'objective': 'every',
      'optimizer': {
        'learning_rate': 1e-3,
        'warmup': 200,
        'schedule': 'cosine',
        'weight_decay': 0.1,
      },
      'ema': 0.999,
      'save_every': 5,
      'log_every': 1,
    },
    eval={
      'rows': 1024,
      'batch_size': 128,
      'cap': 64,
      'rules': RULES,
      'depths': (1, 4, 16, 32, 64),
    },
  )


def group() -> ml_collections.ConfigDict:
  """Word problem of S_3, causal tagging; halts by ACT at every position."""
  return config_dict(
    model={
      'family': 'universal',
      'layers': 1,
      'halting': True,
      'step_signal': True,
      'start': 'embed',
      'block': {
        'style': 'pre',
        'rotary': 'half',
        'mask': 'causal',
        'width': 64,
        'heads': 4,
      },
    },
    task={'name': 'group', 'group': 's3', 'length': 16},
    loop={'max_steps': 6, 'halt': {'name': 'act'}, 'rows': 'token'},
    train={
      'steps': 5000,
      'batch_size': 256,
      'objective': 'last',
      'ponder_weight': 0.001,
      'optimizer': {'learning_rate': 1e-3, 'warmup': 100},
    },
    eval={
      'rows': 1024,
      'depths': (1, 2, 4, 6, 8),
      'cap': 8,
      'rules': ({'name': 'act'},),
    },
  )


VARIANTS = {'sudoku4': sudoku4, 'sudoku9': sudoku9, 'group': group}


def get_config(variant: str = 'sudoku4') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return choose(VARIANTS, variant)
