"""Halt rules, adjoints, solvers and depth samplers by name.

A choice is a mapping `{'name': ..., **arguments}`; the dict literals below
list what there is. Errors name the field, the value and what is allowed.
"""

import dataclasses
import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Union

import jax
import jax.numpy as jnp

from loopformer import core
from loopformer.core import adjoints, ponder, sampling
from loopformer.nn.config import require, require_one_of
from loopformer.zoo.family import Head, Plan

Spec = Mapping[str, Any]
LARGEST = sys.float_info.max


class RuleEntry(NamedTuple):
  """A halt rule and the head it reads, if any."""

  make: Callable[..., core.HaltRule]
  head: str | None = None


HALT_RULES = {
  'fixed_steps': RuleEntry(core.fixed_steps),
  'fixed_point': RuleEntry(core.fixed_point),
  'second_difference': RuleEntry(core.second_difference),
  'cosine': RuleEntry(core.cosine),
  'act': RuleEntry(core.act, 'halt'),
  'ponder': RuleEntry(ponder.ponder, 'halt'),
  'cdf': RuleEntry(core.cdf_exceeds, 'halt'),
  'entropy': RuleEntry(core.entropy_below, 'logits'),
  'entropy_stable': RuleEntry(core.entropy_stable, 'logits'),
  'kl': RuleEntry(core.kl_stable, 'logits'),
  'argmax': RuleEntry(core.argmax_stable, 'logits'),
  'q': RuleEntry(core.q_halts, 'q'),
  'q_continue': RuleEntry(core.q_halts_over_continue, 'q'),
  'step_size_below': RuleEntry(core.step_size_below),
}
COMBINED_RULES = {'any_of': core.any_of, 'all_of': core.all_of}
WRAPPED_RULES = {
  'after': core.after,
  'at_multiples': core.at_multiples,
  'explore': core.explore,
}
# Counts that a config gives as one number, where the functions take any array.
COUNTS = {'count': int | None, 'free_steps': int | jax.Array | None}
# Heads with one value per row; halting per token reads `<name>_token`.
ROW_HEADS = ('halt', 'q')
ADJOINTS = {
  'none': adjoints.none,
  'full': adjoints.full,
  'last_k': adjoints.last_k,
  'one_step': adjoints.one_step,
  'implicit': adjoints.implicit,
  'phantom': adjoints.phantom,
}
SOLVERS = {
  'picard': core.picard,
  'damped': core.damped,
  'patience_damped': core.patience_damped,
  'anderson': core.anderson,
}
SAMPLERS = {
  'fixed': sampling.fixed,
  'uniform_set': sampling.uniform_set,
  'clipped_poisson': sampling.clipped_poisson,
  'truncated_poisson': sampling.truncated_poisson,
  'log_normal_poisson': sampling.log_normal_poisson,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopConfig:
  """How a model's loop runs.

  Attributes:
    max_steps: recurrences, or their cap under a halt rule; of sampled depths
      only those of the `full` adjoint are capped.
    halt: a halt rule; `any_of` and `all_of` take `rules`, those of
      `WRAPPED_RULES` a `rule` besides their arguments.
    adjoint: the gradient rule in training.
    solver: how to iterate.
    depth: a sampler of training depths, or None for `max_steps` always.
    ramp: how its mean, and the window of `last_k` with it, grow in training:
      arguments of `loopformer.core.sampling.ramped`, or None.
    norm: norm of the reported residual.
    rows: what halts, a `sample` or a `token`.
  """

  max_steps: int = 8
  halt: Spec = dataclasses.field(
    default_factory=lambda: {'name': 'fixed_steps'}
  )
  adjoint: Spec = dataclasses.field(default_factory=lambda: {'name': 'full'})
  solver: Spec = dataclasses.field(default_factory=lambda: {'name': 'picard'})
  depth: Spec | None = None
  ramp: Spec | None = None
  norm: str = 'l2'
  rows: str = 'sample'

  def __post_init__(self):
    require('max_steps', self.max_steps, at_least=1)
    require_one_of('rows', self.rows, ('sample', 'token'))
    require_one_of('norm', self.norm, core.rows.NORMS)
    check_rule(self.halt)
    make_adjoint(self.adjoint)
    make_solver(self.solver)
    if self.depth is not None:
      make_sampler(self.depth)
    if self.ramp is not None:
      _bind('ramp', 'ramp', sampling.check_ramp, (), dict(self.ramp))
      end = _mean_depth(self.depth or {})
      if self.ramp.get('start', 0) > end:
        raise ValueError(
          f'ramp.start must be <= {end}, the depth that is reached, got '
          f'{self.ramp["start"]}.'
        )


def make_adjoint(spec: Spec) -> adjoints.Adjoint:
  """An adjoint by name; `implicit` takes a `solver` choice of its own."""
  arguments = dict(spec)
  if arguments.get('name') == 'implicit' and 'solver' in arguments:
    check_value('adjoint.solver', Mapping, arguments['solver'])
    arguments['solver'] = make_solver(arguments['solver'])
  return _call('adjoint', arguments, ADJOINTS)


def make_solver(spec: Spec) -> core.Solver:
  """A solver by name."""
  return _call('solver', spec, SOLVERS)


def make_sampler(spec: Spec) -> sampling.Sampler:
  """A depth sampler by name."""
  return _call('depth', spec, SAMPLERS)


def make_rule(
  spec: Spec, heads: Mapping[str, Head], *, rows: str = 'sample'
) -> core.HaltRule:
  """A halt rule by name, bound to the heads of a model.

  Args:
    spec: the choice.
    heads: what the model offers, see `Family.heads`.
    rows: `token` binds the per-token heads of `ROW_HEADS`.

  Raises:
    ValueError: for an unknown rule or argument, or a head the model lacks.
  """
  arguments = dict(spec)
  allowed = (*HALT_RULES, *COMBINED_RULES, *WRAPPED_RULES)
  name = _known('halt', arguments.pop('name', None), allowed)
  if name in COMBINED_RULES:
    parts = arguments.pop('rules', ())
    _no_more(name, arguments, ['rules'])
    check_value('halt.rules', Sequence[Mapping], parts)
    if not parts:
      raise ValueError(f'halt.rules must hold at least one rule for {name!r}.')
    rules = (make_rule(part, heads, rows=rows) for part in parts)
    return COMBINED_RULES[name](*rules)
  if name in WRAPPED_RULES:
    inner = arguments.pop('rule', {})
    check_value('halt.rule', Mapping, inner)
    arguments['rule'] = make_rule(inner, heads, rows=rows)
    return _bind('halt', name, WRAPPED_RULES[name], (), arguments)
  entry = HALT_RULES[name]
  if entry.head is None:
    return _bind('halt', name, entry.make, (), arguments)
  per_token = rows == 'token' and entry.head in ROW_HEADS
  wanted = entry.head + '_token' * per_token
  if wanted not in heads:
    raise ValueError(
      f'halt = {name!r} reads the head {wanted!r}, which this model does '
      f'not have; it has {sorted(heads)}.'
    )
  return _bind('halt', name, entry.make, (heads[wanted],), arguments)


def check_rule(spec: Spec) -> None:
  """Raises `ValueError` for a rule that could be bound to no model."""
  read = {entry.head for entry in HALT_RULES.values() if entry.head}
  make_rule(spec, {name: lambda state, args: None for name in read})


def ramped_mean(loop: LoopConfig, progress: Any) -> Any:
  """Mean depth after a share of the training; None without a ramp."""
  if loop.depth is None or loop.ramp is None:
    return None
  return sampling.ramped(_mean_depth(loop.depth), progress, **loop.ramp)


def _mean_depth(depth: Spec) -> float:
  """What the mean of a ramp grows to."""
  mean = depth.get('mean', depth.get('count'))
  if mean is None:
    raise ValueError(f'ramp needs a depth with a mean, got {dict(depth)}.')
  return mean


def make_plan(
  loop: LoopConfig,
  heads: Mapping[str, Head],
  *,
  depth_B: Any = None,
  free_B: Any = None,
) -> Plan:
  """The loop as configured, for training.

  Args:
    loop: its config.
    heads: heads of the model.
    depth_B: sampled recurrences per row, if depth is sampled.
    free_B: how many of them carry no gradient under `last_k`; None for all
      but the last k.
  """
  rule = make_rule(loop.halt, heads, rows=loop.rows)
  adjoint, max_steps = loop.adjoint, loop.max_steps
  if free_B is not None:
    adjoint = {**adjoint, 'free_steps': free_B}
  if depth_B is not None:
    rule = core.any_of(rule, core.fixed_steps(depth_B))
    if loop.adjoint['name'] != 'full':
      max_steps = jnp.max(depth_B)
  return Plan(
    rule,
    max_steps,
    make_adjoint(adjoint),
    make_solver(loop.solver),
    loop.norm,
    loop.rows,
  )


def _known(field, name, allowed):
  if not isinstance(name, str) or name not in allowed:
    raise ValueError(
      f'{field}.name must be one of {tuple(allowed)}, got {name!r}'
      f'{nearest(name, allowed)}.'
    )
  return name


def nearest(name: Any, allowed: Any) -> str:
  """'; did you mean ...?' if a valid name is close, else nothing."""
  close = difflib.get_close_matches(str(name), list(allowed), 1)
  return f'; did you mean {close[0]!r}?' if close else ''


def _call(field, spec, table):
  arguments = dict(spec)
  name = _known(field, arguments.pop('name', None), table)
  return _bind(field, name, table[name], (), arguments)


def _bind(field, name, make, heads, arguments):
  """Calls `make`, naming any argument it does not take, or not so."""
  parameters = inspect.signature(make).parameters
  taken = list(parameters)[len(heads) :]
  for key, value in arguments.items():
    if key not in taken:
      raise ValueError(
        f'{field}.{key} is not an argument of {name!r}, which takes '
        f'{taken}{nearest(key, taken)}.'
      )
    hint = parameters[key].annotation
    check_value(
      f'{field}.{key}', COUNTS.get(key, Any) if hint is Any else hint, value
    )
  try:
    return make(*heads, **arguments)
  except TypeError as error:
    raise ValueError(f'{field} = {name!r}: {error}.') from None
  except ValueError as error:
    raise ValueError(f'{field}.{error}') from None


def check_value(path: str, hint: Any, value: Any) -> None:
  """Raises `ValueError` unless a value is what its annotation asks for.

  An int passes for a float and a list for a tuple; a bool is no number, and no
  float may be infinite or NaN.
  """
  if not _fits(hint, value):
    raise ValueError(f'{path} must be {_told(hint)}, got {value!r}.')
  for item in value if isinstance(value, (list, tuple)) else [value]:
    if isinstance(item, (int, float)) and not abs(item) <= LARGEST:
      raise ValueError(f'{path} must be finite, got {item}.')


def _fits(hint, value):
  origin, options = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True
  if origin in (Union, types.UnionType):
    return any(_fits(option, value) for option in options)
  if origin in (tuple, Sequence):
    listed = isinstance(value, (list, tuple))
    return listed and all(_fits(options[0], item) for item in value)
  if isinstance(value, bool):
    return hint is bool
  return isinstance(value, (int, float) if hint is float else origin or hint)


def _told(hint):
  """An annotation in words."""
  origin, options = typing.get_origin(hint), typing.get_args(hint)
  if origin in (Union, types.UnionType):
    return ' or '.join(_told(option) for option in options)
  if origin in (tuple, Sequence):
    return f'a list of {_told(options[0])}'
  names = {Mapping: 'a mapping', jax.Array: 'an array', type(None): 'None'}
  return names.get(origin or hint) or hint.__name__


def _no_more(name, arguments, taken):
  for key in arguments:
    raise ValueError(
      f'halt.{key} is not an argument of {name!r}, which takes '
      f'{taken}{nearest(key, taken)}.'
    )
