"""HRM-Text: its count, its cycles by hand, and where gradients are cut."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loopformer import core
from loopformer.nn.config import BlockConfig
from loopformer.nn.variables import count_parameters
from loopformer.zoo import FAMILIES, Plan, hrm_text, run
from tests.models import equations, f64, family_model

D = 8
BLOCK = BlockConfig(
  width=D, heads=2, hidden=12, norm_gain=False, gated=True, mask='causal'
)
SAME = ((2,), (2, 2))  # the same cut in both cycles
CFG = hrm_text.Config(vocab_size=7, block=BLOCK, layers=1)
INPUTS = jnp.array([[1, 2, 3, 4], [6, 0, 6, 0]])


def test_the_published_count():
  """Two tables, and 32 layers of five square projections and an MLP."""
  V, D, F = 151_808, 1536, 4096
  want = 2 * V * D + 32 * (5 * D * D + 3 * D * F)
  assert want == 1_447_821_312
  model = FAMILIES['hrm_text'].abstract(hrm_text.Config())
  assert count_parameters(model) == want
  assert hrm_text.Config().gradient_calls() == (1, 2)


@pytest.mark.parametrize(
  ('given', 'calls'),
  [((), (1, 1, 1)), ((3,), (1, 1, 3)), ((1, 2, 3, 4), (1, 2, 3))],
)
def test_numbers_are_filled_up_in_front_and_cut_behind(given, calls):
  cfg = dataclasses.replace(CFG, high_cycles=3, low_gradients=given)
  assert cfg.gradient_calls() == calls


def by_hand(model, cuts, cycles):
  """The published loops; low calls before the last `cuts` are detached."""
  context = model.embed(INPUTS)
  e_BTD = context.e_BTD
  high, low = e_BTD, jnp.broadcast_to(model.low_start[...], e_BTD.shape)
  for cycle in range(cycles):
    kept = cuts[min(cycle, len(cuts) - 1)]
    for call in range(model.cfg.low_cycles):
      low = model.norm(model.low(low + high)[0])
      if call < model.cfg.low_cycles - kept:
        low = jax.lax.stop_gradient(low)
    high = model.norm(model.high(high + low)[0])
  return model.readout({'low': low, 'high': high}, context)


def looped(model, cycles, counts=None):
  """The same by the library, each row as often as told."""
  plan = Plan(core.fixed_steps(counts), cycles)
  result, context = run(model, INPUTS, plan)
  return model.readout(result.state, context)


def gradients(read, model):
  """Outputs, and gradients of a weighted sum of them."""
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  def loss(params):
    logits = read(nnx.merge(graph, params, rest))
    return jnp.sum(
      logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)
    ), logits

  return jax.jit(jax.grad(loss, has_aux=True))(params)


def assert_close(ours, wants):
  for a, b in zip(*map(jax.tree.leaves, (ours, wants)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(b).max(), 1.0))


@pytest.mark.parametrize(
  'cuts',
  [(3, 1), (0, 3), *(pytest.param(n, marks=pytest.mark.slow) for n in SAME)],
)
def test_gradients_are_those_of_the_published_loops(cuts):
  cfg = dataclasses.replace(CFG, low_gradients=cuts)
  model = family_model('hrm_text', cfg)
  ours = gradients(lambda model: looped(model, 3), model)
  hand = lambda model: by_hand(model, cfg.gradient_calls(), 3)
  assert_close(ours, gradients(hand, model))


def test_rows_in_different_cycles_are_cut_by_themselves():
  """A row that has stopped a cycle earlier has the gradient it has alone."""
  model = family_model('hrm_text', CFG)
  ours = gradients(lambda m: looped(m, 2, jnp.array([1, 2])), model)

  def hand(model):
    one, two = (by_hand(model, (1, 2), cycles) for cycles in (1, 2))
    return jnp.stack([one[0], two[1]])

  assert_close(ours, gradients(hand, model))


def products(model, cycles, backward):
  """Matrix products in the program, those of its loops counted once."""
  read = lambda model: looped(model, cycles)
  program = (lambda m: gradients(read, m)) if backward else read
  jaxpr = jax.make_jaxpr(program)(model)
  kinds = [e.primitive.name for e in equations(jaxpr.jaxpr)]
  return kinds.count('dot_general')


def test_low_calls_that_never_carry_gradient_have_no_backward_pass():
  """One more of them costs its forward products alone."""
  short = dataclasses.replace(CFG, low_cycles=2, low_gradients=(1, 1))
  long = dataclasses.replace(short, low_cycles=3)
  counts = {
    (cfg.low_cycles, backward): products(
      family_model('hrm_text', cfg), 2, backward
    )
    for cfg in (short, long)
    for backward in (False, True)
  }
  forward = counts[3, False] - counts[2, False]
  assert forward > 0
  assert counts[3, True] - counts[2, True] == forward


def test_a_loop_without_low_calls_is_the_high_stack():
  cfg = dataclasses.replace(CFG, low_cycles=0)
  model = family_model('hrm_text', cfg)
  want = by_hand(model, (0, 0), 2)
  np.testing.assert_allclose(looped(model, 2), want, atol=1e-5)


def test_the_embedding_is_divided_by_its_deviation():
  cfg = dataclasses.replace(CFG, init_std=0.05)
  model = FAMILIES['hrm_text'].build(cfg, jax.random.key(0))
  e_BTD = model.embed(INPUTS).e_BTD
  want = 20 * f64(model.embedding.tokens.embedding)[INPUTS]
  np.testing.assert_allclose(e_BTD, want, rtol=1e-5)


def test_a_tied_head_has_as_many_classes_as_there_are_tokens():
  with pytest.raises(ValueError, match='^num_classes must be 0 or vocab_size'):
    hrm_text.Config(vocab_size=11, num_classes=3, tied=True)
