"""Training costs against traced gradients of the losses of the train step."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from loopformer.plan.outline import outline
from loopformer.plan.training import schedule_of, training_cost
from loopformer.train.objectives import Batch, Objective, loss_sums
from loopformer.train.supervision import Supervision, fresh, supervise
from loopformer.zoo.choices import LoopConfig, make_plan
from tests.models import row_keys
from tests.plan.dots import dot_flops
from tests.plan.tiny import B, tiny, tokens

R = 5
LAST_2 = {'name': 'last_k', 'k': 2}
REMAT = {'name': 'full', 'remat': 2}
IMPLICIT = {'name': 'implicit', 'max_steps': 7}
# Adjoint, halt rule, objective, and how often each `while_loop` runs.
CASES = {
  'full': ({'name': 'full'}, {}, 'last', []),
  'last two': (LAST_2, {}, 'last', [R - 2]),
  'rematerialised': (REMAT, {}, 'last', []),
  'phantom': ({'name': 'phantom', 'k': 2, 'tau': 0.5}, {}, 'last', [R]),
  'implicit': (IMPLICIT, {}, 'last', [R, 7]),
  'implicit, rematerialised': ({**IMPLICIT, 'remat': 1}, {}, 'last', [R, 7]),
  'every, rematerialised': (REMAT, {}, 'every', []),
  'ACT': ({'name': 'full'}, {'name': 'act'}, 'last', []),
  'PonderNet': ({'name': 'full'}, {'name': 'ponder'}, 'expected', []),
  'exit CDF': ({'name': 'full'}, {}, 'expected_exit', []),
  'its gate alone': ({'name': 'full'}, {}, 'exit_gate', [R]),
  'arg-max': ({'name': 'full'}, {'name': 'argmax'}, 'last', []),
  'searched': (LAST_2, {'name': 'kl'}, 'last', [R, R - 2]),
}


def batch_of(cfg):
  return Batch(tokens(cfg), tokens(cfg), row_keys(B), None)


@pytest.mark.parametrize('case', CASES)
def test_losses(case):
  adjoint, halt, objective, trips = CASES[case]
  family, cfg, model, made = tiny('universal')
  halt = halt or {'name': 'fixed_steps'}
  loop = LoopConfig(max_steps=R, adjoint=adjoint, halt=halt)
  heads = family.heads(cfg)
  plan = make_plan(loop, heads)
  how = Objective(objective, plan, 0.1, 0.2)
  how = how._replace(exit_head=heads['halt_token'])
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  def loss(params, rest):
    whole = nnx.merge(graph, params, rest)
    return loss_sums(whole, batch_of(cfg), how, 1.0, B)

  gradient = jax.grad(loss, has_aux=True)
  cost = training_cost(made, R, adjoint=adjoint, halt=halt, objective=objective)
  counted = dot_flops(gradient, params, rest, trips=trips)
  if 'exit' in objective:  # The mean exit is a sum over recurrences.
    counted -= 2 * R * B * cfg.seq_len
  if adjoint['name'] != 'implicit':
    assert counted == B * cost.total.total
  else:
    # The injection reads a constant state, of which nothing is asked back.
    assert counted == pytest.approx(B * cost.total.total, rel=0.01)


def test_numbers_that_are_read_in_have_no_gradient():
  """Of the read-in only the weights have one; the loss is a squared error."""
  family, cfg, model, made = tiny('recurrent_depth', 2)
  loop = LoopConfig(max_steps=R, adjoint=LAST_2)
  plan = make_plan(loop, family.heads(cfg))
  how = Objective('every', plan, 0.1, 0.2)
  graph, params, rest = nnx.split(model, nnx.Param, ...)
  labels_BT = jnp.zeros((B, cfg.seq_len))
  batch = Batch(tokens(cfg), labels_BT, row_keys(B), None)

  def loss(params, rest):
    return loss_sums(nnx.merge(graph, params, rest), batch, how, 1.0, B)

  gradient = jax.grad(loss, has_aux=True)
  cost = training_cost(made, R, adjoint=LAST_2, objective='every')
  counted = dot_flops(gradient, params, rest, trips=[R - 2])
  assert counted == B * cost.total.total


@pytest.mark.parametrize('name', ['hrm', 'fprm'])
def test_deep_supervision(name):
  """One segment of two recurrences, the Q-terms with it."""
  family, cfg, model, made = tiny(name)
  halt = {'name': 'q'}
  loop = LoopConfig(max_steps=R, halt=halt)
  plan = make_plan(loop, family.heads(cfg))
  how = Supervision(family, plan, 2, 'softmax')
  held = jax.eval_shape(lambda m: fresh(how, m, batch_of(cfg)), model)
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  def loss(params, rest, held):
    return supervise(how, nnx.merge(graph, params, rest), None, held, B)

  gradient = jax.grad(loss, has_aux=True)
  cost = training_cost(
    made,
    2,
    adjoint=loop.adjoint,
    halt=halt,
    objective='supervision',
    terms=family.terms,
  )
  # HRM looks one segment ahead, in a loop without gradient.
  counted = dot_flops(gradient, params, rest, held)
  assert counted == B * cost.total.total


def test_without_truncation_a_step_is_three_passes():
  *_, made = tiny('recurrent_depth')
  cost = training_cost(made, R, adjoint={'name': 'full'})
  assert cost.total.total == 3 * made.forward(R).total
  cut = training_cost(made, R, adjoint=LAST_2)
  spared = (R - 2) * 2 * made.step().total
  assert cost.total.total - cut.total.total == spared


def test_low_calls_with_gradient_depend_on_the_cycle():
  _, cfg, *_ = tiny('hrm_text')
  cfg = dataclasses.replace(cfg, high_cycles=3, low_gradients=(3, 2))
  made = outline('hrm_text', cfg, 4)
  low, high = (call.cost.total for call in made.recurrence)
  back = [made.backward(t).total for t in range(4)]
  # Filled up with ones in front; the last number is for all later cycles.
  assert back == [n * low + high for n in (1, 3, 2, 2)]


@pytest.mark.parametrize('adjoint', [LAST_2, {'name': 'one_step', 'remat': 1}])
def test_fewer_recurrences_than_the_window(adjoint):
  plan = schedule_of(adjoint, 1)
  assert (plan.free, plan.gradient) == (0, 1)
