"""HRM-Text (sapientinc/HRM-Text-1B): a fast and a slow stack as a decoder.

Shows: two timescales on text, gradients through few of the fast calls.
Hardware: two CPU cores (text); a pod (published: the size is, the recipe is
not, so the optimiser is that of HRM).
Time and score: 13 minutes; text 1.24 to 1.26 nats a byte at the trained two
cycles (three seeds), 1.64 at one; the published run was not made.
Command: loopformer-train --config=experiments/hrm_text.py:text
"""

import ml_collections
from loopformer.experiments.shared import text as shared
from loopformer.experiments.shared.puzzles import choose

from loopformer.train.config import to_mapping
from loopformer.zoo.hrm_text import published_block


def text() -> ml_collections.ConfigDict:
  """0.98 million parameters: two layers per stack, 2 x 3 cycles."""
  return shared.small(
    {
      'family': 'hrm_text',
      'layers': 2,
      'block': {**shared.BLOCK, 'norm_gain': False, 'gated': True},
    },
    {'max_steps': 2, 'adjoint': {'name': 'full', 'unroll': 2}},
    depths=(1, 2, 3, 4, 8),
  )


def published() -> ml_collections.ConfigDict:
  """1.45 billion parameters."""
  return shared.published(
    {
      'family': 'hrm_text',
      'block': {**to_mapping(published_block()), 'dtype': 'bfloat16'},
    },
    {'max_steps': 2, 'adjoint': {'name': 'full', 'remat': 1}},
    vocab_size=151_808,
    length=2048,
    batch_size=256,
    steps=100_000,
    optimizer={
      'name': 'adam_atan2',
      'learning_rate': 1e-4,
      'warmup': 2000,
      'weight_decay': 0.1,
      'clip': 0.0,
    },
  )


VARIANTS = {'text': text, 'published': published}


def get_config(variant: str = 'text') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return choose(VARIANTS, variant)
