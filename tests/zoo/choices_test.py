"""Every choice builds by name; what does not is refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.zoo import choices
from loopformer.zoo.choices import LoopConfig

HEADS = {
  'logits': lambda state, args: state,
  'halt': lambda state, args: jnp.full(state.shape[0], 0.4),
  'halt_token': lambda state, args: jnp.full(state.shape[:2], 0.4),
  'q': lambda state, args: state[:, 0, :2],
  'q_token': lambda state, args: state[..., :2],
}
ARGUMENTS = {
  'cdf': {'quantile': 0.9},
  'second_difference': {'rtol': 0.03},
  'entropy': {'threshold': 0.1},
  'any_of': {'rules': [{'name': 'fixed_steps', 'count': 2}, {'name': 'act'}]},
  'all_of': {'rules': [{'name': 'fixed_steps', 'count': 2}, {'name': 'kl'}]},
  'after': {'count': 2, 'rule': {'name': 'argmax', 'patience': 1}},
  'at_multiples': {'k': 2, 'rule': {'name': 'act'}},
  'explore': {'probability': 0.1, 'longest': 16, 'rule': {'name': 'q'}},
  'last_k': {'k': 2},
  'phantom': {'k': 2, 'tau': 0.5},
  'implicit': {'solver': {'name': 'anderson', 'history': 3}},
  'damped': {'beta': 0.5},
  'fixed': {'count': 3},
  'uniform_set': {'values': [2, 4]},
  'clipped_poisson': {'mean': 3.0, 'low': 1, 'high': 4},
  'truncated_poisson': {'mean': 3.0},
  'log_normal_poisson': {'mean': 3.0},
}
RULES = (
  *choices.HALT_RULES,
  *choices.COMBINED_RULES,
  *choices.WRAPPED_RULES,
)


def spec(name):
  return {'name': name, **ARGUMENTS.get(name, {})}


def halve(state, aux, args, info):
  del args, info
  return state / 2 + 1, aux


@pytest.mark.parametrize('name', RULES)
@pytest.mark.parametrize('rows', ['sample', 'token'])
def test_every_rule_builds_and_fits_the_loop(name, rows):
  rule = choices.make_rule(spec(name), HEADS, rows=rows)
  row_ndim = 2 if rows == 'token' else 1
  state = jnp.zeros((2, 3, 4))
  keys = jax.random.split(jax.random.key(0), state.shape[:row_ndim])
  result = jax.eval_shape(
    lambda: core.iterate(
      halve,
      state,
      (),
      halt=rule,
      max_steps=3,
      row_ndim=row_ndim,
      keys=keys,
      solver=core.patience_damped(),
    )
  )
  assert result.steps_B.shape == state.shape[:row_ndim]
  LoopConfig(halt=spec(name))


@pytest.mark.parametrize('name', choices.ADJOINTS)
def test_every_adjoint_builds(name):
  assert callable(choices.make_adjoint(spec(name)))
  LoopConfig(adjoint=spec(name))


@pytest.mark.parametrize('name', choices.SOLVERS)
def test_every_solver_builds(name):
  assert isinstance(choices.make_solver(spec(name)), core.Solver)
  LoopConfig(solver=spec(name))


@pytest.mark.parametrize('name', choices.SAMPLERS)
def test_every_sampler_draws(name):
  sampler = choices.make_sampler(spec(name))
  drawn_B = jax.eval_shape(lambda: sampler(jax.random.key(0), 4))
  assert (drawn_B.shape, drawn_B.dtype) == ((4,), jnp.int32)
  LoopConfig(depth=spec(name))


POISSON = {'name': 'truncated_poisson', 'mean': 4.0}
WRONG = [
  ({'halt': {'name': 'fixed_piont'}}, "got 'fixed_piont'; did you mean"),
  ({'halt': {'name': 'fixed_point', 'rtoll': 1}}, "did you mean 'rtol'?"),
  ({'halt': {'name': 'fixed_point', 'rtol': -1.0}}, 'halt.rtol must be >= 0'),
  ({'halt': {'name': 'cdf'}}, "halt = 'cdf': "),
  ({'halt': {}}, 'halt.name must be one of'),
  ({'halt': {'name': ['q']}}, "halt.name must be one of ('fixed_steps'"),
  (
    {'halt': {'name': 'after', 'count': 2, 'rule': 'act'}},
    "halt.rule must be a mapping, got 'act'.",
  ),
  (
    {'halt': {'name': 'any_of', 'rules': {'name': 'act'}}},
    'halt.rules must be a list of a mapping, got {',
  ),
  (
    {'halt': {'name': 'fixed_steps', 'count': '3'}},
    "halt.count must be int or None, got '3'.",
  ),
  (
    {'halt': {'name': 'fixed_point', 'rtol': float('nan')}},
    'halt.rtol must be finite, got nan.',
  ),
  (
    {'halt': {'name': 'fixed_point', 'norm': 2}},
    'halt.norm must be str, got 2.',
  ),
  (
    {'halt': {'name': 'entropy', 'threshold': 'x'}},
    "halt.threshold must be float, got 'x'.",
  ),
  (
    {'halt': {'name': 'ponder', 'sample': 1}},
    'halt.sample must be bool, got 1.',
  ),
  ({'halt': {'name': 'any_of'}}, 'halt.rules must hold at least one rule'),
  (
    {'halt': {'name': 'any_of', 'rule': {'name': 'act'}}},
    "halt.rule is not an argument of 'any_of'",
  ),
  (
    {'halt': {'name': 'after', 'counts': 3, 'rule': {'name': 'act'}}},
    "halt.counts is not an argument of 'after'",
  ),
  (
    {'halt': {'name': 'after', 'count': -1, 'rule': {'name': 'act'}}},
    'halt.count must be >= 0, got -1.',
  ),
  ({'halt': {'name': 'after', 'rule': {'name': 'act'}}}, "halt = 'after': "),
  (
    {'halt': {'name': 'at_multiples', 'k': 0, 'rule': {'name': 'act'}}},
    'halt.k must be >= 1, got 0.',
  ),
  ({'halt': {'name': 'explore', 'probability': 0.1}}, 'halt.name must be one'),
  (
    {
      'halt': {
        'name': 'explore',
        'probability': 2.0,
        'longest': 16,
        'rule': {'name': 'q'},
      }
    },
    'halt.probability must be in [0, 1], got 2.0.',
  ),
  (
    {
      'halt': {
        'name': 'explore',
        'probability': 0.1,
        'long': 16,
        'rule': {'name': 'q'},
      }
    },
    "did you mean 'longest'?",
  ),
  (
    {'halt': {'name': 'step_size_below', 'threshold': 2.0}},
    'halt.threshold must be in (0, 1), got 2.0.',
  ),
  ({'adjoint': {'name': 'ful'}}, "did you mean 'full'?"),
  (
    {'adjoint': {'name': 'full', 'remat': 1.5}},
    'adjoint.remat must be int, got 1.5.',
  ),
  (
    {'adjoint': {'name': 'last_k', 'k': 2.5}},
    'adjoint.k must be int, got 2.5.',
  ),
  (
    {'adjoint': {'name': 'last_k', 'k': 2, 'free_steps': '1'}},
    "adjoint.free_steps must be int or an array or None, got '1'.",
  ),
  (
    {'adjoint': {'name': 'implicit', 'solver': 'picard'}},
    "adjoint.solver must be a mapping, got 'picard'.",
  ),
  (
    {'adjoint': {'name': 'implicit', 'rtol': True}},
    'adjoint.rtol must be float or None, got True.',
  ),
  ({'adjoint': {'name': 'last_k', 'k': 0}}, 'adjoint.k must be >= 1, got 0.'),
  (
    {'adjoint': {'name': 'implicit', 'solver': {'name': 'picrad'}}},
    "did you mean 'picard'?",
  ),
  (
    {'solver': {'name': 'damped', 'beta': 2.0}},
    'solver.beta must be in (0, 1]',
  ),
  (
    {'solver': {'name': 'anderson', 'history': 2.5}},
    'solver.history must be int, got 2.5.',
  ),
  (
    {'depth': {'name': 'uniform_set', 'values': [1, 2.0]}},
    'depth.values must be a list of int, got [1, 2.0].',
  ),
  ({'depth': {'name': 'fixed', 'count': 0}}, 'depth.count must be > 0, got 0.'),
  ({'ramp': {}}, 'ramp needs a depth with a mean, got {}.'),
  (
    {'ramp': {}, 'depth': {'name': 'uniform_set', 'values': (1, 2)}},
    'ramp needs a depth with a mean',
  ),
  (
    {'ramp': {'start': 3}, 'depth': {'name': 'fixed', 'count': 2}},
    'ramp.start must be <= 2, the depth that is reached, got 3.',
  ),
  ({'ramp': {'shape': 'up'}, 'depth': POISSON}, 'ramp.shape must be one of'),
  ({'ramp': {'ovr': 0.5}, 'depth': POISSON}, "did you mean 'over'?"),
  ({'max_steps': 0}, 'max_steps must be >= 1, got 0.'),
  ({'rows': 'batch'}, "rows must be one of ('sample', 'token'), got 'batch'."),
  ({'norm': 'l1'}, "got 'l1'."),
]


@pytest.mark.parametrize(('fields', 'part'), WRONG)
def test_errors_are_one_line(fields, part):
  with pytest.raises(ValueError) as error:
    LoopConfig(**fields)
  message = str(error.value)
  assert part in message
  assert '\n' not in message
  assert message[-1] in '.?'


def test_an_int_passes_for_a_float():
  LoopConfig(halt={'name': 'fixed_point', 'rtol': 1, 'atol': 0})
  LoopConfig(adjoint={'name': 'implicit', 'rtol': None, 'max_steps': 9})


@pytest.mark.parametrize('rows', ['sample', 'token'])
@pytest.mark.parametrize(
  ('name', 'head'), [('act', 'halt'), ('q', 'q'), ('q_continue', 'q')]
)
def test_a_head_that_the_model_lacks_is_named(name, head, rows):
  with pytest.raises(ValueError) as error:
    choices.make_rule({'name': name}, {'logits': HEADS['logits']}, rows=rows)
  head += '_token' * (rows == 'token')
  assert str(error.value) == (
    f'halt = {name!r} reads the head {head!r}, which this model does not '
    "have; it has ['logits']."
  )


def test_wrapped_rules_take_their_arguments_by_name():
  """Five halvings towards 2 and the q head: halts in the second window."""
  rule = choices.make_rule(
    {
      'name': 'at_multiples',
      'k': 3,
      'rule': {'name': 'after', 'count': 4, 'rule': {'name': 'q'}},
    },
    {'q': lambda state, args: state - 0.5},
  )
  result = core.iterate(
    halve, jnp.zeros((1, 2)), (), halt=rule, max_steps=9, adjoint=core.none()
  )
  np.testing.assert_array_equal(result.steps_B, [6])


def steps_of(loop, depth_B):
  """Steps that rows of the given sampled depths make."""
  plan = choices.make_plan(loop, HEADS, depth_B=depth_B)
  result = core.iterate(
    halve,
    jnp.zeros((3, 2)),
    (),
    halt=plan.halt,
    max_steps=plan.max_steps,
    adjoint=plan.adjoint,
  )
  return result.steps_B


@pytest.mark.parametrize(
  'adjoint', [{'name': 'full'}, {'name': 'last_k', 'k': 2}]
)
def test_sampled_depths_and_rules_bound_the_steps_together(adjoint):
  depth_B = jnp.array([1, 3, 5])
  loop = LoopConfig(max_steps=6, adjoint=adjoint)
  np.testing.assert_array_equal(steps_of(loop, depth_B), depth_B)
  for halt in (
    {'name': 'fixed_steps', 'count': 2},
    {'name': 'fixed_point', 'rtol': 0.4},
  ):
    # From 0 the states are 1, 1.5: a residual of 1/3 at the second step.
    loop = LoopConfig(max_steps=6, adjoint=adjoint, halt=halt)
    np.testing.assert_array_equal(steps_of(loop, depth_B), [1, 2, 2])
