"""Optimisers, schedules and clipping from optax, by name."""

import dataclasses
from typing import Any

import jax
import optax

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
    b2: second momentum.
    epsilon: added to the denominator.
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
    for name in ('b1', 'b2', 'cooldown', 'floor'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
          f'{name} must be in [0, 1], got {getattr(self, name)}.'
        )


def _adam(cfg, rate, mask, _):
  return optax.adamw(
    rate, cfg.b1, cfg.b2, cfg.epsilon, weight_decay=cfg.weight_decay, mask=mask
  )


def _lion(cfg, rate, mask, _):
  return optax.lion(
    rate, cfg.b1, cfg.b2, weight_decay=cfg.weight_decay, mask=mask
  )


def _muon(cfg, rate, mask, names):
  return optax.contrib.muon(
    rate,
    beta=cfg.b2,
    weight_decay=cfg.weight_decay,
    weight_decay_mask=mask,
    adam_b1=cfg.b1,
    adam_b2=cfg.b2,
    adam_weight_decay=cfg.weight_decay,
    muon_weight_dimension_numbers=jax.tree.map(
      _muon_axes, names, is_leaf=lambda x: isinstance(x, tuple)
    ),
    consistent_rms=0.2,
  )


def _sgd(cfg, rate, mask, _):
  return optax.chain(
    optax.add_decayed_weights(cfg.weight_decay, mask),
    optax.sgd(rate, momentum=cfg.b1 or None),
  )


def _adafactor(cfg, rate, mask, _):
  return optax.adafactor(
    rate, weight_decay_rate=cfg.weight_decay or None, weight_decay_mask=mask
  )


OPTIMIZERS = {
  'adamw': _adam,
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
  """Clipping, then the optimiser under its schedule.

  Args:
    cfg: its config.
    steps: length of the run, for the schedule.
    names: logical axis names of every parameter, see `nn.variables.axis_names`.
  """
  mask = jax.tree.map(_is_matrix, names, is_leaf=lambda x: isinstance(x, tuple))
  update = OPTIMIZERS[cfg.name](cfg, make_schedule(cfg, steps), mask, names)
  clip = optax.clip_by_global_norm(cfg.clip) if cfg.clip else optax.identity()
  return optax.chain(clip, update)


def _is_matrix(names: tuple) -> bool:
  """Two axes or more besides the one of stacked layers."""
  return len([name for name in names if name != 'layers']) >= 2


def _muon_axes(names):
  """Muon for matrices of the body; embeddings and vectors go to Adam."""
  if not _is_matrix(names) or 'vocab' in names or len(names) > 3:
    return None
  rank = len(names)
  return optax.contrib.MuonDimensionNumbers(rank - 2, rank - 1)
