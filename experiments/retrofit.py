"""Retrofitted recurrence (arXiv:2511.07384): loops put into a trained decoder.

Shows: middle layers of a decoder, looped after it was trained. In the paper
that improves it more than as many further steps do. The decoder comes first:

    loopformer-train --config=experiments/feedforward.py:text
    loopformer-train --config=experiments/retrofit.py:text

Hardware: two CPU cores (text); 16 accelerators or more (published: matrices by
Muon at 1e-3, and here all else with them, which the paper trains at 5e-5).
Time and score: text on 4.7 MB, 500 steps in 8 min 31 s: 1.3503 nats a byte from
1.3604, behind plain training (experiments/RESULTS.md); published not run.
Command: loopformer-train --config=experiments/retrofit.py:text
"""

import ml_collections
from loopformer.experiments.shared import text as shared
from loopformer.experiments.shared.puzzles import choose

from loopformer.train.config import to_mapping
from loopformer.zoo.retrofit import published_block

# What our decoders multiply embeddings by; the paper's do not.
SOURCE_SCALE = {'embed_scale': 0.0}


def text() -> ml_collections.ConfigDict:
  """The six layers of feedforward:text as 1 + 4 + 1, mean depth 5."""
  return shared.small(
    {
      'family': 'retrofit',
      'prelude': 1,
      'core': 4,
      'coda': 1,
      'block': {'width': 128, 'heads': 4, 'mask': 'causal'},
      **SOURCE_SCALE,
    },
    {
      'max_steps': 4,
      'adjoint': {'name': 'last_k', 'k': 4},
      'depth': {'name': 'log_normal_poisson', 'mean': 4.0},
      'ramp': {'shape': 'linear', 'over': 0.25},
    },
    length=128,
    steps=1000,
    source={
      'workdir': 'runs/feedforward-text',
      'layers': (0, 1, 2, 3, 4, 5),
    },
  )


def published() -> ml_collections.ConfigDict:
  """TinyLlama without layers 4 to 9, mean depth 32, 50,000 steps."""
  return shared.published(
    {
      'family': 'retrofit',
      'block': {**to_mapping(published_block()), 'dtype': 'bfloat16'},
      **SOURCE_SCALE,
    },
    {
      'max_steps': 32,
      'adjoint': {'name': 'last_k', 'k': 8, 'remat': 1},
      'depth': {'name': 'log_normal_poisson', 'mean': 32.0},
      'ramp': {'shape': 'linear', 'over': 0.25},
    },
    vocab_size=32000,
    length=1024,
    batch_size=1024,
    steps=50_000,
    source={
      'workdir': 'runs/tinyllama',
      'layers': (*range(4), *range(10, 22)),
    },
    optimizer={
      'name': 'muon',
      'learning_rate': 1e-3,
      'warmup': 125,
      'schedule': 'trapezoid',
      'cooldown': 0.6,
      'weight_decay': 1e-4,
    },
  )


VARIANTS = {'text': text, 'published': published}


def get_config(variant: str = 'text') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return choose(VARIANTS, variant)
