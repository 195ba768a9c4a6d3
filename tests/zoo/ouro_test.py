"""Ouro: exact counts, a decoder at one recurrence, and exits per token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loopformer import core
from loopformer.nn.block import Block
from loopformer.nn.config import BlockConfig
from loopformer.nn.variables import count_parameters
from loopformer.zoo import FAMILIES, Plan, feedforward, ouro, run
from loopformer.zoo.choices import make_rule
from tests.models import f64, family_model

D = 8
BLOCK = BlockConfig(
  width=D, heads=2, hidden=12, style='sandwich_branch', mask='causal'
)
CFG = ouro.Config(vocab_size=7, block=BLOCK, layers=2)
INPUTS = jnp.array([[1, 2, 3, 4], [6, 0, 6, 0]])


@pytest.mark.parametrize(
  ('layers', 'count'), [(24, 1_434_652_673), (48, 2_667_974_657)]
)
def test_published_counts(layers, count):
  model = FAMILIES['ouro'].abstract(ouro.Config(layers=layers))
  assert count_parameters(model) == count


def logits_after(model, steps):
  """What is read out after so many recurrences."""

  @jax.jit
  def looped(model):
    result, context = run(model, INPUTS, Plan(core.fixed_steps(), steps))
    return model.readout(result.state, context)

  return looped(model)


def test_one_recurrence_is_a_plain_decoder():
  model = family_model('ouro', CFG)
  cfg = feedforward.Config(vocab_size=7, block=BLOCK, layers=2)
  plain = nnx.clone(family_model('feedforward', cfg))
  plain.block, plain.head = model.block, model.head
  plain.final_norm = model.norm
  table = model.embedding.tokens.embedding[...] / D**0.5
  plain.embedding.tokens.embedding.set_value(table)
  np.testing.assert_allclose(
    logits_after(model, 1), logits_after(plain, 1), atol=1e-5
  )


class Identity(nnx.Module):
  """No norm."""

  def __call__(self, x_BTD):
    return x_BTD


def test_a_doubled_stack_is_two_recurrences_but_for_the_norm():
  """Equal without the norm that ends a recurrence, and not with it."""
  doubled = dataclasses.replace(CFG, layers=4)
  for norm, equal in ((Identity(), True), (None, False)):
    model = nnx.clone(family_model('ouro', CFG))
    twice = nnx.clone(family_model('ouro', doubled))
    twice.block = jax.tree.map(
      lambda x: jnp.tile(x, (2,) + (1,) * (x.ndim - 1)), model.block
    )
    for name in ('embedding', 'norm', 'gate', 'head'):
      setattr(twice, name, getattr(model, name))
    if norm is not None:
      model.norm, twice.norm = norm, norm
    ours, want = logits_after(twice, 2), logits_after(model, 4)
    assert np.allclose(ours, want, atol=1e-5) == equal


@pytest.mark.parametrize('quantile', [0.0, 0.3, 0.7, 1.0])
def test_a_token_exits_where_the_cdf_reaches_the_quantile(quantile):
  """From the gates of a run without exits, in NumPy."""
  model, R = family_model('ouro', CFG), 5
  heads = FAMILIES['ouro'].heads(CFG)
  spec = {'name': 'cdf', 'quantile': quantile}
  rule = make_rule(spec, heads, rows='token')

  @jax.jit
  def exits(model):
    result, _ = run(model, INPUTS, Plan(rule, R, core.none(), rows='token'))
    return result.steps_B

  @jax.jit
  def gates(model):
    trace = lambda state, args, _: heads['halt_token'](state, args)
    plan = Plan(core.fixed_steps(), R)
    return run(model, INPUTS, plan, trace=trace)[0].trace.values

  hazard_RBT, steps_BT = f64(gates(model)), np.asarray(exits(model))
  first = 1 - np.cumprod(1 - hazard_RBT, 0)
  hit = first >= quantile if quantile < 1 else np.zeros_like(first, bool)
  # A token that has stopped is read by the others as it is, so that only the
  # first exits are known from the full run.
  want_BT = np.where(hit.any(0), hit.argmax(0) + 1, R)
  earliest = want_BT == want_BT.min()
  np.testing.assert_array_equal(steps_BT[earliest], want_BT[earliest])
  assert steps_BT.min() == want_BT.min()


def test_a_sample_exits_by_its_last_token():
  model, heads = family_model('ouro', CFG), FAMILIES['ouro'].heads(CFG)
  state = model.embed(INPUTS).e_BTD
  per_token = heads['halt_token'](state, (model, None))
  per_sample = heads['halt'](state, (model, None))
  np.testing.assert_allclose(per_sample, per_token[:, -1], rtol=1e-6)
  w, b = f64(model.gate.kernel)[:, 0], f64(model.gate.bias)
  want = 1 / (1 + np.exp(-(f64(state) @ w + b)))
  np.testing.assert_allclose(per_token, want, atol=1e-6)


@pytest.mark.parametrize('fields, std', [({}, 0.02), ({'init_std': 0.1}, 0.1)])
def test_first_deviations(fields, std):
  block = dataclasses.replace(BLOCK, width=64)
  cfg = ouro.Config(vocab_size=200, block=block, **fields)
  model = FAMILIES['ouro'].build(cfg, jax.random.key(0))
  assert isinstance(model.block, Block)
  for array in (
    model.embedding.tokens.embedding,
    model.head.kernel,
    model.block.layers.attention.layer.qkv.kernel,
  ):
    assert f64(array).std() == pytest.approx(std, rel=0.03)


def test_a_wrong_deviation_is_refused():
  with pytest.raises(ValueError, match='init_std must be > 0, got 0'):
    ouro.Config(init_std=0)
