"""Ouro, or LoopLM (arXiv:2510.25741): a decoder, looped, that exits early.

Shows: a gate trained with the loop by the expected loss, then alone, makes
tokens that later recurrences do not improve exit first. Two stages:

    loopformer-train --config=experiments/ouro.py:text
    loopformer-train --config=experiments/ouro.py:gate --workdir=runs/ouro-gate

`mano` trains two layers, looped six times, on modular expressions of one and
two operators; `mano_ten` goes on from its end up to ten. In the paper two
layers evaluate looped what they do not once (`feedforward.py:mano_2`).

Hardware: two CPU cores (text, gate, mano, mano_ten); a pod (published: the
first stage's 3 T tokens at its first batch size; later stages lower rate and
entropy).
Time and score: text 10 min for 1,000 steps, 1.43 nats a byte at two
recurrences; mano 20 min, of two operators 43 / 100 / 12 % (three seeds) at four
recurrences and 7 to 9 % at one; mano_ten 40 min, of one to four 100 / 100 / 70
/ 46 % (one seed), of ten 6 %; gate and published not run.
Command: loopformer-train --config=experiments/ouro.py:text
"""

from typing import Any

import ml_collections
from loopformer.experiments.shared import synthetic
from loopformer.experiments.shared import text as shared
from loopformer.experiments.shared.puzzles import choose

from loopformer.train.config import to_mapping
from loopformer.zoo.ouro import published_block

RULES = (
  {'name': 'cdf', 'quantile': 0.5},
  {'name': 'cdf', 'quantile': 0.8},
  {'name': 'kl', 'threshold': 1e-3},
)


def _small(**train: Any) -> ml_collections.ConfigDict:
  """0.92 million parameters, four recurrences."""
  return shared.small(
    {
      'family': 'ouro',
      'layers': 4,
      'block': {
        **shared.BLOCK,
        'style': 'sandwich_branch',
        'rotary_theta': 1e4,
      },
    },
    {'max_steps': 4},
    depths=(1, 2, 3, 4, 6, 8),
    rules=RULES,
    **train,
  )


def text() -> ml_collections.ConfigDict:
  """Stage one: everything, by the expected loss less entropy."""
  return _small(objective='expected_exit')


def gate() -> ml_collections.ConfigDict:
  """Stage two: the gate alone, from the end of stage one."""
  return _small(
    objective='exit_gate',
    steps=500,
    optimizer={'learning_rate': 1e-3},
    source={'workdir': 'runs/ouro-text'},
  )


def published() -> ml_collections.ConfigDict:
  """1.43 billion parameters; --config.model.layers=48 for the larger one."""
  return shared.published(
    {
      'family': 'ouro',
      'block': {**to_mapping(published_block()), 'dtype': 'bfloat16'},
    },
    {'max_steps': 4, 'adjoint': {'name': 'full', 'remat': 1}},
    vocab_size=49152,
    length=4096,
    objective='expected_exit',
    batch_size=1024,
    steps=715_000,
    optimizer={'learning_rate': 3e-4, 'warmup': 2000, 'weight_decay': 0.1},
  )


def _mano(**changes: Any) -> ml_collections.ConfigDict:
  """With a loss at every recurrence and the embedding as head.

  A recurrence then writes the value of a part in the form in which the next one
  reads a number.
  """
  return synthetic.mano(
    # The published deviation of 0.02 is 0.9 / sqrt(D) at its width of 2,048.
    {'family': 'ouro', 'layers': 2, 'init_std': 0.125, 'tied': True},
    {'max_steps': 6},
    depths=(1, 2, 3, 4, 6, 8, 12),
    **changes,
  )


def mano() -> ml_collections.ConfigDict:
  """Mano (app. B.2), up to two operators: two layers, six recurrences."""
  return _mano()


def mano_ten() -> ml_collections.ConfigDict:
  """Up to three operators, then ten, from the end of `mano`.

  Give it a --workdir of its own.
  """
  return _mano(
    task={
      'asked': 'longest',
      'start_length': 3,
      'growth': tuple(range(2600, 2607)),
    },
    steps=9000,
    source={'workdir': 'runs/ouro-mano'},
  )


VARIANTS = {
  'text': text,
  'gate': gate,
  'published': published,
  'mano': mano,
  'mano_ten': mano_ten,
}


def get_config(variant: str = 'text') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return choose(VARIANTS, variant)
