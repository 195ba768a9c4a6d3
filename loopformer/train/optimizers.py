"""Optimisers, schedules and clipping from optax, by name."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from loopformer.nn.config import require, require_one_of

Names = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """An optimiser and its schedule.

  Attributes:
    name: a key of `OPTIMIZERS`.
    learning_rate: peak rate.
    schedule: `constant`, `cosine`, `linear` or `trapezoid`, after warm-up.
    warmup: steps of linear warm-up from zero.
    cooldown: share of the steps over which `trapezoid` falls to `floor`.
    floor: final rate as a share of the peak.
    weight_decay: decoupled decay of matrices; vectors are exempt.
    clip: global gradient norm, 0 for none.
    b1: first momentum.
    b2: second momentum; of muon, its only one.
    epsilon: added to the denominator, where there is one.
  """

  name: str = 'adamw'
  learning_rate: float = 1e-3
  schedule: str = 'constant'
  warmup: int = 0
  cooldown: float = 0.2
  floor: float = 0.0
  weight_decay: float = 0.0
  clip: float = 1.0
  b1: float = 0.9
  b2: float = 0.95
  epsilon: float = 1e-8

  def __post_init__(self):
    require_one_of('name', self.name, OPTIMIZERS)
    require_one_of('schedule', self.schedule, SCHEDULES)
    if not self.learning_rate > 0:
      raise ValueError(f'learning_rate must be > 0, got {self.learning_rate}.')
    for name in ('warmup', 'weight_decay', 'clip'):
      require(name, getattr(self, name), at_least=0)
    for name in ('cooldown', 'floor'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
          f'{name} must be in [0, 1], got {getattr(self, name)}.'
        )
    for name in ('b1', 'b2'):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(
          f'{name} must be in [0, 1), got {getattr(self, name)}.'
        )
    if not self.epsilon > 0:
      raise ValueError(f'epsilon must be > 0, got {self.epsilon}.')


class AdamAtan2State(NamedTuple):
  """Updates made, and running means of gradients and of their squares."""

  count: Int[Array, '']
  mu: Any
  nu: Any


def scale_by_adam_atan2(
  b1: float = 0.9, b2: float = 0.95
) -> optax.GradientTransformation:
  """u = atan2(m, sqrt(v) / sqrt(1 - b2^t)) / (1 - b1^t), without an epsilon.

  m and v are the running means of g and g^2, as in Adam, whose quotient of
  the corrected means became atan2 in arXiv:2407.05872. As in the kernel with
  which HRM and TRM were trained, the correction of m stands outside the arc
  tangent: the first update is 0.99669 sign(g), not pi / 4 sign(g).
  """

  def init(params):
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)
    return AdamAtan2State(jnp.int32(0), zeros(), zeros())

  def update(grads, state, params=None):
    del params
    count = optax.safe_increment(state.count)
    mu = optax.tree.update_moment(grads, state.mu, b1, 1)
    nu = optax.tree.update_moment_per_elem_norm(grads, state.nu, b2, 2)
    left1, left2 = 1 - b1**count, 1 - b2**count

    def direction(m, v):
      return jnp.arctan2(m, jnp.sqrt(v) / jnp.sqrt(left2)) / left1

    updates = jax.tree.map(direction, mu, nu)
    return updates, AdamAtan2State(count, mu, nu)

  return optax.GradientTransformation(init, update)


def _adam(cfg, _):
  return optax.scale_by_adam(cfg.b1, cfg.b2, cfg.epsilon)


def _adam_atan2(cfg, _):
  return scale_by_adam_atan2(cfg.b1, cfg.b2)


def _lion(cfg, _):
  return optax.scale_by_lion(cfg.b1, cfg.b2)


def _muon(cfg, names):
  axes = jax.tree.map(_muon_axes, names, is_leaf=_is_names)
  descent = optax.contrib.muon(
    1.0,
    beta=cfg.b2,
    eps=cfg.epsilon,
    adam_b1=cfg.b1,
    adam_b2=cfg.b2,
    muon_weight_dimension_numbers=axes,
    consistent_rms=0.2,
  )
  return optax.chain(descent, optax.scale(-1.0))


def _sgd(cfg, _):
  return optax.trace(cfg.b1) if cfg.b1 else optax.identity()


def _adafactor(*_):
  return optax.chain(optax.adafactor(), optax.scale(-1.0))


# Directions of ascent; decay and rate are the same for all.
OPTIMIZERS = {
  'adamw': _adam,
  'adam_atan2': _adam_atan2,
  'lion': _lion,
  'muon': _muon,
  'sgd': _sgd,
  'adafactor': _adafactor,
}


def _cosine(cfg, steps):
  return optax.cosine_decay_schedule(cfg.learning_rate, steps, cfg.floor)


def _linear(cfg, steps):
  floor = cfg.learning_rate * cfg.floor
  return optax.linear_schedule(cfg.learning_rate, floor, steps)


def _trapezoid(cfg, steps):
  fall = max(1, round(cfg.cooldown * steps))
  floor = cfg.learning_rate * cfg.floor
  return optax.linear_schedule(cfg.learning_rate, floor, fall, steps - fall)


SCHEDULES = {
  'constant': lambda cfg, steps: optax.constant_schedule(cfg.learning_rate),
  'cosine': _cosine,
  'linear': _linear,
  'trapezoid': _trapezoid,
}


def make_schedule(cfg: OptimizerConfig, steps: int) -> optax.Schedule:
  """Learning rate by step: linear warm-up, then the named schedule."""
  after = SCHEDULES[cfg.schedule](cfg, max(1, steps - cfg.warmup))
  if not cfg.warmup:
    return after
  warmup = optax.linear_schedule(0.0, cfg.learning_rate, cfg.warmup)
  # The first step of a warm-up would have rate zero; it starts one step up.
  return optax.join_schedules(
    [lambda count: warmup(count + 1), after], [cfg.warmup]
  )


def make_optimizer(
  cfg: OptimizerConfig, steps: int, names: Names
) -> optax.GradientTransformation:
  """p <- p - rate (u + weight_decay p), u the direction of clipped gradients.

  Args:
    cfg: its config.
    steps: length of the run, for the schedule.
    names: logical axis names of every parameter, see `nn.variables.axis_names`.
  """
  matrices = jax.tree.map(_is_matrix, names, is_leaf=_is_names)
  return optax.chain(
    optax.clip_by_global_norm(cfg.clip) if cfg.clip else optax.identity(),
    OPTIMIZERS[cfg.name](cfg, names),
    optax.add_decayed_weights(cfg.weight_decay, matrices),
    optax.scale_by_learning_rate(make_schedule(cfg, steps)),
  )


def _is_names(node):
  return isinstance(node, tuple)


def _is_matrix(names: tuple) -> bool:
  """Two axes or more besides the one of stacked layers."""
  return len(_own(names)) >= 2


def _muon_axes(names):
  """Muon for matrices of the body, whose axes have names; Adam for the rest:

  embeddings, tables of positions, heads, vectors.
  """
  own = _own(names)
  if len(own) != 2 or None in own or 'vocab' in own:
    return None
  return optax.contrib.MuonDimensionNumbers(len(names) - 2, len(names) - 1)


def _own(names):
  """Axes besides the one of stacked layers."""
  return [name for name in names if name != 'layers']
