"""Tasks drawn on the fly, minutes on two cores: the same for every model."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from loopformer.train.experiment import config_dict

# One layer, whose shape looped and plain models share.
BLOCK = {'width': 64, 'heads': 4, 'mask': 'causal'}


def p_hop(
  model: Mapping[str, Any], loop: Mapping[str, Any], depths: tuple[int, ...]
) -> ml_collections.ConfigDict:
  """p-hop induction (arXiv:2502.17416): four hops in 64 symbols.

  Asked at every position for one to four hops, as arXiv:2402.09268 trains it:
  asked at the last one alone, nothing is learned in these steps.
  """
  return config_dict(
    model={'block': BLOCK, **model},
    task={'name': 'p_hop', 'length': 64, 'hops': 4, 'asked': 'every'},
    loop=loop,
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
    eval={'rows': 1024, 'depths': depths, 'cap': max(depths)},
  )


def mano(
  model: Mapping[str, Any],
  loop: Mapping[str, Any],
  depths: tuple[int, ...],
  task: Mapping[str, Any] | None = None,
  **train: Any,
) -> ml_collections.ConfigDict:
  """Modular expressions (arXiv:2510.25741) of one operator, then of two.

  Rows have room for ten, as published, and whole expressions of ten and of
  fewer are measured. Asked for these alone, or drawn from one to ten operators
  at once, nothing is learned in these steps. Momenta and epsilon are the
  published ones; the published rate was searched for a width of 1,024.
  """
  return config_dict(
    model={'block': {**BLOCK, 'style': 'sandwich_branch'}, **model},
    task={
      'name': 'mano',
      'length': 10,
      'start_length': 1,
      'growth': (400,),
      'asked': 'shortest',
      **(task or {}),
    },
    loop=loop,
    train={
      'steps': 4500,
      'batch_size': 128,
      'objective': 'every',
      'optimizer': {
        'learning_rate': 3e-3,
        'warmup': 100,
        'schedule': 'trapezoid',
        'floor': 0.1,
        'b2': 0.98,
        'epsilon': 1e-6,
        'weight_decay': 0.01,
      },
      **train,
    },
    eval={
      'rows': 1024,
      'depths': depths,
      'cap': max(depths),
      'variations': tuple({'measured': count} for count in (1, 2, 3, 4)),
    },
  )


def regression(
  model: Mapping[str, Any],
  loop: Mapping[str, Any],
  depths: tuple[int, ...],
  **train: Any,
) -> ml_collections.ConfigDict:
  """In-context linear regression (arXiv:2311.12424), 5 numbers, 11 pairs.

  Layers as published, those of GPT-2. Training starts with two numbers, as the
  published runs do with five of twenty, and makes 2,500 steps of 256 prompts at
  twenty times their rate, where they make 500,000 of 64.
  """
  layer = {'norm': 'layer', 'mlp': 'gelu', 'rotary': 'none'}
  return config_dict(
    model={'block': {**BLOCK, **layer}, 'positions': 'learned', **model},
    task={'name': 'regression', 'start_dims': 2, 'stage': 300},
    loop=loop,
    train={
      'steps': 2500,
      'batch_size': 256,
      'optimizer': {
        'learning_rate': 2e-3,
        'warmup': 100,
        'schedule': 'cosine',
      },
      **train,
    },
    eval={'rows': 1024, 'depths': depths, 'cap': max(depths)},
  )
