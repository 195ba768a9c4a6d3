"""Ouro, or LoopLM (arXiv:2510.25741): the whole stack, looped.

    h_0 = E[x];    h_t = N(Layer_L(.. Layer_1(h_{t-1})))
    logits_t = W h_t,    lambda_t = sigmoid(w h_t + b)
    p_t = lambda_t prod_{j<t} (1 - lambda_j),    p_R = what is left

No injection and no signal of t; the final norm lies inside the loop. A layer
has four norms, the second and fourth on its branches. Stage one trains all by
sum_t p_t CE_t - beta H(p) (`expected_exit`), stage two the gate alone
(`gate_targets`); a row exits where the sum of p_t exceeds a quantile (`cdf`).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from loopformer import core
from loopformer.nn.block import Block, make_norm
from loopformer.nn.cache import Cache
from loopformer.nn.config import BlockConfig, require, require_ends
from loopformer.nn.embedding import Embedding
from loopformer.nn.initialise import redraw
from loopformer.nn.linear import Linear
from loopformer.nn.place import Context, Place
from loopformer.nn.slots import Part, part_of
from loopformer.zoo.family import UNINJECTED, Family, Head, read_logits


def published_block(**fields) -> BlockConfig:
  """One layer of both published models."""
  return BlockConfig(
    **{
      'width': 2048,
      'heads': 16,
      'hidden': 5632,
      'style': 'sandwich_branch',
      'rotary_theta': 1e6,
      'mask': 'causal',
      **fields,
    }
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Ouro's published fields.

  Attributes:
    vocab_size: input tokens.
    num_classes: output tokens; 0 for as many as inputs.
    seq_len: T; rotary positions need no table of it.
    block: one layer.
    layers: layers of the looped stack; 24 at 1.4 billion, 48 at 2.6.
    recurrences: R of the published model; a loop may run another number.
    init_std: standard deviation of all matrices at the start; the published
      0.02 is 0.9 / sqrt(D) at the published width.
    tied: whether the head is the embedding transposed.
  """

  vocab_size: int = 49152
  num_classes: int = 0
  seq_len: int = 4096
  block: BlockConfig = dataclasses.field(default_factory=published_block)
  layers: int = 24
  recurrences: int = 4
  init_std: float = 0.02
  tied: bool = False

  def __post_init__(self):
    require_ends(self)
    for name in ('layers', 'recurrences'):
      require(name, getattr(self, name), at_least=1)
    if not self.init_std > 0:
      raise ValueError(f'init_std must be > 0, got {self.init_std}.')


class Ouro(nnx.Module):
  """embed -> (stack, norm)^R -> head, with an exit gate."""

  def __init__(self, cfg: Config, *, rngs: nnx.Rngs):
    self.cfg = cfg
    width = cfg.block.width
    self.embedding = Embedding(cfg.vocab_size, width, scale=1.0, rngs=rngs)
    self.block = Block(cfg.block, cfg.layers, rngs=rngs)
    self.norm = make_norm(cfg.block, rngs=rngs)
    self.gate = nnx.Linear(width, 1, rngs=rngs)
    if not cfg.tied:
      classes = cfg.num_classes or cfg.vocab_size
      self.head = Linear(width, classes, 'embed', 'vocab', rngs=rngs)
    draw = nnx.initializers.normal(cfg.init_std)
    redraw(self, {'kernel': draw, 'embedding.tokens': draw}, rngs)

  def cache_parts(self) -> dict[str, Part]:
    """The stack, once per recurrence."""
    return {'block': part_of(self.cfg.block, self.cfg.layers)}

  def read(
    self,
    inputs_BT: Int[Array, 'B T'],
    place: Place | None = None,
    cache: Cache | None = None,
  ) -> tuple[Context, Cache | None]:
    """E[x]; nothing of it is kept."""
    return Context(self.embedding(inputs_BT), place, {}), cache

  def embed(
    self, inputs_BT: Int[Array, 'B T'], place: Place | None = None
  ) -> Context:
    """E[x]."""
    return self.read(inputs_BT, place)[0]

  def init_state(self, context: Context, keys_B: Any) -> Float[Array, 'B T D']:
    """h_0 = E[x]."""
    del keys_B
    return context.e_BTD

  def step(
    self,
    state_BTD: Float[Array, 'B T D'],
    aux: Any,
    context: Context,
    info: core.LoopInfo,
  ) -> tuple[Float[Array, 'B T D'], Any]:
    """h <- N(stack(h)); `aux` is a cache, or empty."""
    h_BTD, aux = self.block.recur(state_BTD, context.place, aux, info)
    return self.norm(h_BTD), aux

  def write(
    self,
    state_BTD: Float[Array, 'B T D'],
    context: Context,
    cache: Cache | None = None,
  ) -> tuple[Float[Array, 'B T V'], Cache | None]:
    """Logits of a state, which is normalised already."""
    del context
    if self.cfg.tied:
      return self.embedding.attend(state_BTD), cache
    return self.head(state_BTD), cache

  def readout(
    self, state_BTD: Float[Array, 'B T D'], context: Context
  ) -> Float[Array, 'B T V']:
    """The same without a cache."""
    return self.write(state_BTD, context)[0]

  def exit_per_token(
    self, state_BTD: Float[Array, 'B T D']
  ) -> Float[Array, 'B T']:
    """lambda_t = sigmoid(w h + b) at every position, float32."""
    return jax.nn.sigmoid(self.gate(state_BTD)[..., 0].astype(jnp.float32))


def _exit_of_last(state_BTD: Any, args: Any) -> Array:
  """lambda of a row at its last position, which is the next to be written."""
  return args[0].exit_per_token(state_BTD[:, -1:])[:, 0]


def _heads(cfg: Config) -> dict[str, Head]:
  del cfg
  return {
    'logits': read_logits,
    'halt': _exit_of_last,
    'halt_token': lambda state, args: args[0].exit_per_token(state),
  }


FAMILY = Family(config=Config, model=Ouro, heads=_heads, exempt=UNINJECTED)
