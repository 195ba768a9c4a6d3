"""Huginn-0125 (arXiv:2502.05171, seal-rg/recurrent-pretraining).

    e   = Prelude(sqrt(D) E[x])
    s_t = Core(W [s_{t-1}; e])          s_0 truncated noise, R times
    y   = E N(Coda(N s_R))              N, of one gain, is used twice

The norms of a layer are on the sum of stream and branch. Queries and keys have
a bias before they are rotated. Trained with R ~ log-normal Poisson of mean 32
(`log_normal_poisson`), the last 8 recurrences with gradient (`last_k`).
"""

import dataclasses
import math

from flax import nnx

from loopformer.nn.config import BlockConfig
from loopformer.nn.initialise import cut_normal, redraw, up_half
from loopformer.nn.prelude_core_coda import (
  DepthConfig,
  PreludeCoreCoda,
  table_name,
)
from loopformer.zoo.family import Family, read_logits


def published_block(**fields) -> BlockConfig:
  """One layer of Huginn-0125."""
  return BlockConfig(
    **{
      'width': 5280,
      'heads': 55,
      'hidden': 17920,
      'style': 'sandwich_sum',
      'rotary': 'interleaved',
      'rotary_theta': 5e4,
      'qk_bias': True,
      'mask': 'causal',
      **fields,
    }
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(DepthConfig):
  """Huginn's published fields.

  Attributes:
    init_recurrences: R for which output projections are scaled down at the
      start, by sqrt(2 L) with L all layers passed in R recurrences.
  """

  vocab_size: int = 65536
  seq_len: int = 4096
  block: BlockConfig = dataclasses.field(default_factory=published_block)
  prelude: int = 2
  core: int = 4
  coda: int = 2
  loop_norm: str = 'shared'
  tied: bool = True
  init_recurrences: int = 32


class Huginn(PreludeCoreCoda):
  """The chassis, drawn as published ("takase")."""

  def __init__(self, cfg: Config, *, rngs: nnx.Rngs):
    super().__init__(cfg, rngs=rngs)
    std = math.sqrt(2 / (5 * cfg.block.width))
    passed = cfg.prelude + cfg.coda + cfg.core * cfg.init_recurrences
    small = 1 / math.sqrt(2 * passed)
    rules = {
      'qkv.kernel': cut_normal(std),
      'up.kernel': up_half(cut_normal(std), small),
      'layer.out.kernel': cut_normal(std * small),
      'down.kernel': cut_normal(std * small),
      table_name(cfg): cut_normal(std),
    }
    if cfg.injection == 'concat':
      rules['injection.mix.kernel'] = cut_normal(std)
    if not cfg.tied:
      rules['head.kernel'] = cut_normal(std)
    redraw(self, rules, rngs)


FAMILY = Family(
  config=Config, model=Huginn, heads=lambda cfg: {'logits': read_logits}
)
