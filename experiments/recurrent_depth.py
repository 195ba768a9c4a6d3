"""Recurrent depth (arXiv:2502.05171): prelude, looped core, coda.

Shows: a language model trained at random depths improves with recurrences and
stays flat beyond the trained ones.
Hardware: two CPU cores. Time and score: see experiments/RESULTS.md.
Command: loopformer-train --config=experiments/recurrent_depth.py:text
"""

import ml_collections

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
  """p-hop induction (arXiv:2502.17416) at four hops, one layer looped."""
  return config_dict(
    model={
      'family': 'recurrent_depth',
      'prelude': 0,
      'core': 1,
      'coda': 0,
      'injection': 'none',
      'start': 'embed',
      'loop_norm': 'none',
      'block': {'width': 64, 'heads': 4, 'mask': 'causal'},
    },
    task={'name': 'p_hop', 'length': 64, 'hops': 4},
    loop={'max_steps': 6},
    train={
      'steps': 3000,
      'batch_size': 64,
      'optimizer': {
        'learning_rate': 1e-3,
        'warmup': 100,
        'schedule': 'cosine',
        'weight_decay': 0.01,
      },
    },
    eval={'rows': 1024, 'depths': (1, 2, 3, 4, 6, 8, 12), 'cap': 12},
  )


VARIANTS = {'text': text, 'p_hop': p_hop}


def get_config(variant: str = 'text') -> ml_collections.ConfigDict:
  """The config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(
      f'variant must be one of {sorted(VARIANTS)}, got {variant!r}.'
    )
  return VARIANTS[variant]()
