"""Universal Reasoning Model (arXiv:2512.14693) on puzzles.

Shows: one state and a stack with a short convolution in its MLP.
Hardware: two CPU cores (sudoku4*, sudoku6_1k, maze7); a GPU or TPU host for the
published runs (sudoku9, arc), none of which was run.
Time and score: see experiments/RESULTS.md.
Command: loopformer-train --config=experiments/urm.py:sudoku4
"""

import functools

import ml_collections
from loopformer.experiments.shared import puzzles

MODEL = {'family': 'urm', 'layers': 2, 'low_cycles': 3}
MODEL = {**MODEL, 'block': puzzles.SMALL_BLOCK}
LOOP = {'halt': puzzles.Q_HALT}


_published = functools.partial(puzzles.segmented, {'family': 'urm'}, ema=0.999)
PUBLISHED = {
  'sudoku9': functools.partial(_published, batch_size=128, steps=390_625),
  'arc': functools.partial(
    _published, task='arc', weight_decay=0.1, steps=2 * puzzles.ARC_STEPS
  ),
}

VARIANTS = {**puzzles.small_variants(MODEL, LOOP), **PUBLISHED}


def get_config(variant: str = 'sudoku4') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return puzzles.choose(VARIANTS, variant)
