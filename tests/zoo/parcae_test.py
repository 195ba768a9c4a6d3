"""Parcae: exact counts, closed forms at the start, depth of each sequence."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from loopformer import core
from loopformer.nn.variables import count_parameters
from loopformer.zoo import FAMILIES, Plan, parcae, run
from loopformer.zoo.family import begin
from tests.models import f64, family_model, info, row_keys

D = 32
BLOCK = parcae.published_block(width=D, heads=2, hidden=48)
SMALL = parcae.Config(vocab_size=40, block=BLOCK, prelude=1, core=1, coda=1)
INPUTS = jnp.array([[1, 2, 3, 4], [6, 0, 6, 0], [5, 5, 5, 5]])
PUBLISHED = [
  (768, 6, 3072, 2, 144_323_136, 0.52),
  (1024, 8, 4096, 4, 388_003_328, 0.52),
  (1280, 10, 5120, 6, 776_655_680, 0.49),
  (1536, 12, 6144, 8, 1_338_591_744, 0.45),
]
A = math.sqrt(1 / 5)
DELTA = math.log(5) / 2


@pytest.mark.parametrize(
  ('width', 'heads', 'hidden', 'layers', 'count', 'share'), PUBLISHED
)
def test_published_counts(width, heads, hidden, layers, count, share):
  cfg = parcae.Config(
    block=parcae.published_block(width=width, heads=heads, hidden=hidden),
    prelude=layers,
    core=layers,
    coda=layers,
  )
  model = FAMILIES['parcae'].abstract(cfg)
  assert count_parameters(model) == count
  tables = sum(x.size for x in jax.tree.leaves(model.value_embedding.tables))
  assert tables / count == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize(
  ('injection', 'gain', 'limit'),
  [
    ('diagonal_euler', DELTA, 1.45575),
    ('diagonal_free', DELTA, 1.45575),
    ('diagonal_zoh', 1 - A, 1.0),
  ],
)
def test_closed_forms_at_the_start(injection, gain, limit):
  """Layers are the identity: s_T = a^T s_0 + gain (1 - a^T) / (1 - a) e."""
  cfg = dataclasses.replace(SMALL, injection=injection)
  model = FAMILIES['parcae'].build(cfg, jax.random.key(0))
  state, context = begin(model, INPUTS, row_keys(3))
  step = jax.jit(lambda m, s: m.step(s, (), context, info([0, 0, 0]))[0])
  s_0, e = f64(state), f64(context.e_BTD)
  for t in range(1, 31):
    state = step(model, state)
    power = A**t
    want = power * s_0 + gain * (1 - power) / (1 - A) * e
    np.testing.assert_allclose(state, want, rtol=1e-6, atol=1e-6)
  assert gain / (1 - A) == pytest.approx(limit, abs=5e-6)
  np.testing.assert_allclose(state, limit * e, rtol=1e-5, atol=1e-5)


def test_the_first_deviations_are_those_published():
  model = FAMILIES['parcae'].build(SMALL, jax.random.key(0))
  std, layers = math.sqrt(2 / (5 * D)), model.prelude.layers
  for array in (
    model.embedding.tokens.embedding,
    model.projection.kernel,
    layers.attention.layer.qkv.kernel,
    layers.mlp.layer.up.kernel,
  ):
    assert f64(array).std() == pytest.approx(std, rel=0.05)
  assert SMALL.start_deviation == pytest.approx(std)


def test_value_embeddings_follow_the_number_of_layers():
  assert SMALL.value_tables == SMALL.value_gates == (0, 2)
  deeper = dataclasses.replace(SMALL, core=2)
  assert deeper.value_tables == deeper.value_gates == (1, 3)
  listed = dataclasses.replace(
    SMALL, value_layers='listed', value_tables=(), value_gates=()
  )
  assert not hasattr(FAMILIES['parcae'].abstract(listed), 'value_embedding')


def loss_of(model, rows, depth_B, adjoint):
  """Sum of the logits weighed, each row at its own depth."""
  plan = Plan(core.fixed_steps(depth_B), 6, adjoint)
  keys_B = row_keys(3)[rows]
  result, context = run(model, INPUTS[rows], plan, keys_B=keys_B)
  logits_BTV = model.readout(result.state, context)
  return jnp.sum(logits_BTV * jnp.cos(jnp.arange(40.0)))


@pytest.mark.slow
def test_rows_of_a_batch_have_their_own_depth_and_gradient():
  """Depths 1, 3 and 6 under a window of 2: the batch is the sum of its rows."""
  model, depth_B = family_model('parcae', SMALL), jnp.array([1, 3, 6])
  graph, params, rest = nnx.split(model, nnx.Param, ...)
  merged = lambda params: nnx.merge(graph, params, rest)

  @jax.jit
  def both(params):
    def whole(params):
      rows = jnp.arange(3)
      return loss_of(merged(params), rows, depth_B, core.last_k(2))

    def alone(params):
      return sum(
        loss_of(
          merged(params),
          jnp.array([row]),
          depth_B[row : row + 1],
          core.last_k(2),
        )
        for row in range(3)
      )

    return jax.grad(whole)(params), jax.grad(alone)(params)

  for ours, want in zip(*map(jax.tree.leaves, both(params)), strict=True):
    scale = np.abs(want).max()
    np.testing.assert_allclose(ours, want, atol=1e-5 * max(scale, 1.0))
