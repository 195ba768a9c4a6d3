"""A plain transformer of unshared layers: the honest baseline of every loop.

    s = Layer_L( ... Layer_1(E[x] + position)),    y = W N(s)

With L layers in the block of a looped model it has the loop's parameters; with
R times as many it has its compute.
"""

import dataclasses
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from loopformer import core
from loopformer.nn.block import Block, make_norm
from loopformer.nn.cache import Cache
from loopformer.nn.config import BlockConfig, require, require_ends
from loopformer.nn.embedding import Embedding, Inputs
from loopformer.nn.linear import Linear
from loopformer.nn.place import Context, Place
from loopformer.nn.slots import Part, part_of
from loopformer.zoo.family import Family, plain_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Fields of a feed-forward transformer.

  Attributes:
    vocab_size: input tokens.
    num_classes: output tokens; 0 for as many as inputs.
    features: real numbers at every position, in place of a token; 0 for tokens.
    seq_len: T, for learned positions.
    block: one layer.
    layers: L, each with weights of its own.
    positions: none (leave it to rotary), learned or sinusoidal.
    final_norm: whether the read-out normalises the state.
  """

  vocab_size: int = 256
  num_classes: int = 0
  features: int = 0
  seq_len: int = 64
  block: BlockConfig = dataclasses.field(default_factory=BlockConfig)
  layers: int = 6
  positions: str = 'none'
  final_norm: bool = True

  def __post_init__(self):
    require_ends(self)
    require('layers', self.layers, at_least=1)


class FeedForward(nnx.Module):
  """embed -> layers -> readout; a loop of one step."""

  def __init__(self, cfg: Config, *, rngs: nnx.Rngs):
    self.cfg = cfg
    width = cfg.block.width
    self.embedding = Embedding(
      cfg.vocab_size,
      width,
      features=cfg.features,
      seq_len=cfg.seq_len,
      positions=cfg.positions,
      rngs=rngs,
    )
    self.block = Block(cfg.block, cfg.layers, rngs=rngs)
    if cfg.final_norm:
      self.final_norm = make_norm(cfg.block, rngs=rngs)
    classes = cfg.num_classes or cfg.vocab_size
    self.head = Linear(width, classes, 'embed', 'vocab', rngs=rngs)

  def cache_parts(self) -> dict[str, Part]:
    """All layers, once per token."""
    return {'block': part_of(self.cfg.block, self.cfg.layers)}

  def read(
    self,
    inputs_BT: Inputs,
    place: Place | None = None,
    cache: Cache | None = None,
  ) -> tuple[Context, Cache | None]:
    """e = E[x] + position; nothing of it is kept."""
    positions_BT = None if place is None else place.positions_BT
    return Context(self.embedding(inputs_BT, positions_BT), place, {}), cache

  def embed(self, inputs_BT: Inputs, place: Place | None = None) -> Context:
    """e = E[x] + position."""
    return self.read(inputs_BT, place)[0]

  def init_state(self, context: Context, keys_B: Any) -> Float[Array, 'B T D']:
    """The embedding itself."""
    del keys_B
    return context.e_BTD

  def step(
    self,
    state_BTD: Float[Array, 'B T D'],
    aux: Any,
    context: Context,
    info: core.LoopInfo,
  ) -> tuple[Float[Array, 'B T D'], Any]:
    """All layers, once; `aux` is a cache, or empty."""
    return self.block.recur(state_BTD, context.place, aux, info)

  def write(
    self,
    state_BTD: Float[Array, 'B T D'],
    context: Context,
    cache: Cache | None = None,
  ) -> tuple[Float[Array, 'B T V'], Cache | None]:
    """Logits at every position."""
    del context
    if self.cfg.final_norm:
      state_BTD = self.final_norm(state_BTD)
    return self.head(state_BTD), cache

  def readout(
    self, state_BTD: Float[Array, 'B T D'], context: Context
  ) -> Float[Array, 'B T V']:
    """The same without a cache."""
    return self.write(state_BTD, context)[0]


FAMILY = Family(
  config=Config,
  model=FeedForward,
  heads=plain_heads,
  exempt={'fixed point': 'unshared layers are applied once, not to a limit'},
)
