"""A plain transformer of unshared layers: the honest baseline of every loop.

    s = Layer_L( ... Layer_1(E[x] + position)),    y = W N(s)

With L layers in the block of a looped model it has the loop's parameters; with
R times as many it has its compute.
"""

import dataclasses
from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Int

from loopformer import core
from loopformer.nn.block import Block, make_norm
from loopformer.nn.config import BlockConfig, require, require_one_of
from loopformer.nn.embedding import Embedding
from loopformer.nn.linear import Linear
from loopformer.zoo.family import Family, read_logits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Fields of a feed-forward transformer.

  Attributes:
    vocab_size: input tokens.
    num_classes: output tokens; 0 for as many as inputs.
    seq_len: T, for learned positions.
    block: one layer.
    layers: L, each with weights of its own.
    positions: none (leave it to rotary), learned or sinusoidal.
    final_norm: whether the read-out normalises the state.
  """

  vocab_size: int = 256
  num_classes: int = 0
  seq_len: int = 64
  block: BlockConfig = dataclasses.field(default_factory=BlockConfig)
  layers: int = 6
  positions: str = 'none'
  final_norm: bool = True

  def __post_init__(self):
    for name in ('vocab_size', 'seq_len', 'layers'):
      require(name, getattr(self, name), at_least=1)
    require('num_classes', self.num_classes, at_least=0)
    require_one_of(
      'positions', self.positions, ('none', 'learned', 'sinusoidal')
    )


class FeedForward(nnx.Module):
  """embed -> layers -> readout; a loop of one step."""

  def __init__(self, cfg: Config, *, rngs: nnx.Rngs):
    self.cfg = cfg
    width = cfg.block.width
    self.embedding = Embedding(
      cfg.vocab_size,
      width,
      seq_len=cfg.seq_len,
      positions=cfg.positions,
      rngs=rngs,
    )
    self.block = Block(cfg.block, cfg.layers, rngs=rngs)
    if cfg.final_norm:
      self.final_norm = make_norm(cfg.block, rngs=rngs)
    classes = cfg.num_classes or cfg.vocab_size
    self.head = Linear(width, classes, 'embed', 'vocab', rngs=rngs)

  def embed(self, inputs_BT: Int[Array, 'B T']) -> Float[Array, 'B T D']:
    """e = E[x] + position."""
    return self.embedding(inputs_BT)

  def init_state(
    self, context_BTD: Float[Array, 'B T D'], keys_B: Any
  ) -> Float[Array, 'B T D']:
    """The embedding itself."""
    del keys_B
    return context_BTD

  def step(
    self,
    state_BTD: Float[Array, 'B T D'],
    aux: Any,
    context_BTD: Float[Array, 'B T D'],
    info: core.LoopInfo,
  ) -> tuple[Float[Array, 'B T D'], Any]:
    """All layers, once."""
    del context_BTD, info
    return self.block(state_BTD), aux

  def readout(
    self,
    state_BTD: Float[Array, 'B T D'],
    context_BTD: Float[Array, 'B T D'],
  ) -> Float[Array, 'B T V']:
    """Logits at every position."""
    del context_BTD
    if self.cfg.final_norm:
      state_BTD = self.final_norm(state_BTD)
    return self.head(state_BTD)


FAMILY = Family(
  config=Config,
  model=FeedForward,
  heads=lambda cfg: {'logits': read_logits},
  exempt={'fixed point': 'unshared layers are applied once, not to a limit'},
)
