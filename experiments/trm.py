"""Tiny Recursive Model (arXiv:2510.04871) on puzzles.

Shows: one small stack for both states, its last recursion differentiated; how
it halts by a Q-head, by ACT (arXiv:1603.08983) and by PonderNet
(arXiv:2107.05407), trained for each.
Hardware: two CPU cores (sudoku4*, sudoku6_1k, maze7); a GPU or TPU host for the
published runs (sudoku9, maze30, arc), none of which was run.
Time and score: see experiments/RESULTS.md.
Command: loopformer-train --config=experiments/trm.py:sudoku4
"""

import functools

import ml_collections
from loopformer.experiments.shared import puzzles

MODEL = {'family': 'trm', 'high_cycles': 2, 'low_cycles': 3}
MODEL = {**MODEL, 'block': puzzles.SMALL_BLOCK}
LOOP = {'halt': puzzles.Q_HALT}
# Four segments, differentiated from the last to the first. The head starts at
# a probability of 0.3, the hazard of the prior.
PONDERED = {
  **MODEL,
  'gradient': 'full',
  'halting': 'probability',
  'halting_bias': -0.85,
}
PONDERED_TRAIN = {
  'steps': 750,
  'cross_entropy': 'softmax',
  'ponder_weight': 0.01,
  'prior': 0.3,
}
# Between segments, as PTRM (arXiv:2605.19943) does.
SHAKEN = {'count': 8, 'noise': 0.2}
STABLE = (
  {'name': 'fixed_point', 'rtol': 0.1},
  {'name': 'argmax', 'patience': 2},
)


def sudoku4_act() -> ml_collections.ConfigDict:
  """Halts by adaptive computation time; one loss, of the mixed state."""
  return puzzles.small(
    'sudoku4',
    PONDERED,
    {'halt': {'name': 'act'}, 'max_steps': 4},
    train={**PONDERED_TRAIN, 'objective': 'last'},
    rules=({'name': 'act'}, *STABLE),
  )


def sudoku4_ponder() -> ml_collections.ConfigDict:
  """Halts by PonderNet; a loss of every segment, in expectation."""
  return puzzles.small(
    'sudoku4',
    PONDERED,
    {'halt': {'name': 'ponder'}, 'max_steps': 4},
    train={**PONDERED_TRAIN, 'objective': 'expected'},
    rules=(
      {'name': 'ponder'},
      {'name': 'ponder', 'sample': True},
      {'name': 'cdf', 'quantile': 0.5},
      {'name': 'cdf', 'quantile': 0.9},
      *STABLE,
    ),
  )


ATTENDING = {'family': 'trm', 'low_cycles': 4}
_published = functools.partial(puzzles.segmented, ema=0.999)
PUBLISHED = {
  'sudoku9': functools.partial(
    _published, {'family': 'trm', **puzzles.ACROSS}, steps=65_100
  ),
  'maze30': functools.partial(
    _published, ATTENDING, task='maze30', steps=65_100
  ),
  'arc': functools.partial(
    _published,
    ATTENDING,
    task='arc',
    weight_decay=0.1,
    steps=puzzles.ARC_STEPS,
  ),
}

VARIANTS = {
  **puzzles.small_variants(MODEL, LOOP, rollouts=SHAKEN),
  'sudoku4_act': sudoku4_act,
  'sudoku4_ponder': sudoku4_ponder,
  **PUBLISHED,
}


def get_config(variant: str = 'sudoku4') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return puzzles.choose(VARIANTS, variant)
