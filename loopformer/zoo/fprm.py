"""Fixed-Point Reasoning Model (arXiv:2606.18206).

One state y and one map, iterated until y stops moving:

    u = y, its grid convolved;  h = a2 u + b2 x
    h <- a1 h + b1 f(N h)       attention and MLP of each layer
    g(y) = h

A recurrence is one application of g. The published solver damps it while a
row makes no progress (`core.patience_damped`), stops a row at a residual
`token_max` below 0.1, and trains on windows of six recurrences.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer import core
from loopformer.nn.block import RMSNorm
from loopformer.nn.config import BlockConfig, require_one_of
from loopformer.nn.convolution import Depthwise, require_taps
from loopformer.nn.q_learning import halt_terms
from loopformer.nn.reasoner import (
  Reasoner,
  ReasonerConfig,
  ReasonerStack,
  published_block,
)
from loopformer.nn.residual_scale import ResidualScale, require_scales
from loopformer.zoo.family import NOT_CAUSAL, Family, reasoner_heads

NORMS = ('none', 'input', 'output')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ReasonerConfig):
  """FPRM's published fields, those of Sudoku.

  Attributes:
    conv: none, `line` (causal, over the sequence) or `square` (over the grid).
    conv_taps: its taps.
    conv_bias: whether it has a bias.
    residual_scale: none, fixed, learned, input or spectral, see
      `loopformer.nn.residual_scale`.
    alpha_inner: a1 at the start.
    alpha_outer: a2 at the start.
    outer_only: whether a1 = b1 = 1.
    map_norm: none, or where the map normalises: `input` or `output` (Maze).
    inject_norm: whether x is normalised before it is injected.
  """

  block: BlockConfig = dataclasses.field(
    default_factory=lambda: published_block(style='pre')
  )
  prefix: int = 16
  start: str = 'normal'
  start_std: float = 6.0
  conv: str = 'square'
  conv_taps: int = 3
  conv_bias: bool = False
  residual_scale: str = 'learned'
  alpha_inner: float = 0.75
  alpha_outer: float = 0.25
  outer_only: bool = False
  map_norm: str = 'none'
  inject_norm: bool = False

  def __post_init__(self):
    super().__post_init__()
    require_taps(self.conv, self.conv_taps)
    require_scales(self.residual_scale, self.alpha_inner, self.alpha_outer)
    require_one_of('map_norm', self.map_norm, NORMS)


class FPRM(Reasoner):
  """One application of the map is one recurrence of the outer loop."""

  def __init__(self, cfg: Config, *, rngs: nnx.Rngs):
    super().__init__(cfg, {'y': cfg.start_std}, rngs=rngs)
    width = cfg.block.width
    self.stack = ReasonerStack(cfg, cfg.layers, rngs=rngs)
    self.scale = ResidualScale(
      cfg.residual_scale,
      width,
      2 * cfg.layers,
      inner=cfg.alpha_inner,
      outer=cfg.alpha_outer,
      outer_only=cfg.outer_only,
      rngs=rngs,
    )
    if cfg.conv != 'none':
      self.convolution = Depthwise(
        cfg.conv, width, cfg.conv_taps, bias=cfg.conv_bias, rngs=rngs
      )
    self.norm = RMSNorm(cfg.block, rngs=rngs)

  def step(
    self,
    state: dict[str, Float[Array, 'B L D']],
    aux: Any,
    context_BLD: Float[Array, 'B L D'],
    info: core.LoopInfo,
  ) -> tuple[dict[str, Float[Array, 'B L D']], Any]:
    """g(y; x)."""
    del info
    cfg = self.cfg
    u_BLD = self._convolved(state['y'])
    x_BLD = self.norm(context_BLD) if cfg.inject_norm else context_BLD
    a1, b1, a2, b2 = self.scale(u_BLD)
    if cfg.map_norm == 'input':
      u_BLD = self.norm(u_BLD)
    h_BLD = self.stack.run(a2 * u_BLD + b2 * x_BLD, (a1, b1))
    return {'y': self.norm(h_BLD) if cfg.map_norm == 'output' else h_BLD}, aux

  def _convolved(self, y_BLD):
    """The grid convolved, the prefix as it is."""
    if self.cfg.conv == 'none':
      return y_BLD
    front, grid = jnp.split(y_BLD, [self.cfg.prefix_len], 1)
    return jnp.concatenate([front, self.convolution(grid)], 1)


FAMILY = Family(
  config=Config,
  model=FPRM,
  heads=reasoner_heads,
  exempt=NOT_CAUSAL,
  terms=halt_terms,
)
