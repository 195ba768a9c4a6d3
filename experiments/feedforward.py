"""A plain transformer: what a loop has to beat.

Shows: with the looped model's parameters it lacks depth; with its compute it
needs R times the parameters. Written out as a chain of thought it has the
depth, and needs a pass per token.
Hardware: two CPU cores. Time and score: see experiments/RESULTS.md.
Command: loopformer-train --config=experiments/feedforward.py:same_compute
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
from loopformer.experiments.shared import puzzles, synthetic

from loopformer.train.experiment import config_dict

ONCE = {'max_steps': 1}


def _sudoku4(layers: int) -> ml_collections.ConfigDict:
  return config_dict(
    model={
      'family': 'feedforward',
      'layers': layers,
      'positions': 'learned',
      'block': {
        'style': 'pre',
        'rotary': 'none',
        'width': 64,
        'heads': 4,
        'hidden': 128,
      },
    },
    task={'name': 'sudoku', 'size': 4},
    loop=ONCE,
    train={
      'steps': 500,
      'batch_size': 64,
      'optimizer': {
        'learning_rate': 2e-3,
        'warmup': 50,
        'schedule': 'cosine',
        'weight_decay': 0.01,
      },
    },
    eval={'rows': 5120, 'depths': (1,), 'cap': 1},
  )


def _reasoner(
  task: Mapping[str, Any], layers: int, mask: str = 'none'
) -> ml_collections.ConfigDict:
  """Layers of the puzzle reasoners' shape, data and optimiser as for them."""
  return config_dict(
    model={
      'family': 'feedforward',
      'layers': layers,
      'positions': 'learned',
      'block': {
        **puzzles.SMALL_BLOCK,
        'style': 'pre',
        'rotary': 'none',
        'mask': mask,
      },
    },
    task=task,
    loop=ONCE,
    train={
      **puzzles.SMALL_TRAIN,
      'objective': 'last',
      'cross_entropy': 'softmax',
    },
    eval={'rows': 2048, 'batch_size': 256, 'depths': (1,), 'cap': 1},
  )


def direct(task: str) -> ml_collections.ConfigDict:
  """The whole board at once: as many layers as one segment of trm applies."""
  return _reasoner(puzzles.TASKS[task], 16)


def chain() -> ml_collections.ConfigDict:
  """Cell by cell, the easiest first, each written before the next."""
  task = {**puzzles.TASKS['sudoku4_1k'], 'name': 'sudoku_chain'}
  return _reasoner(task, 8, 'causal')


def text() -> ml_collections.ConfigDict:
  """Six layers on byte-level text."""
  return config_dict(
    model={
      'family': 'feedforward',
      'layers': 6,
      'block': {'width': 128, 'heads': 4, 'mask': 'causal'},
    },
    task={'name': 'text', 'length': 128},
    loop=ONCE,
    train={
      'steps': 2000,
      'batch_size': 16,
      'save_every': 10,
      'log_every': 5,
      'optimizer': {'learning_rate': 1e-3, 'warmup': 50, 'weight_decay': 0.1},
    },
    eval={'rows': 256, 'batch_size': 64, 'depths': (1,), 'cap': 1},
  )


def _plain(layers: int) -> dict[str, Any]:
  return {'family': 'feedforward', 'layers': layers}


def p_hop(layers: int) -> ml_collections.ConfigDict:
  """One layer has the parameters of the looped model, six its compute."""
  return synthetic.p_hop(_plain(layers), ONCE, depths=(1,))


def mano(layers: int) -> ml_collections.ConfigDict:
  """Two layers have the parameters of the looped model, twelve its compute."""
  return synthetic.mano(_plain(layers), ONCE, depths=(1,))


def regression() -> ml_collections.ConfigDict:
  """The one layer that `recurrent_depth.py:regression` loops, applied once."""
  return synthetic.regression(_plain(1), ONCE, depths=(1,))


VARIANTS = {
  'same_parameters': lambda: _sudoku4(2),
  'same_compute': lambda: _sudoku4(16),
  'direct': lambda: direct('sudoku4_1k'),
  'direct_maze7': lambda: direct('maze7'),
  'chain': chain,
  'text': text,
  'p_hop_1': lambda: p_hop(1),
  'p_hop_6': lambda: p_hop(6),
  'mano_2': lambda: mano(2),
  'mano_12': lambda: mano(12),
  'regression': regression,
}


def get_config(
  variant: str = 'same_parameters',
) -> ml_collections.ConfigDict:
  """The config of a variant.

  `same_parameters` and `same_compute` match `universal.py:sudoku4`, `direct`
  and `chain` the puzzle reasoners' sudoku4_1k, `direct_maze7` their maze7,
  `p_hop_1` and `p_hop_6` `recurrent_depth.py:p_hop`, `mano_2` and `mano_12`
  `ouro.py:mano`.
  """
  return puzzles.choose(VARIANTS, variant)
