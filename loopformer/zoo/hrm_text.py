"""HRM-Text (sapientinc/HRM-Text-1B; `hrm_text` of Hugging Face transformers).

    z_H = e = c E[x],    z_L a stored vector
    repeat H times:  repeat L times  z_L = Low(z_L + z_H)
                     z_H = High(z_H + z_L)
    y = W z_H

Two stacks of pre-norm layers, each closed by a norm; no norm has a gain. e
enters as the first z_H and never again. Head outputs are gated by the layer's
input. One recurrence is one H cycle. In it only the last so many low calls
carry gradient, `low_gradients`, one number for each cycle from the last back.
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
from loopformer.nn.variables import Frozen
from loopformer.zoo.family import UNINJECTED, Family, read_logits

State = dict[str, Array]


def published_block(**fields) -> BlockConfig:
  """One layer of HRM-Text-1B."""
  return BlockConfig(
    **{
      'width': 1536,
      'heads': 12,
      'hidden': 4096,
      'norm_gain': False,
      'gated': True,
      'mask': 'causal',
      **fields,
    }
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """HRM-Text's published fields.

  Attributes:
    vocab_size: input tokens.
    num_classes: output tokens; 0 for as many as inputs.
    seq_len: T; rotary positions need no table of it.
    block: one layer of either stack.
    layers: layers of each stack.
    high_cycles: H of the published model; a loop may run another number.
    low_cycles: L, low calls in a recurrence.
    low_gradients: how many low calls carry gradient, by cycle; shorter tuples
      are filled up with ones in front, and cycles past the end take the last.
    embed_scale: c; 0 for 1 / init_std.
    init_std: standard deviation of all matrices at the start.
    tied: whether the head is the embedding transposed.
  """

  vocab_size: int = 151808
  num_classes: int = 0
  seq_len: int = 2048
  block: BlockConfig = dataclasses.field(default_factory=published_block)
  layers: int = 16
  high_cycles: int = 2
  low_cycles: int = 3
  low_gradients: tuple[int, ...] = (2,)
  embed_scale: float = 0.0
  init_std: float = 0.02
  tied: bool = False

  def __post_init__(self):
    require_ends(self)
    for name in ('layers', 'high_cycles'):
      require(name, getattr(self, name), at_least=1)
    for name in ('low_cycles', 'embed_scale'):
      require(name, getattr(self, name), at_least=0)
    for number in self.low_gradients:
      require('low_gradients', number, at_least=0)
    if not self.init_std > 0:
      raise ValueError(f'init_std must be > 0, got {self.init_std}.')

  def gradient_calls(self) -> tuple[int, ...]:
    """Low calls with gradient in each of the published cycles."""
    given = self.low_gradients[: self.high_cycles]
    return (1,) * (self.high_cycles - len(given)) + tuple(given)


class HRMText(nnx.Module):
  """Two stacks at two timescales around a causal decoder's ends."""

  def __init__(self, cfg: Config, *, rngs: nnx.Rngs):
    self.cfg = cfg
    width = cfg.block.width
    self.embedding = Embedding(
      cfg.vocab_size,
      width,
      scale=cfg.embed_scale or 1 / cfg.init_std,
      rngs=rngs,
    )
    self.low = Block(cfg.block, cfg.layers, rngs=rngs)
    self.high = Block(cfg.block, cfg.layers, rngs=rngs)
    self.norm = make_norm(cfg.block, rngs=rngs)
    self.low_start = Frozen(jnp.zeros(width))
    if not cfg.tied:
      classes = cfg.num_classes or cfg.vocab_size
      self.head = Linear(width, classes, 'embed', 'vocab', rngs=rngs)
    draw = nnx.initializers.normal(cfg.init_std)
    redraw(self, {'kernel': draw, 'embedding.tokens': draw}, rngs)

  def cache_parts(self) -> dict[str, Part]:
    """Both stacks, the low one several times per recurrence."""
    cfg = self.cfg
    parts = {'high': part_of(cfg.block, cfg.layers)}
    if cfg.low_cycles:
      parts['low'] = part_of(cfg.block, cfg.layers, calls=cfg.low_cycles)
    return parts

  def read(
    self,
    inputs_BT: Int[Array, 'B T'],
    place: Place | None = None,
    cache: Cache | None = None,
  ) -> tuple[Context, Cache | None]:
    """c E[x]; nothing of it is kept."""
    return Context(self.embedding(inputs_BT), place, {}), cache

  def embed(
    self, inputs_BT: Int[Array, 'B T'], place: Place | None = None
  ) -> Context:
    """c E[x]."""
    return self.read(inputs_BT, place)[0]

  def init_state(self, context: Context, keys_B: Any) -> State:
    """z_H = e, z_L the stored vector at every position."""
    del keys_B
    e_BTD = context.e_BTD
    low_BTD = jnp.broadcast_to(self.low_start[...], e_BTD.shape)
    return {'low': low_BTD.astype(e_BTD.dtype), 'high': e_BTD}

  def step(
    self, state: State, aux: Any, context: Context, info: core.LoopInfo
  ) -> tuple[State, Any]:
    """One H cycle; `aux` is a cache, or empty."""
    low, high = state['low'], state['high']
    if isinstance(aux, Cache):
      return self._cached(low, high, aux, context, info)
    kept = self.cfg.gradient_calls()
    kept_B = jnp.asarray(kept, jnp.int32)[
      jnp.minimum(info.steps_B, self.cfg.high_cycles - 1)
    ]
    for call in range(self.cfg.low_cycles):
      left = self.cfg.low_cycles - call
      stack, h_BTD = (self.low, self.norm), low + high
      if left > max(kept):  # Free of gradient in every cycle.
        stack, h_BTD = jax.lax.stop_gradient((stack, h_BTD))
      if min(kept) < left <= max(kept):
        low = _gated_stack(stack, h_BTD, context.place, left > kept_B)
      else:
        low = _stack(stack, h_BTD, context.place)
    high = _stack((self.high, self.norm), high + low, context.place)
    return {'low': low, 'high': high}, aux

  def _cached(self, low, high, cache, context, info):
    """The same with the keys and values of earlier tokens, for decoding."""

    def call(name, h_BTD, cache, number):
      h_BTD, cache = getattr(self, name).through(
        h_BTD, context.place, cache, name, number, info.live_B
      )
      return self.norm(h_BTD), cache

    first = info.t * self.cfg.low_cycles
    for number in range(self.cfg.low_cycles):
      low, cache = call('low', low + high, cache, first + number)
    high, cache = call('high', high + low, cache, info.t)
    return {'low': low, 'high': high}, cache

  def write(
    self, state: State, context: Context, cache: Cache | None = None
  ) -> tuple[Float[Array, 'B T V'], Cache | None]:
    """Logits of z_H."""
    del context
    if self.cfg.tied:
      return self.embedding.attend(state['high']), cache
    return self.head(state['high']), cache

  def readout(self, state: State, context: Context) -> Float[Array, 'B T V']:
    """The same without a cache."""
    return self.write(state, context)[0]


def _stack(stack, h_BTD, place):
  """Norm of what leaves a stack."""
  block, norm = stack
  return norm(block(h_BTD, place)[0])


@jax.custom_vjp
def _gated_stack(stack, h_BTD, place, free_B):
  """`_stack` without a gradient for rows that are free of it.

  Where all are, the backward pass of the call is left out.
  """
  del free_B
  return _stack(stack, h_BTD, place)


def _gated_forward(stack, h_BTD, place, free_B):
  out_BTD, pull = jax.vjp(lambda *args: _stack(*args, place), stack, h_BTD)
  return out_BTD, (pull, free_B)


def _gated_backward(saved, d_out):
  pull, free_B = saved
  d_out = jnp.where(core.rows.expand(free_B, d_out), 0.0, d_out)
  nothing = lambda d: jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(pull, d)
  )
  grads = jax.lax.cond(jnp.all(free_B), nothing, pull, d_out)
  return *grads, None, None


_gated_stack.defvjp(_gated_forward, _gated_backward)


FAMILY = Family(
  config=Config,
  model=HRMText,
  heads=lambda cfg: {'logits': read_logits},
  exempt=UNINJECTED,
)
