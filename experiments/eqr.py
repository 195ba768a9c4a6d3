"""Equilibrium Reasoner (arXiv:2605.21488) on puzzles.

Shows: a damped, noisy recursion from random starts.
Hardware: two CPU cores (sudoku4*, sudoku6_1k, maze7); a GPU or TPU host for the
published runs (sudoku9, maze30), none of which was run.
Time and score: see experiments/RESULTS.md.
Command: loopformer-train --config=experiments/eqr.py:sudoku4
"""

import functools

import ml_collections
from loopformer.experiments.shared import puzzles

MODEL = {'family': 'eqr', 'high_cycles': 2, 'low_cycles': 3, 'puzzle_width': 0}
MODEL = {**MODEL, 'block': puzzles.SMALL_BLOCK}
LOOP = {'halt': puzzles.Q_HALT}


# 263,938 parameters.
NARROW = {
  'family': 'eqr',
  'layers': 1,
  'low_cycles': 4,
  'block': {**puzzles.PUBLISHED_BLOCK, 'width': 128, 'heads': 4},
}
_published = functools.partial(puzzles.segmented, ema=0.999)
PUBLISHED = {
  'sudoku9': functools.partial(
    _published, {'family': 'eqr', **puzzles.ACROSS}, steps=65_100
  ),
  'maze30': functools.partial(
    _published, NARROW, task='maze30_unique', steps=130_200
  ),
}

VARIANTS = {
  **puzzles.small_variants(MODEL, LOOP, rollouts={'count': 8}),
  **PUBLISHED,
}


def get_config(variant: str = 'sudoku4') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return puzzles.choose(VARIANTS, variant)
