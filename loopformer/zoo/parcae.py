"""Parcae (arXiv:2604.12946, SandyResearch/parcae).

    e   = N_p(Prelude(E[x]))
    s_t = Core(a s_{t-1} + delta (B e))     a = exp(-delta A) < 1 per channel
    y   = E N(Coda(C s_R))

Pre-norm layers, squared ReLU halved, queries and keys normalised after they
are rotated, value embeddings in every other layer. At the start every layer is
the identity and s_t tends to delta e / (1 - a). Depth is drawn for each
sequence from max(1, Poisson(8)) (`truncated_poisson`), the last half of its
mean with gradient. The state width may differ from the width of the tokens.

The public code leaves delta A unbounded (`injection = 'diagonal_free'`), and
numbers layers in two ways, so that for odd counts some value embeddings lie
idle; the paper means every other layer, the last one always, as here.
"""

import dataclasses
import math
from typing import Any

from flax import nnx

from loopformer.nn.config import BlockConfig
from loopformer.nn.initialise import (
  by_columns,
  cut_normal,
  orthogonal,
  redraw,
)
from loopformer.nn.prelude_core_coda import (
  DepthConfig,
  PreludeCoreCoda,
  table_name,
)
from loopformer.zoo.family import Family, read_logits


def published_block(**fields) -> BlockConfig:
  """One layer of the smallest published model."""
  return BlockConfig(
    **{
      'width': 768,
      'heads': 6,
      'hidden': 3072,
      'mlp': 'half_relu2',
      'epsilon': 1e-5,
      'rotary': 'interleaved',
      'rotary_theta': 5e4,
      'qk_norm': True,
      'mask': 'causal',
      **fields,
    }
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(DepthConfig):
  """Parcae's published fields; half of its parameters are value tables.

  Attributes:
    recurrences: mean of the published depths; a loop may run another number.
  """

  vocab_size: int = 32768
  seq_len: int = 2048
  block: BlockConfig = dataclasses.field(default_factory=published_block)
  prelude: int = 2
  core: int = 2
  coda: int = 2
  embed_scale: float = 1.0
  injection: str = 'diagonal_euler'
  prelude_norm: bool = True
  loop_norm: str = 'none'
  project: bool = True
  tied: bool = True
  value_layers: str = 'alternate'
  recurrences: int = 8


class Parcae(PreludeCoreCoda):
  """The chassis, drawn as published ("scaled-zero")."""

  def __init__(self, cfg: Config, *, rngs: nnx.Rngs):
    super().__init__(cfg, rngs=rngs)
    std = math.sqrt(2 / (5 * cfg.block.width))
    zeros = nnx.initializers.zeros
    rules: dict[str, Any] = {
      'core.layers.attention.layer.qkv.kernel': _separate(cfg.loop_block, std),
      'qkv.kernel': _separate(cfg.block, std),
      'up.kernel': orthogonal(std),
      'layer.out.kernel': zeros,
      'down.kernel': zeros,
      table_name(cfg): cut_normal(std),
    }
    if cfg.project:
      rules['projection.kernel'] = orthogonal(std)
    if cfg.injection == 'concat':
      rules['injection.mix.kernel'] = cut_normal(std)
    if not cfg.tied:
      rules['head.kernel'] = cut_normal(std)
    redraw(self, rules, rngs)


def _separate(cfg, std):
  """Queries, keys and values, each orthogonal by itself."""
  kv = cfg.groups * cfg.head_width
  return by_columns(orthogonal(std), cfg.heads * cfg.head_width, kv, kv)


FAMILY = Family(
  config=Config, model=Parcae, heads=lambda cfg: {'logits': read_logits}
)
