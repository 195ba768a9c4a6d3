"""The chassis of the puzzle reasoners: HRM, TRM, URM, EqR and FPRM.

A reasoner embeds a grid, carries a latent state z over the recurrences of an
outer loop and reads the answer off it. What one recurrence does is the
family's; embedding, stacks, initial state and heads are here, with the axes in
which the published models differ.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from loopformer.core.rows import fold_rows, keyed_normal
from loopformer.nn.attention import Attention
from loopformer.nn.block import Branch
from loopformer.nn.config import (
  BlockConfig,
  require,
  require_ends,
  require_one_of,
)
from loopformer.nn.linear import Linear
from loopformer.nn.mlp import MLP
from loopformer.nn.puzzle_embedding import (
  PuzzleEmbedding,
  prefix_tokens,
  truncated_normal,
  truncated_state,
)
from loopformer.nn.stack import apply_stack, stack
from loopformer.nn.variables import Frozen

MIXERS = ('attention', 'mlp')
STARTS = ('stored', 'normal')
HALTING = ('q', 'probability')
Scales = tuple[Array, Array] | None


def published_block(**fields: Any) -> BlockConfig:
  """The block all five share: no gains, F a multiple of 256."""
  return BlockConfig(
    **{
      'width': 512,
      'heads': 8,
      'multiple': 256,
      'style': 'post',
      'norm_gain': False,
      'epsilon': 1e-5,
      **fields,
    }
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReasonerConfig:
  """What the five families have in common.

  Attributes:
    vocab_size: input tokens.
    num_classes: output tokens; 0 for as many as inputs.
    seq_len: S, cells of the grid.
    block: one layer.
    layers: layers of a stack.
    mixer: attention, or an MLP across the tokens, tied to their number.
    mixer_hidden: F of that MLP; 0 for 8 L / 3 rounded up like the block's.
    mlp_taps: taps of a convolution inside the MLP; 0 for none.
    positions: none (leave it to rotary) or learned.
    puzzles: rows of the puzzle table.
    puzzle_width: numbers per puzzle; 0 for no table and no prefix.
    prefix: P, tokens in front of the grid; 0 for as many as a row fills.
    start: the state begins as a `stored` vector or as fresh `normal` noise.
    start_std: deviation of either.
    halting: what a head reads off the first token: `q`, values of halting and
      of going on, or `probability`, of stopping now (ACT, PonderNet).
    halting_bias: bias of that head at the start.
  """

  vocab_size: int = 11
  num_classes: int = 0
  seq_len: int = 81
  block: BlockConfig = dataclasses.field(default_factory=published_block)
  layers: int = 2
  mixer: str = 'attention'
  mixer_hidden: int = 0
  mlp_taps: int = 0
  positions: str = 'none'
  puzzles: int = 1
  puzzle_width: int = 512
  prefix: int = 0
  start: str = 'stored'
  start_std: float = 1.0
  halting: str = 'q'
  halting_bias: float = -5.0

  def __post_init__(self):
    require_one_of('positions', self.positions, ('none', 'learned'))
    require_ends(self)
    for name in ('layers', 'puzzles'):
      require(name, getattr(self, name), at_least=1)
    for name in ('mixer_hidden', 'mlp_taps', 'start_std'):
      require(name, getattr(self, name), at_least=0)
    require_one_of('mixer', self.mixer, MIXERS)
    require_one_of('start', self.start, STARTS)
    require_one_of('halting', self.halting, HALTING)
    prefix_tokens(self.puzzle_width, self.block.width, self.prefix)

  @property
  def prefix_len(self) -> int:
    """P, with the default filled in."""
    return prefix_tokens(self.puzzle_width, self.block.width, self.prefix)

  @property
  def length(self) -> int:
    """L = P + S."""
    return self.prefix_len + self.seq_len

  @property
  def mixer_block(self) -> BlockConfig:
    """The MLP across the tokens, as a block of width L."""
    return dataclasses.replace(
      self.block,
      width=self.length,
      heads=1,
      kv_heads=0,
      hidden=self.mixer_hidden,
      rotary='none',
      mask='none',
    )


class ReasonerLayer(nnx.Module):
  """Mixing across the tokens, then an MLP, each with norms and residual.

  An MLP across the tokens works on the transposed state, and so does the norm
  of its branch: it divides by the size over the tokens, channel by channel.
  """

  def __init__(self, cfg: ReasonerConfig, *, rngs: nnx.Rngs):
    self.across = cfg.mixer == 'mlp'
    mixer_cfg = cfg.mixer_block if self.across else cfg.block
    mixer = (MLP if self.across else Attention)(mixer_cfg, rngs=rngs)
    self.mixer = Branch(mixer, mixer_cfg, rngs=rngs)
    mlp = MLP(cfg.block, taps=cfg.mlp_taps, rngs=rngs)
    self.mlp = Branch(mlp, cfg.block, rngs=rngs)

  def __call__(
    self, h_BLD: Float[Array, 'B L D'], scales: Scales = None
  ) -> Float[Array, 'B L D']:
    """Applies the layer; `scales` as for `Branch`."""
    if not self.across:
      return self.mlp(self.mixer(h_BLD, scales), scales)
    swap = lambda x: jnp.swapaxes(x, 1, 2)
    swapped = None if scales is None else (swap(scales[0]), swap(scales[1]))
    return self.mlp(swap(self.mixer(swap(h_BLD), swapped)), scales)


class ReasonerStack(nnx.Module):
  """f(z, inject): the layers, applied to z + inject."""

  def __init__(self, cfg: ReasonerConfig, depth: int, *, rngs: nnx.Rngs):
    make = lambda layer_rngs: ReasonerLayer(cfg, rngs=layer_rngs)
    self.layers = stack(make, depth, rngs=rngs)

  def __call__(
    self, z_BLD: Float[Array, 'B L D'], inject_BLD: Float[Array, 'B L D']
  ) -> Float[Array, 'B L D']:
    """Adds what is injected once, at the entry."""
    return self.run(z_BLD + inject_BLD)

  def run(
    self, h_BLD: Float[Array, 'B L D'], scales: Scales = None
  ) -> Float[Array, 'B L D']:
    """The layers alone."""
    call = lambda layer, h, index: layer(h, scales)
    return apply_stack(self.layers, h_BLD, call)


class Reasoner(nnx.Module):
  """Embedding, initial states and heads; a family adds `step` and `answer`.

  Attributes:
    states: names of the latent states.
    stds: deviation of the start of each.
  """

  def __init__(
    self, cfg: ReasonerConfig, stds: Mapping[str, float], *, rngs: nnx.Rngs
  ):
    self.cfg: Any = cfg  # of a family's own class
    self.states, self.stds = tuple(stds), tuple(stds.values())
    width = cfg.block.width
    self.embedding = PuzzleEmbedding(
      cfg.vocab_size,
      width,
      seq_len=cfg.seq_len,
      puzzles=cfg.puzzles,
      puzzle_width=cfg.puzzle_width,
      prefix=cfg.prefix_len,
      learned_positions=cfg.positions == 'learned',
      rngs=rngs,
    )
    classes = cfg.num_classes or cfg.vocab_size
    self.head = Linear(width, classes, 'embed', 'vocab', rngs=rngs)
    halting = lambda outputs: nnx.Linear(
      width,
      outputs,
      kernel_init=nnx.initializers.zeros,
      bias_init=nnx.initializers.constant(cfg.halting_bias),
      rngs=rngs,
    )
    if cfg.halting == 'q':
      self.q_head = halting(2)
    else:
      self.halt_head = halting(1)
    if cfg.start == 'stored':
      draw = lambda std: truncated_normal(std)(rngs.params(), (width,))
      self.start = nnx.Dict(
        {name: Frozen(draw(std)) for name, std in stds.items()}
      )

  def embed(
    self, inputs_BT: Int[Array, 'B T'], puzzle_rows_BE: Any = None
  ) -> Float[Array, 'B L D']:
    """x, the same at every recurrence.

    Raises:
      ValueError: if weights are tied to a length that the inputs do not have.
    """
    cfg, length = self.cfg, inputs_BT.shape[1]
    tied = cfg.mixer == 'mlp' or cfg.positions == 'learned'
    if tied and length != cfg.seq_len:
      raise ValueError(
        f'inputs must have seq_len = {cfg.seq_len} tokens for mixer = '
        f'{cfg.mixer!r} and positions = {cfg.positions!r}, got {length}.'
      )
    return self.embedding(inputs_BT, puzzle_rows_BE)

  def puzzle_rows(self, puzzles_B: Int[Array, ' B']) -> Any:
    """Rows of the puzzle table, or None."""
    return self.embedding.rows(puzzles_B)

  def init_state(
    self, context_BLD: Float[Array, 'B L D'], keys_B: Any
  ) -> dict[str, Float[Array, 'B L D']]:
    """Every state a stored vector at each position, or keyed noise.

    Raises:
      ValueError: if noise is asked for without keys.
    """
    shape = context_BLD.shape
    if self.cfg.start == 'stored':
      return {
        name: jnp.broadcast_to(self.start[name][...], shape).astype(jnp.float32)
        for name in self.states
      }
    if keys_B is None:
      raise ValueError('keys must be given for a normal start, got None.')
    return {
      name: truncated_state(
        keyed_normal(
          fold_rows(keys_B, jnp.full(shape[:1], index)), shape[1:], truncate=2.0
        ),
        std,
      )
      for index, (name, std) in enumerate(
        zip(self.states, self.stds, strict=True)
      )
    }

  def readout(
    self, state: Any, context_BLD: Float[Array, 'B L D']
  ) -> Float[Array, 'B S V']:
    """Logits of the grid's cells."""
    del context_BLD
    return self.head(self.answer(state)[:, self.cfg.prefix_len :])

  def q_values(self, state: Any) -> Float[Array, 'B 2']:
    """Q-logits of halting and of going on, read off the first token."""
    return self.q_head(self._first(state))

  def halt_probability(self, state: Any) -> Float[Array, ' B']:
    """sigmoid(w z_0 + b): the probability of stopping, one per sample."""
    return jax.nn.sigmoid(self.halt_head(self._first(state))[:, 0])

  def _first(self, state):
    return self.answer(state)[:, 0].astype(jnp.float32)

  def answer(self, state: Any) -> Float[Array, 'B L D']:
    """The state that is read out: the last one named."""
    return state[self.states[-1]]


def repeat(
  call: Callable[[Any, Array], Any], state: Any, count: int, start: Any = 0
) -> Any:
  """state <- call(state, i) for i = start .. start + count - 1, by a scan."""
  if count < 1:
    return state
  indices = start + jnp.arange(count)
  return jax.lax.scan(lambda s, i: (call(s, i), None), state, indices)[0]


def cut(tree: Any) -> Any:
  """No gradient flows back through the tree."""
  return jax.lax.stop_gradient(tree)
