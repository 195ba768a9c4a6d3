"""Recurrent depth (arXiv:2502.05171): prelude, looped core, coda.

    e   = Prelude(E[x])                    once
    s_t = Core(inject(s_{t-1}, e))         R times, s_0 keyed by (row, position)
    y   = W N(Coda(N' s_R))                once

Norm placement, injection, loop-end norm and initial state are options, which
makes Huginn, Parcae and retrofitted decoders corners of one family. s_0 is a
function of (sample id, position), so a run is reproducible in any batch.
"""

import dataclasses
from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Int

from loopformer import core
from loopformer.nn.block import Block, make_norm
from loopformer.nn.config import BlockConfig, require, require_one_of
from loopformer.nn.embedding import Embedding
from loopformer.nn.injection import INJECTIONS, Injection
from loopformer.nn.linear import Linear
from loopformer.nn.position import initial_state
from loopformer.zoo.family import Family, read_logits

LOOP_NORMS = ('none', 'inside', 'after')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Fields of a recurrent-depth model.

  Attributes:
    vocab_size: input tokens.
    num_classes: output tokens; 0 for as many as inputs.
    seq_len: T, for learned positions.
    block: one layer, the same shape in prelude, core and coda.
    prelude, core, coda: layers in each part.
    positions: none (leave it to rotary), learned or sinusoidal.
    injection: see `loopformer.nn.injection`.
    start: s_0 is `normal` (keyed noise), `zero` or `embed`.
    start_scale: standard deviation of the noise; 0 for sqrt(2 / 5), the
      per-element size of Huginn's.
    prelude_norm: whether e is normalised (Parcae).
    loop_norm: none; `inside`, the state is normalised after every recurrence;
      `after`, once, where the loop ends.
    tied: whether the head is the embedding transposed.
  """

  vocab_size: int = 256
  num_classes: int = 0
  seq_len: int = 128
  block: BlockConfig = dataclasses.field(
    default_factory=lambda: BlockConfig(mask='causal')
  )
  prelude: int = 1
  core: int = 2
  coda: int = 1
  positions: str = 'none'
  injection: str = 'concat'
  start: str = 'normal'
  start_scale: float = 0.0
  prelude_norm: bool = False
  loop_norm: str = 'after'
  tied: bool = False

  def __post_init__(self):
    for name in ('vocab_size', 'seq_len', 'core'):
      require(name, getattr(self, name), at_least=1)
    for name in ('num_classes', 'prelude', 'coda', 'start_scale'):
      require(name, getattr(self, name), at_least=0)
    require_one_of(
      'positions', self.positions, ('none', 'learned', 'sinusoidal')
    )
    require_one_of('injection', self.injection, INJECTIONS)
    require_one_of('start', self.start, ('embed', 'zero', 'normal'))
    require_one_of('loop_norm', self.loop_norm, LOOP_NORMS)
    if self.tied and self.num_classes not in (0, self.vocab_size):
      raise ValueError(
        f'num_classes must be 0 or vocab_size = {self.vocab_size} with a '
        f'tied head, got {self.num_classes}.'
      )


class RecurrentDepth(nnx.Module):
  """Prelude, core and coda around one loop."""

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
    self.prelude = Block(cfg.block, cfg.prelude, rngs=rngs)
    self.injection = Injection(cfg.injection, width, rngs=rngs)
    self.core = Block(cfg.block, cfg.core, rngs=rngs)
    self.coda = Block(cfg.block, cfg.coda, rngs=rngs)
    self.final_norm = make_norm(cfg.block, rngs=rngs)
    if cfg.prelude_norm:
      self.prelude_norm = make_norm(cfg.block, rngs=rngs)
    if cfg.loop_norm != 'none':
      self.loop_norm = make_norm(cfg.block, rngs=rngs)
    if not cfg.tied:
      classes = cfg.num_classes or cfg.vocab_size
      self.head = Linear(width, classes, 'embed', 'vocab', rngs=rngs)

  def embed(self, inputs_BT: Int[Array, 'B T']) -> Float[Array, 'B T D']:
    """e, the prelude's output."""
    e_BTD = self.prelude(self.embedding(inputs_BT))
    return self.prelude_norm(e_BTD) if self.cfg.prelude_norm else e_BTD

  def init_state(
    self, context_BTD: Float[Array, 'B T D'], keys_B: Any
  ) -> Float[Array, 'B T D']:
    """s_0, the same for a sample in any batch."""
    scale = self.cfg.start_scale or (2 / 5) ** 0.5
    return initial_state(self.cfg.start, context_BTD, keys_B, scale=scale)

  def step(
    self,
    state_BTD: Float[Array, 'B T D'],
    aux: Any,
    context_BTD: Float[Array, 'B T D'],
    info: core.LoopInfo,
  ) -> tuple[Float[Array, 'B T D'], Any]:
    """s <- Core(inject(s, e))."""
    h_BTD = self.injection(state_BTD, context_BTD, info.steps_B)
    h_BTD = self.core(h_BTD)
    return self.loop_norm(h_BTD) if self.cfg.loop_norm == 'inside' else (
      h_BTD
    ), aux

  def readout(
    self,
    state_BTD: Float[Array, 'B T D'],
    context_BTD: Float[Array, 'B T D'],
  ) -> Float[Array, 'B T V']:
    """Logits: coda, final norm, head."""
    del context_BTD
    if self.cfg.loop_norm == 'after':
      state_BTD = self.loop_norm(state_BTD)
    x_BTD = self.final_norm(self.coda(state_BTD))
    return self.embedding.attend(x_BTD) if self.cfg.tied else self.head(x_BTD)


FAMILY = Family(
  config=Config, model=RecurrentDepth, heads=lambda cfg: {'logits': read_logits}
)
