"""Prelude, looped core and coda: the chassis of recurrent-depth models.

    e   = N_p(Prelude(E[x]))               once
    s_t = N_l(Core(inject(s_{t-1}, e)))    R times, s_0 keyed by (row, position)
    y   = W N(Coda(C N_a(s_R)))            once

Norm placement, injection, loop-end norm, initial state, width of the state and
value embeddings are options, which makes Huginn (arXiv:2502.05171), Parcae
(arXiv:2604.12946) and retrofitted decoders (arXiv:2511.07384) corners of one
chassis. s_0 is a function of (sample id, position), so a run is reproducible in
any batch, and decoding with a cache equals the full pass.
"""

import dataclasses
import math
from typing import Any

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
from loopformer.nn.position import initial_state
from loopformer.nn.slots import Part, part_of
from loopformer.nn.value_embedding import ValueEmbedding, alternate

VALUE_LAYERS = ('listed', 'alternate')
LOOP_NORMS = ('none', 'inside', 'after', 'shared')


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthConfig:
  """Fields of a recurrent-depth model.

  Attributes:
    vocab_size: input tokens.
    num_classes: output tokens; 0 for as many as inputs.
    features: real numbers at every position, in place of a token; 0 for tokens.
    seq_len: T, for learned positions.
    block: one layer of prelude and coda, and of the core unless `core_block`.
    core_block: one layer of the core, if it has another width or shape.
    prelude, core, coda: layers in each part.
    positions: none (leave it to rotary), learned or sinusoidal.
    embed_scale: factor of the embedding; 0 for sqrt(D).
    injection: see `loopformer.nn.injection`.
    start: s_0 is `normal` (keyed noise), `zero` or `embed`.
    start_scale: standard deviation of the noise; 0 for c sqrt(2 / (5 D)) with
      c the factor of the embedding, as Huginn and Parcae have it.
    prelude_norm: whether e is normalised (Parcae).
    loop_norm: none; `inside`, the state is normalised after every recurrence;
      `after`, once, where the loop ends; `shared`, there too, but by the final
      norm (Huginn).
    project: whether a linear map C leads from the state to the coda (Parcae).
    value_layers: which layers have value embeddings: those `listed`, or
      `alternate`, every other one, which fills in the lists.
    value_tables, value_gates: layers, numbered from the prelude on, that have a
      table of value embeddings, and a gate for it.
    tied: whether the head is the embedding transposed.
    bias: whether W of the injection `concat` and C have biases.
    logit_scale: factor of the logits.
    softcap: c of c tanh(logits / c); 0 for none.
  """

  vocab_size: int = 256
  num_classes: int = 0
  features: int = 0
  seq_len: int = 128
  block: BlockConfig = dataclasses.field(
    default_factory=lambda: BlockConfig(mask='causal')
  )
  core_block: BlockConfig | None = None
  prelude: int = 1
  core: int = 2
  coda: int = 1
  positions: str = 'none'
  embed_scale: float = 0.0
  injection: str = 'concat'
  start: str = 'normal'
  start_scale: float = 0.0
  prelude_norm: bool = False
  loop_norm: str = 'after'
  project: bool = False
  value_layers: str = 'listed'
  value_tables: tuple[int, ...] = ()
  value_gates: tuple[int, ...] = ()
  tied: bool = False
  bias: bool = False
  logit_scale: float = 1.0
  softcap: float = 0.0

  def __post_init__(self):
    require_ends(self)
    for name in (
      'prelude',
      'core',
      'coda',
      'start_scale',
      'embed_scale',
      'softcap',
    ):
      require(name, getattr(self, name), at_least=0)
    require_one_of('injection', self.injection, INJECTIONS)
    require_one_of('start', self.start, ('embed', 'zero', 'normal'))
    require_one_of('loop_norm', self.loop_norm, LOOP_NORMS)
    require_one_of('value_layers', self.value_layers, VALUE_LAYERS)
    if self.loop_block.width != self.block.width and not self.project:
      raise ValueError(
        f'core_block.width must be block.width = {self.block.width} without '
        f'project, got {self.loop_block.width}.'
      )
    layers = self.prelude + self.core + self.coda
    if self.value_layers == 'alternate':
      for name in ('value_tables', 'value_gates'):
        object.__setattr__(self, name, alternate(layers))
    if self.features and self.value_tables:
      raise ValueError(
        f'features must be 0 with value_tables, got {self.features}.'
      )
    for layer in (*self.value_tables, *self.value_gates):
      if not 0 <= layer < layers:
        raise ValueError(
          f'value_tables and value_gates must be below {layers} layers, got '
          f'{layer}.'
        )

  @property
  def start_deviation(self) -> float:
    """Standard deviation of the noise, with the default filled in."""
    width = self.block.width
    factor = self.embed_scale or math.sqrt(width)
    return self.start_scale or factor * math.sqrt(2 / (5 * width))

  @property
  def loop_block(self) -> BlockConfig:
    """One layer of the core."""
    return self.core_block or self.block

  def layer_blocks(self) -> dict[int, BlockConfig]:
    """The block of every layer by its number."""
    outer, first = self.block, self.prelude
    inner = range(first, first + self.core)
    layers = range(first + self.core + self.coda)
    return {i: self.loop_block if i in inner else outer for i in layers}


def table_name(cfg: DepthConfig) -> str:
  """Path of the weights that make e of the inputs."""
  return 'embedding.numbers.kernel' if cfg.features else 'embedding.tokens'


class PreludeCoreCoda(nnx.Module):
  """Prelude, core and coda around one loop."""

  def __init__(self, cfg: DepthConfig, *, rngs: nnx.Rngs):
    self.cfg: Any = cfg  # of a family's own class
    width, state_width = cfg.block.width, cfg.loop_block.width
    self.embedding = Embedding(
      cfg.vocab_size,
      width,
      features=cfg.features,
      seq_len=cfg.seq_len,
      positions=cfg.positions,
      scale=cfg.embed_scale or None,
      rngs=rngs,
    )
    self.prelude = Block(cfg.block, cfg.prelude, rngs=rngs)
    self.injection = Injection(
      cfg.injection, width, state_width=state_width, bias=cfg.bias, rngs=rngs
    )
    self.core = Block(cfg.loop_block, cfg.core, rngs=rngs)
    self.coda = Block(cfg.block, cfg.coda, rngs=rngs)
    self.final_norm = make_norm(cfg.block, rngs=rngs)
    if cfg.prelude_norm:
      self.prelude_norm = make_norm(cfg.block, rngs=rngs)
    if cfg.loop_norm in ('inside', 'after'):
      self.loop_norm = make_norm(cfg.loop_block, rngs=rngs)
    if cfg.project:
      self.projection = Linear(
        state_width, width, 'embed', 'embed_out', bias=cfg.bias, rngs=rngs
      )
    if cfg.value_tables or cfg.value_gates:
      self.value_embedding = ValueEmbedding(
        cfg.vocab_size,
        cfg.layer_blocks(),
        cfg.value_tables,
        cfg.value_gates,
        idle=cfg.block,
        rngs=rngs,
      )
    if not cfg.tied:
      classes = cfg.num_classes or cfg.vocab_size
      self.head = Linear(width, classes, 'embed', 'vocab', rngs=rngs)

  def cache_parts(self) -> dict[str, Part]:
    """The stacks whose keys and values a cache keeps."""
    cfg = self.cfg
    return {
      'prelude': part_of(cfg.block, cfg.prelude, calls=0),
      'core': part_of(cfg.loop_block, cfg.core),
      'coda': part_of(cfg.block, cfg.coda, calls=0),
    }

  def read(
    self,
    inputs_BT: Inputs,
    place: Place | None = None,
    cache: Cache | None = None,
  ) -> tuple[Context, Cache | None]:
    """The context of some tokens, which may follow those in a cache."""
    positions_BT = None if place is None else place.positions_BT
    has_values = hasattr(self, 'value_embedding')
    values = self.value_embedding.rows(inputs_BT) if has_values else {}
    x_BTD = self.embedding(inputs_BT, positions_BT)
    e_BTD, cache = self._part('prelude', x_BTD, place, values, cache)
    if self.cfg.prelude_norm:
      e_BTD = self.prelude_norm(e_BTD)
    return Context(e_BTD, place, values), cache

  def embed(self, inputs_BT: Inputs, place: Place | None = None) -> Context:
    """The same without a cache."""
    return self.read(inputs_BT, place)[0]

  def init_state(self, context: Context, keys_B: Any) -> Array:
    """s_0, the same for a sample in any batch."""
    place = context.place
    return initial_state(
      self.cfg.start,
      context.e_BTD,
      keys_B,
      scale=self.cfg.start_deviation,
      width=self.cfg.loop_block.width,
      positions_BT=None if place is None else place.positions_BT,
    )

  def step(
    self,
    state_BTD: Float[Array, 'B T S'],
    aux: Any,
    context: Context,
    info: core.LoopInfo,
  ) -> tuple[Float[Array, 'B T S'], Any]:
    """s <- Core(inject(s, e)); `aux` is a cache, or empty."""
    h_BTS = self.injection(state_BTD, context.e_BTD, info.steps_B)
    cache = aux if isinstance(aux, Cache) else None
    h_BTS, cache = self._part(
      'core', h_BTS, context.place, context.values, cache, info
    )
    if self.cfg.loop_norm == 'inside':
      h_BTS = self.loop_norm(h_BTS)
    return h_BTS, aux if cache is None else cache

  def write(
    self,
    state_BTD: Float[Array, 'B T S'],
    context: Context,
    cache: Cache | None = None,
  ) -> tuple[Float[Array, 'B T V'], Cache | None]:
    """Logits: loop-end norm, C, coda, final norm, head."""
    cfg = self.cfg
    if cfg.loop_norm == 'after':
      state_BTD = self.loop_norm(state_BTD)
    if cfg.loop_norm == 'shared':
      state_BTD = self.final_norm(state_BTD)
    x_BTD = self.projection(state_BTD) if cfg.project else state_BTD
    x_BTD, cache = self._part(
      'coda', x_BTD, context.place, context.values, cache
    )
    x_BTD = self.final_norm(x_BTD)
    logits = self.embedding.attend(x_BTD) if cfg.tied else self.head(x_BTD)
    if cfg.logit_scale != 1:
      logits = cfg.logit_scale * logits
    if cfg.softcap:
      logits = cfg.softcap * jnp.tanh(logits / cfg.softcap)
    return logits, cache

  def readout(
    self, state_BTD: Float[Array, 'B T S'], context: Context
  ) -> Float[Array, 'B T V']:
    """The same without a cache."""
    return self.write(state_BTD, context)[0]

  def _part(self, name, x_BTD, place, values, cache, info=None):
    """One of the three stacks, with its value embeddings and its cache."""
    cfg, block = self.cfg, getattr(self, name)
    first = {'prelude': 0, 'core': cfg.prelude, 'coda': cfg.prelude + cfg.core}
    extras = None
    if values:
      count = getattr(cfg, name)
      extras = self.value_embedding.extras(values, first[name], count)
    call, live_B = (0, None) if info is None else (info.t, info.live_B)
    return block.through(x_BTD, place, cache, name, call, live_B, extras)
