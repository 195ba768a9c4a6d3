"""The laws: each takes a family's name and raises if it is broken.

Bit-equal at one compiled shape; 1e-5 across batch shapes, device counts and
eager; equal depths at rtol 1e-2.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from loopformer import core
from loopformer.nn.variables import Param
from tests.conformance import devices, programs
from tests.conformance.programs import HALT_CAP, R, outputs, probed
from tests.conformance.tiny import fixed, subject
from tests.models import equations

close = np.testing.assert_allclose
same = np.testing.assert_array_equal


def shapes(name):
  """State float32 with rows in front, logits [B, T, V], steps int32."""
  one, out = subject(name), probed(name)['scan']
  cfg, (B, T) = one.experiment.model, one.inputs_BT.shape
  assert out['logits'].shape == (B, T, cfg.num_classes)
  for leaf in core.rows.float_leaves(out['state']):
    assert leaf.shape[:1] == (B,)
    assert leaf.dtype == jnp.float32
  assert (out['steps'].dtype, out['carry'].t.dtype) == (jnp.int32, jnp.int32)
  same(out['steps'], R)
  for leaf in jax.tree.leaves(nnx.state(one.model, Param)):
    assert leaf.dtype == jnp.float32


def finite(name):
  """Outputs, the full loss and its gradients are finite."""
  for leaf in core.rows.float_leaves(probed(name)['scan']['logits']):
    assert np.isfinite(leaf).all()
  loss, grads = programs.gradients(name)
  assert np.isfinite(loss)
  assert all(np.isfinite(rows).all() for rows in grads.values())


def causal(name):
  """Logits at t have a zero Jacobian in every later token, exactly."""
  moved_TT = programs.token_jacobian(subject(name))
  later_TT = np.triu(np.ones(moved_TT.shape, bool), 1)
  same(moved_TT[later_TT], 0.0)
  assert (moved_TT[~later_TT] > 0).all()


def gradients(name):
  """Every Param, every layer of it, moves the family's full loss."""
  for path, rows in programs.gradients(name)[1].items():
    assert (np.abs(rows).max(-1) > 0).all(), path


def one_step(name):
  """R = 1 is one call of `model.step`, R = 2 two of them."""
  out = probed(name)
  for many in ('one', 'two'):
    close_trees(out[many], out[f'hand {many}'], 1e-5)


def size(name):
  """The program of the loss and its gradient does not grow with R."""
  counts = []
  for steps in (3, 30):
    loss, params = programs.loss_program(name, steps)
    jaxpr = jax.make_jaxpr(jax.value_and_grad(loss))(params)
    counts.append(sum(1 for _ in equations(jaxpr.jaxpr)))
  assert counts[0] == counts[1]


def drivers(name):
  """`scan` and `while_loop` are bit-equal."""
  same_trees(probed(name)['scan'], probed(name)['while'])


def continuation(name):
  """r recurrences and then s are r + s, bit for bit."""
  same_trees(probed(name)['pieces'], probed(name)['while'])


def alone(name):
  """A row alone equals that row in a batch, halting included."""
  one, whole = subject(name), probed(name)
  for row in (0, 3):
    single = programs.probed_rows(one, np.array([row]))
    for kind in ('scan', 'halting'):
      cut = lambda x, row=row: x[row : row + 1]
      ours = jax.tree.map(cut, rows_of(whole[kind]))
      close_trees(rows_of(single[kind]), ours, 1e-5)
      same(single[kind]['steps'], ours['steps'])
  if 'fixed point' not in one.family.exempt:
    assert np.all(whole['halting']['steps'] > 1)
    assert np.all(whole['halting']['steps'] < HALT_CAP)


def permuted(name):
  """Permuting batch mates permutes results, bit for bit."""
  order = np.array([2, 0, 3, 1])
  whole, moved = probed(name), programs.probed_rows(subject(name), order)
  for kind in ('scan', 'halting'):
    ours = jax.tree.map(lambda x: x[order], rows_of(whole[kind]))
    same_trees(rows_of(moved[kind]), ours)


def jit(name):
  """Operations one by one give what the compiled program gives."""
  one = subject(name)
  with jax.disable_jit():
    eager = outputs(one.model, one.inputs_BT, one.keys_B, **fixed(2))
  close_trees(eager['state'], probed(name)['two'], 1e-5)


def fixed_point(name):
  """The implicit gradient is that of a long loop where the step contracts."""
  one = subject(name)
  graph, params, rest = nnx.split(one.contraction, nnx.Param, ...)

  def loss(params, adjoint):
    model = nnx.merge(graph, params, rest)
    out = outputs(model, one.inputs_BT, one.keys_B, **fixed(40, adjoint))
    weights_V = jnp.cos(jnp.arange(out['logits'].shape[-1]))
    return jnp.sum(out['logits'] * weights_V), out['carry'].residual_B

  def both(params):
    gradient = jax.grad(loss, has_aux=True)
    return gradient(params, core.implicit()), gradient(params, core.full())

  (ours, residual_B), (unrolled, _) = jax.jit(both)(params)
  assert np.all(residual_B < 1e-6)
  for g, want in zip(*map(jax.tree.leaves, (ours, unrolled)), strict=True):
    assert np.linalg.norm(g - want) <= 1e-4 * np.linalg.norm(want)


LAWS = {
  'shapes': shapes,
  'finite': finite,
  'causality': causal,
  'gradients': gradients,
  'one step': one_step,
  'size': size,
  'drivers': drivers,
  'continuation': continuation,
  'alone': alone,
  'permuted': permuted,
  'jit': jit,
  'fixed point': fixed_point,
  'devices': devices.law,
}


def rows_of(out):
  """The part of an output that has rows in front."""
  return {key: out[key] for key in ('state', 'logits', 'steps')}


def same_trees(ours, theirs):
  """Asserts equality of all arrays, bit for bit."""
  jax.tree.map(same, ours, theirs)


def close_trees(ours, theirs, tolerance):
  """Asserts equality of all arrays within a tolerance."""
  jax.tree.map(
    lambda a, b: close(a, b, rtol=tolerance, atol=tolerance), ours, theirs
  )
