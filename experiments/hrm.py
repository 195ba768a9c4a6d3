"""Hierarchical Reasoning Model (arXiv:2506.21734) on puzzles.

Shows: a fast and a slow stack, the one-step gradient and a Q-head.
Hardware: two CPU cores (sudoku4*, sudoku6_1k, maze7); a GPU or TPU host for the
published runs (sudoku9, maze30, arc), none of which was run.
Time and score: see experiments/RESULTS.md.
Command: loopformer-train --config=experiments/hrm.py:sudoku4
"""

import functools

import ml_collections
from loopformer.experiments.shared import puzzles

MODEL = {'family': 'hrm', 'layers': 1, 'high_layers': 1}
MODEL = {**MODEL, 'block': puzzles.SMALL_BLOCK}
LOOP = {'halt': puzzles.Q_CONTINUE}


def _published(
  task: str, weight_decay: float, steps: int
) -> ml_collections.ConfigDict:
  """27 million parameters, as in the paper."""
  return puzzles.published(
    {'family': 'hrm'},
    {'halt': {**puzzles.Q_CONTINUE, 'longest': 16}},
    {'learning_rate': 1e-4, 'weight_decay': weight_decay},
    task=task,
    steps=steps,
  )


PUBLISHED = {
  'sudoku9': functools.partial(_published, 'sudoku9', 1.0, 26_041),
  'maze30': functools.partial(_published, 'maze30', 1.0, 26_041),
  'arc': functools.partial(_published, 'arc', 0.1, puzzles.ARC_STEPS),
}
RULES = ({'name': 'q_continue'}, *puzzles.EVALUATED)
VARIANTS = {
  **puzzles.small_variants(MODEL, LOOP, rules=RULES),
  **PUBLISHED,
}


def get_config(variant: str = 'sudoku4') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return puzzles.choose(VARIANTS, variant)
