"""Parcae (arXiv:2604.12946): a looped core whose injection must contract.

Shows: a loop with a diagonal injection, below one by construction, at learning
rates where a free linear one (`stability_concat`) or an added one diverges.
`python -m experiments.studies.stability` sweeps five rates and three seeds of
each.
Hardware: two CPU cores (text, stability); 8 accelerators (published: Muon here
scales its updates to one size and decays weights alike to the end, there
cautiously and towards nothing, so rates are to be tuned anew).
Time and score: stability, a minute a run, 3 of 15 of them bad where 6 of 15 of
`stability_concat` are (experiments/RESULTS.md); 1,000 steps of text in 6 min
(1.39 nats a byte); published not run.
Command: loopformer-train --config=experiments/parcae.py:text
"""

import functools
from typing import Any

import ml_collections
from loopformer.experiments.shared import text as shared
from loopformer.experiments.shared.puzzles import choose

from loopformer.train.config import to_mapping
from loopformer.zoo.parcae import published_block

# Width, heads, hidden width, layers of each part, billion tokens, rate.
SIZES = {
  'published': (768, 6, 3072, 2, 11.2, 8e-3),
  'published_370m': (1024, 8, 4096, 4, 29.6, 8e-3),
  'published_770m': (1280, 10, 5120, 6, 61.6, 6e-3),
  'published_1300m': (1536, 12, 6144, 8, 104.0, 6e-3),
}
INJECTIONS = {
  'stability': 'diagonal_euler',
  'stability_zoh': 'diagonal_zoh',
  'stability_free': 'diagonal_free',
  'stability_concat': 'concat',
  'stability_add': 'add',
}


def _loop(mean: int) -> dict[str, Any]:
  """Depth of each sequence around the mean, its last half with gradient."""
  return {
    'max_steps': mean,
    'adjoint': {'name': 'last_k', 'k': (mean + 1) // 2},
    'depth': {'name': 'truncated_poisson', 'mean': float(mean)},
  }


def _block(**fields: Any) -> dict[str, Any]:
  return to_mapping(published_block(**fields))


def text() -> ml_collections.ConfigDict:
  """0.92 million parameters, 0.07 of them in value embeddings; mean depth 4."""
  return shared.small(
    {
      'family': 'parcae',
      'prelude': 1,
      'core': 2,
      'coda': 1,
      'block': _block(width=128, heads=4, hidden=512),
    },
    _loop(4),
  )


def stability(injection: str) -> ml_collections.ConfigDict:
  """0.43 million parameters and 800 steps, to be swept."""
  return shared.small(
    {
      'family': 'parcae',
      'prelude': 1,
      'core': 1,
      'coda': 1,
      'injection': injection,
      'block': _block(width=96, heads=4, hidden=384),
    },
    _loop(4),
    length=32,
    depths=(1, 2, 4, 8, 16),
    rules=(),
    steps=800,
    log_every=1,
    save_every=400,
    on_nonfinite='skip',
    optimizer={'learning_rate': 1e-3},
  )


def published(size: str) -> ml_collections.ConfigDict:
  """One of the four published sizes, at 80 tokens per parameter."""
  width, heads, hidden, layers, tokens, rate = SIZES[size]
  block = _block(width=width, heads=heads, hidden=hidden, dtype='bfloat16')
  return shared.published(
    {
      'family': 'parcae',
      'prelude': layers,
      'core': layers,
      'coda': layers,
      'injection': 'diagonal_free',
      'block': block,
    },
    _loop(8),
    vocab_size=32768,
    length=2048,
    batch_size=256,
    steps=round(tokens * 1e9 / (256 * 2048)),
    optimizer={
      'name': 'muon',
      'learning_rate': rate,
      'schedule': 'trapezoid',
      'cooldown': 0.5,
      'weight_decay': 0.2,
      'b1': 0.8,
      'b2': 0.95,
      'epsilon': 1e-10,
    },
  )


VARIANTS = {
  'text': text,
  **{k: functools.partial(stability, v) for k, v in INJECTIONS.items()},
  **{size: functools.partial(published, size) for size in SIZES},
}


def get_config(variant: str = 'text') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return choose(VARIANTS, variant)
