"""Universal Transformer (arXiv:1807.03819): one tied block, applied R times.

    e   = E[x] + position
    s_t = Block(s_{t-1} (+ e) (+ step signal))      s_0 = e
    y   = W N(s_R)

The paper adds the sinusoids of position and recurrence to the state at every
step; here positions come by one of several means and the step signal is an
option, since a map that depends on t has no fixed point to halt at. Injecting
e at every step is an option too (arXiv:2311.12424 shows why it helps).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer import core
from loopformer.nn.block import Block, make_norm
from loopformer.nn.cache import Cache
from loopformer.nn.config import (
  BlockConfig,
  require,
  require_ends,
  require_one_of,
)
from loopformer.nn.embedding import Embedding, Inputs
from loopformer.nn.injection import INJECTIONS, Injection
from loopformer.nn.linear import Linear
from loopformer.nn.place import Context, Place
from loopformer.nn.position import initial_state, sinusoid
from loopformer.nn.slots import Part, part_of
from loopformer.zoo.family import Family, Head, plain_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Fields of a Universal Transformer.

  Attributes:
    vocab_size: input tokens.
    num_classes: output tokens; 0 for as many as inputs.
    features: real numbers at every position, in place of a token; 0 for tokens.
    seq_len: T, for learned positions.
    block: one layer of the tied block.
    layers: layers in the tied block.
    positions: none (leave it to rotary), learned or sinusoidal.
    injection: see `loopformer.nn.injection`.
    step_signal: whether the sinusoid of t is added at every recurrence.
    start: s_0 is `embed` (the paper), `zero` or keyed `normal` noise.
    final_norm: whether the read-out normalises the state.
    halting: whether there is a halting head, sigmoid(w s + b), for ACT.
    halting_bias: its initial b; the paper's code starts at 1.
  """

  vocab_size: int = 256
  num_classes: int = 0
  features: int = 0
  seq_len: int = 64
  block: BlockConfig = dataclasses.field(
    default_factory=lambda: BlockConfig(style='post')
  )
  layers: int = 1
  positions: str = 'none'
  injection: str = 'none'
  step_signal: bool = True
  start: str = 'embed'
  final_norm: bool = False
  halting: bool = False
  halting_bias: float = 1.0

  def __post_init__(self):
    require_ends(self)
    require('layers', self.layers, at_least=1)
    require_one_of('injection', self.injection, INJECTIONS)
    require_one_of('start', self.start, ('embed', 'zero', 'normal'))


class Universal(nnx.Module):
  """embed -> (block)^R -> readout, weights tied over R."""

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
    self.injection = Injection(cfg.injection, width, rngs=rngs)
    self.block = Block(cfg.block, cfg.layers, rngs=rngs)
    if cfg.final_norm:
      self.final_norm = make_norm(cfg.block, rngs=rngs)
    classes = cfg.num_classes or cfg.vocab_size
    self.head = Linear(width, classes, 'embed', 'vocab', rngs=rngs)
    if cfg.halting:
      self.halting = nnx.Linear(
        width,
        1,
        rngs=rngs,
        bias_init=nnx.initializers.constant(cfg.halting_bias),
      )

  def cache_parts(self) -> dict[str, Part]:
    """The tied block, once per recurrence."""
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
    """s_0."""
    place = context.place
    positions_BT = None if place is None else place.positions_BT
    return initial_state(
      self.cfg.start, context.e_BTD, keys_B, positions_BT=positions_BT
    )

  def step(
    self,
    state_BTD: Float[Array, 'B T D'],
    aux: Any,
    context: Context,
    info: core.LoopInfo,
  ) -> tuple[Float[Array, 'B T D'], Any]:
    """One recurrence of the tied block; `aux` is a cache, or empty."""
    h_BTD = self.injection(state_BTD, context.e_BTD, info.steps_B)
    if self.cfg.step_signal:
      signal = sinusoid(info.steps_B, self.cfg.block.width)
      per_sample = signal[:, None, :] if signal.ndim == 2 else signal
      h_BTD = h_BTD + per_sample
    return self.block.recur(h_BTD, context.place, aux, info)

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

  def halt_per_token(
    self, state_BTD: Float[Array, 'B T D']
  ) -> Float[Array, 'B T']:
    """sigmoid(w s + b) at every position, as the paper halts."""
    return jax.nn.sigmoid(self.halting(state_BTD)[..., 0])


def _halt_per_sample(state_BTD: Any, args: Any) -> Array:
  """sigmoid(w mean_T(s) + b): one probability for the whole sample."""
  return args[0].halt_per_token(jnp.mean(state_BTD, 1, keepdims=True))[:, 0]


def _heads(cfg: Config) -> dict[str, Head]:
  heads = plain_heads(cfg)
  if cfg.halting:
    heads['halt'] = _halt_per_sample
    heads['halt_token'] = lambda state, args: args[0].halt_per_token(state)
  return heads


FAMILY = Family(config=Config, model=Universal, heads=_heads)
