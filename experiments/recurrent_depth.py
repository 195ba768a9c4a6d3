"""Recurrent depth (arXiv:2502.05171): prelude, looped core, coda.

Shows: a language model trained at random depths improves with recurrences and
stays flat beyond the trained ones. `p_hop` and `regression` loop one layer; a
single pass of it is `p_hop_1` and `regression` of `feedforward.py`.
Hardware: two CPU cores. Time and score: see experiments/RESULTS.md.
Command: loopformer-train --config=experiments/recurrent_depth.py:text
"""

import ml_collections
from loopformer.experiments.shared import synthetic
from loopformer.experiments.shared.puzzles import choose

from loopformer.train.experiment import config_dict

RULES = (
  {'name': 'fixed_point', 'rtol': 0.1, 'norm': 'token_l2_mean'},
  {'name': 'fixed_point', 'rtol': 0.03, 'norm': 'token_l2_mean'},
  {'name': 'kl', 'threshold': 1e-3},
)


def text() -> ml_collections.ConfigDict:
  """Bytes; the text of the Python documentation unless a path is given."""
  return config_dict(
    model={
      'family': 'recurrent_depth',
      'prelude': 1,
      'core': 2,
      'coda': 1,
      'injection': 'concat',
      'block': {
        'width': 128,
        'heads': 4,
        'hidden': 344,
        'style': 'sandwich_sum',
        'mask': 'causal',
      },
    },
    task={'name': 'text', 'length': 128},
    loop={
      'max_steps': 6,
      'adjoint': {'name': 'last_k', 'k': 3},
      'depth': {'name': 'log_normal_poisson', 'mean': 5.0},
    },
    train={
      'steps': 2000,
      'batch_size': 16,
      'save_every': 10,
      'log_every': 5,
      'optimizer': {'learning_rate': 1e-3, 'warmup': 50, 'weight_decay': 0.1},
    },
    eval={
      'rows': 256,
      'batch_size': 64,
      'depths': (1, 2, 4, 6, 8, 12, 24),
      'cap': 24,
      'rules': RULES,
    },
  )


def p_hop() -> ml_collections.ConfigDict:
  """p-hop induction (arXiv:2502.17416), one layer looped, nothing injected."""
  return synthetic.p_hop(
    {
      'family': 'recurrent_depth',
      'prelude': 0,
      'core': 1,
      'coda': 0,
      'injection': 'none',
      'start': 'embed',
      'loop_norm': 'none',
    },
    {'max_steps': 6},
    depths=(1, 2, 3, 4, 6, 8, 12),
  )


def regression() -> ml_collections.ConfigDict:
  """In-context regression (arXiv:2311.12424): Y <- N(M(Y + P)) from Y = 0.

  Twelve loops, of which the last six are trained by the mean of their errors;
  six at first, two more every 312 steps. As published, N lies inside the loop.
  """
  return synthetic.regression(
    {
      'family': 'recurrent_depth',
      'prelude': 0,
      'core': 1,
      'coda': 0,
      'injection': 'add',
      'start': 'zero',
      'loop_norm': 'inside',
    },
    {
      'max_steps': 12,
      'adjoint': {'name': 'last_k', 'k': 6},
      'depth': {'name': 'fixed', 'count': 12},
      'ramp': {'start': 6, 'stride': 2, 'over': 0.375},
    },
    depths=(1, 6, 12, 24),
    objective='every',
  )


VARIANTS = {'text': text, 'p_hop': p_hop, 'regression': regression}


def get_config(variant: str = 'text') -> ml_collections.ConfigDict:
  """The config of a variant."""
  return choose(VARIANTS, variant)
