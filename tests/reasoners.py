"""Tiny puzzle reasoners, their calls one by one, gradients of a segment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from loopformer import core
from loopformer.nn.reasoner import published_block
from loopformer.nn.variables import Param
from tests.models import info, normal, row_keys

B, S, P, D = 2, 4, 2, 8
L = P + S
BLOCK = published_block(width=D, heads=2, hidden=8, rotary='none')
INPUTS = jnp.array([[1, 2, 3, 4], [4, 0, 2, 1]])
# Fields of every tiny config, whatever its family.
TINY = {
  'vocab_size': 5,
  'seq_len': S,
  'block': BLOCK,
  'layers': 1,
  'puzzle_width': 12,
  'prefix': P,
}


class Cell(nnx.Module):
  """tanh(z W + inject): a stack in small, for laws of the recursion."""

  def __init__(self, seed):
    self.kernel = Param(D**-0.5 * normal(D, D, seed=seed))

  def __call__(self, z_BLD, inject_BLD):
    return jnp.tanh(z_BLD @ self.kernel[...] + inject_BLD)

  def run(self, h_BLD, scales):
    """One branch of a scaled residual."""
    return scales[0] * h_BLD + scales[1] * jnp.tanh(h_BLD @ self.kernel[...])


def with_cells(model):
  """A copy of the model whose stacks are cells."""
  model = nnx.merge(*nnx.split(model))
  for seed, name in enumerate(('low', 'high', 'stack')):
    if hasattr(model, name):
      setattr(model, name, Cell(seed))
  return model


@functools.partial(jax.jit, static_argnums=2)
def noise(keys_B, call, shape):
  """What call number `call` of a segment draws."""
  calls_B = jnp.full(keys_B.shape, call)
  return core.rows.keyed_normal(core.rows.fold_rows(keys_B, calls_B), shape)


def start(names=('low', 'high'), length=L):
  """Some state and some context."""
  state = {n: normal(B, length, D, seed=i) for i, n in enumerate(names)}
  return state, normal(B, length, D, seed=9)


def segment(model, state, context_BLD):
  """One recurrence of rows whose keys are those of step 0."""
  told = info(jnp.zeros(B, int), row_keys(B))
  return model.step(state, (), context_BLD, told)[0]


def by_hand(model, state, x_BLD, calls, keys_B=None):
  """The given calls of a segment of two timescales, one by one.

  Call T, 2 T + 1, ... is a slow one, the others are fast.
  """
  keys_B = row_keys(B) if keys_B is None else keys_B
  cfg = model.cfg
  slow = model.high if cfg.high_layers else model.low
  for call in calls:
    is_slow = call % (cfg.low_cycles + 1) == cfg.low_cycles
    name, stack = ('high', slow) if is_slow else ('low', model.low)
    inject = state['low'] if is_slow else state['high'] + x_BLD
    z = state[name]
    z = (1 - cfg.damping) * z + cfg.damping * stack(z, inject)
    if cfg.noise:
      z = z + cfg.noise * noise(keys_B, call, z.shape[1:])
    state = {**state, name: z}
  return state


@functools.partial(jax.jit, static_argnums=0)
def gradients(call, model, state, context_BLD):
  """Of a loss of what is read after `call`: by Param, state and context."""
  graph, params, rest = nnx.split(model, nnx.Param, ...)

  def loss(params, state, context_BLD):
    model = nnx.merge(graph, params, rest)
    after = call(model, state, context_BLD)
    logits = model.readout(after, context_BLD)
    q_B2 = model.q_values(after)
    target = normal(*logits.shape, seed=11)
    return jnp.vdot(logits, target) + jnp.vdot(q_B2, normal(B, 2, seed=12))

  return jax.grad(loss, (0, 1, 2))(params, state, context_BLD)


def assert_zero(tree):
  """Every number is exactly zero."""
  for leaf in jax.tree.leaves(tree):
    np.testing.assert_array_equal(leaf, 0.0)


def assert_close(ours, theirs, tolerance=1e-4):
  """All arrays are equal within a tolerance, and some number is not zero."""
  pairs = list(zip(*map(jax.tree.leaves, (ours, theirs)), strict=True))
  assert max(np.abs(want).max() for _, want in pairs) > 0.1
  for got, want in pairs:
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def assert_unit(state):
  """Every token of every state has root mean square 1."""
  for z_BLD in jax.tree.leaves(state):
    size_BL = np.sqrt((np.float64(z_BLD) ** 2).mean(-1))
    np.testing.assert_allclose(size_BL, 1.0, atol=1e-3)
