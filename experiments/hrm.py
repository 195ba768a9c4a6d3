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


_published = functools.partial(
  puzzles.segmented, {'family': 'hrm'}, halt=puzzles.Q_CONTINUE
)
PUBLISHED = {
  'sudoku9': functools.partial(_published, steps=26_041),
  'maze30': functools.partial(_published, task='maze30', steps=26_041),
  'arc': functools.partial(
    _published, task='arc', weight_decay=0.1, steps=puzzles.ARC_STEPS
  ),
}
RULES = ({'name': 'q_continue'}, *puzzles.EVALUATED)
VARIANTS = {
  **puzzles.small_variants(MODEL, LOOP, rules=RULES),
  **PUBLISHED,
}


def get_config(variant: str = 'sudoku4') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return puzzles.choose(VARIANTS, variant)
