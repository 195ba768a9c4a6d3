"""Two timescales: a fast state read by a slow one (HRM, TRM, EqR).

One recursion is T fast calls and one slow call,

    z_low  <- f_low(z_low, z_high + x)        T times
    z_high <- f_high(z_high, z_low)           once

and a segment is N recursions of which only the end has a gradient: the last
call of each kind (HRM, arXiv:2506.21734) or the whole last recursion (TRM,
arXiv:2510.04871). With the gradient `full` nothing is cut, not even where a
segment starts, which is what losses over several segments at once want.
"""

import dataclasses
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from loopformer import core
from loopformer.nn.config import require, require_one_of
from loopformer.nn.position import path_noise
from loopformer.nn.reasoner import (
  Reasoner,
  ReasonerConfig,
  ReasonerStack,
  cut,
  repeat,
)

GRADIENTS = ('last_calls', 'last_recursion', 'full')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecursionConfig(ReasonerConfig):
  """A reasoner of two timescales.

  Attributes:
    high_layers: layers of a stack of its own for the slow state; 0 for the
      fast state's stack.
    high_cycles: N, recursions per segment.
    low_cycles: T, fast calls per recursion.
    gradient: what of a segment is differentiated: its last call of each kind,
      its last recursion, or all of it and the segments before.
    damping: lambda in z <- (1 - lambda) z + lambda f(z, .).
    noise: deviation of the noise added after every call.
    low_start_std: deviation of the fast state's start; 0 for `start_std`.
  """

  high_layers: int = 0
  high_cycles: int = 2
  low_cycles: int = 2
  gradient: str = 'last_recursion'
  damping: float = 1.0
  noise: float = 0.0
  low_start_std: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    for name in ('high_cycles', 'low_cycles'):
      require(name, getattr(self, name), at_least=1)
    for name in ('high_layers', 'noise', 'low_start_std'):
      require(name, getattr(self, name), at_least=0)
    require_one_of('gradient', self.gradient, GRADIENTS)
    if not 0 < self.damping <= 1:
      raise ValueError(f'damping must be in (0, 1], got {self.damping}.')


class TwoTimescales(Reasoner):
  """A segment of N recursions is one recurrence of the outer loop."""

  def __init__(self, cfg: RecursionConfig, *, rngs: nnx.Rngs):
    low_std = cfg.low_start_std or cfg.start_std
    stds = {'low': low_std, 'high': cfg.start_std}
    super().__init__(cfg, stds, rngs=rngs)
    self.low = ReasonerStack(cfg, cfg.layers, rngs=rngs)
    if cfg.high_layers:
      self.high = ReasonerStack(cfg, cfg.high_layers, rngs=rngs)

  def step(
    self,
    state: dict[str, Float[Array, 'B L D']],
    aux: Any,
    context_BLD: Float[Array, 'B L D'],
    info: core.LoopInfo,
  ) -> tuple[dict[str, Float[Array, 'B L D']], Any]:
    """One segment; its state comes in without a gradient, unless full."""
    cfg = self.cfg
    if cfg.gradient == 'full':
      whole = lambda s, i: self._recursion(s, context_BLD, info.keys_B, i)
      return repeat(whole, state, cfg.high_cycles), aux
    blind, x_BLD = cut((self, context_BLD))
    state = repeat(
      lambda s, i: blind._recursion(s, x_BLD, info.keys_B, i),
      cut(state),
      cfg.high_cycles - 1,
    )
    last = cfg.high_cycles - 1
    calls = cfg.low_cycles
    if cfg.gradient == 'last_calls':
      first = last * (cfg.low_cycles + 1)
      low = lambda s, i: blind._low(s, x_BLD, info.keys_B, i)
      state = repeat(low, state, cfg.low_cycles - 1, first)
      calls = 1
    return self._recursion(
      cut(state), context_BLD, info.keys_B, last, calls
    ), aux

  def _recursion(self, state, x_BLD, keys_B, recursion, calls=0):
    """The last `calls` fast calls of a recursion (all for 0) and its slow."""
    per_recursion = self.cfg.low_cycles + 1
    calls = calls or self.cfg.low_cycles
    end = recursion * per_recursion + self.cfg.low_cycles
    low = lambda s, i: self._low(s, x_BLD, keys_B, i)
    state = repeat(low, state, calls, end - calls)
    stack = self.high if self.cfg.high_layers else self.low
    high = self._call(stack, state['high'], state['low'], keys_B, end)
    return {**state, 'high': high}

  def _low(self, state, x_BLD, keys_B, call):
    inject_BLD = state['high'] + x_BLD
    low = self._call(self.low, state['low'], inject_BLD, keys_B, call)
    return {**state, 'low': low}

  def _call(self, stack, z_BLD, inject_BLD, keys_B, call):
    """z <- (1 - lambda) z + lambda f(z, inject) + noise, in z's dtype."""
    cfg = self.cfg
    new_BLD = stack(z_BLD, inject_BLD)
    if cfg.damping != 1:
      new_BLD = (1 - cfg.damping) * z_BLD + cfg.damping * new_BLD
    new_BLD = new_BLD + path_noise(keys_B, call, z_BLD, cfg.noise)
    return new_BLD.astype(z_BLD.dtype)
