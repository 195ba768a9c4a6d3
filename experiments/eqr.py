"""Equilibrium Reasoner (arXiv:2605.21488) on puzzles.

Shows: a damped, noisy recursion from random starts.
Hardware: two CPU cores (sudoku4, maze7); one GPU or TPU host (sudoku9).
Time and score: see experiments/RESULTS.md.
Command: loopformer-train --config=experiments/eqr.py:sudoku4
"""

import ml_collections
from loopformer.experiments.shared import puzzles

MODEL = {'family': 'eqr', 'high_cycles': 2, 'low_cycles': 3, 'puzzle_width': 0}
MODEL = {**MODEL, 'block': puzzles.SMALL_BLOCK}
LOOP = {'halt': puzzles.Q_HALT}


def sudoku4() -> ml_collections.ConfigDict:
  """Generated 4x4 boards, minutes on two cores."""
  return puzzles.small('sudoku4', MODEL, LOOP)


def maze7() -> ml_collections.ConfigDict:
  """Mazes of 7 by 7 with one shortest path."""
  return puzzles.small('maze7', MODEL, LOOP)


def sudoku9() -> ml_collections.ConfigDict:
  """The published run."""
  return puzzles.published(
    {
      'family': 'eqr',
      'mixer': 'mlp',
      'block': {**puzzles.PUBLISHED_BLOCK, 'rotary': 'none'},
    },
    {'halt': {**puzzles.Q_HALT, 'longest': 16}},
    {'learning_rate': 1e-4, 'weight_decay': 1.0},
    steps=65100,
    ema=0.999,
  )


VARIANTS = {'sudoku4': sudoku4, 'maze7': maze7, 'sudoku9': sudoku9}


def get_config(variant: str = 'sudoku4') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return puzzles.choose(VARIANTS, variant)
