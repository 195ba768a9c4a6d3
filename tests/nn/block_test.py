"""Norm placements, MLPs and stacks against hand formulas."""

import math

import jax
import numpy as np
import pytest
from flax import nnx

from loopformer.nn.block import Block, Branch, Layer, make_norm
from loopformer.nn.config import CHOICES, BlockConfig
from loopformer.nn.mlp import MLP
from loopformer.nn.stack import apply_stack, stack, stack_depth
from loopformer.nn.variables import (
  abstract,
  axis_names,
  build,
  count_parameters,
)
from tests.models import equations, f64, made, normal, perturbed, random

D = 8


class Affine(nnx.Module):
  """f(x) = 2 x + 1, a sub-layer that can be done by hand."""

  def __call__(self, x_BTD):
    return 2 * x_BTD + 1


def config(**fields):
  return BlockConfig(**{'width': D, 'heads': 2, 'hidden': 12, **fields})


def rms(x, gain, epsilon=1e-6):
  return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + epsilon) * gain


ERF = np.vectorize(math.erf)


def affine(x):
  return 2 * x + 1


FORMULAS = {
  'pre': lambda x, n, m: x + affine(n(x)),
  'post': lambda x, n, m: n(x + affine(x)),
  'sandwich_sum': lambda x, n, m: m(x + affine(n(x))),
  'sandwich_branch': lambda x, n, m: x + m(affine(n(x))),
}


def styled(style):
  """A branch with gains that are not one, and its two norms in NumPy."""
  cfg = config(style=style)
  branch = perturbed(made(lambda rngs: Branch(Affine(), cfg, rngs=rngs)))
  gain = f64(branch.norm.scale)
  gain_out = f64(branch.norm_out.scale) if 'sandwich' in style else 1.0
  return branch, lambda x: rms(x, gain), lambda x: rms(x, gain_out)


@pytest.mark.parametrize('style', CHOICES['style'])
def test_a_branch_is_its_formula(style):
  branch, norm, norm_out = styled(style)
  x_BTD = 3 * normal(2, 3, D)
  want = FORMULAS[style](f64(x_BTD), norm, norm_out)
  np.testing.assert_allclose(branch(x_BTD), want, atol=2e-5)


def test_the_two_sandwiches_are_different_maps():
  x = f64(normal(1, 1, D))
  unit = lambda y: rms(y, 1.0)
  total = FORMULAS['sandwich_sum'](x, unit, unit)
  branch = FORMULAS['sandwich_branch'](x, unit, unit)
  assert np.abs(total - branch).max() > 0.1


def test_unit_gain_sandwich_sums_have_rms_one():
  cfg = config(style='sandwich_sum')
  layer = random(lambda rngs: Layer(cfg, rngs=rngs))
  layer.mlp.norm_out.scale.set_value(np.ones(D, 'f'))
  out_BTD = f64(jax.jit(lambda m, x: m(x))(layer, 5 * normal(2, 4, D)))
  np.testing.assert_allclose((out_BTD**2).mean(-1), 1.0, atol=1e-5)


@pytest.mark.parametrize('gain', [True, False])
def test_norms(gain):
  x_BTD = normal(2, 3, D) + 1
  x = f64(x_BTD)
  for kind, want in (
    ('rms', rms(x, 1.0)),
    ('layer', rms(x - x.mean(-1, keepdims=True), 1.0)),
  ):
    cfg = config(norm=kind, norm_gain=gain)
    norm = made(lambda rngs, cfg=cfg: make_norm(cfg, rngs=rngs))
    np.testing.assert_allclose(norm(x_BTD), want, atol=1e-5)
    arrays = {'rms': 1, 'layer': 2}[kind]
    assert count_parameters(norm) == gain * arrays * D


ACTIVATIONS = {
  'gelu': lambda h: (
    h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
  ),
  'gelu_exact': lambda h: h / 2 * (1 + ERF(h / np.sqrt(2))),
  'relu': lambda h: np.maximum(h, 0),
  'relu2': lambda h: np.maximum(h, 0) ** 2,
  'half_relu2': lambda h: np.maximum(h, 0) ** 2 / 2,
  'silu': lambda h: h / (1 + np.exp(-h)),
}


@pytest.mark.parametrize('kind', CHOICES['mlp'])
def test_mlps(kind):
  mlp = random(lambda rngs: MLP(config(mlp=kind), rngs=rngs))
  x_BTD = normal(2, 3, D)
  name = 'gated_silu' if kind == 'swiglu' else kind
  gated, act = name.startswith('gated_'), name.removeprefix('gated_')
  up = f64(x_BTD) @ f64(mlp.up.kernel)
  hidden = ACTIVATIONS[act](up[..., :12])
  hidden = hidden * up[..., 12:] if gated else hidden
  want = hidden @ f64(mlp.down.kernel)
  np.testing.assert_allclose(mlp(x_BTD), want, atol=1e-5)
  assert count_parameters(mlp) == (2 + gated) * D * 12


@pytest.mark.parametrize('depth', [2, 5])
def test_a_stack_is_a_loop_over_its_layers(depth):
  make = lambda rngs: nnx.Linear(D, D, rngs=rngs)
  key, x_BTD = jax.random.key(5), normal(2, 3, D)
  layers = made(lambda rngs: stack(make, depth, rngs=rngs), seed=5)
  keys = jax.random.split(nnx.Rngs(key).params(), depth)
  looped = x_BTD
  for i in range(depth):
    looped = looped + build(make, keys[i])(looped)
  stacked = apply_stack(layers, x_BTD, lambda layer, h, i: h + layer(h))
  np.testing.assert_allclose(stacked, looped, rtol=1e-5, atol=1e-5)
  assert len({float(x) for x in layers.kernel[:, 0, 0]}) == depth


@pytest.mark.parametrize('depth', [3, 5])
def test_layers_are_applied_in_order(depth):
  block = random(lambda rngs: Block(config(mask='causal'), depth, rngs=rngs))
  x_BTD = normal(2, 3, D)

  def looped(layers, x_BTD):
    for i in range(depth):
      x_BTD = jax.tree.map(lambda x, i=i: x[i], layers)(x_BTD)
    return x_BTD

  stacked, want = jax.jit(lambda m, x: (m(x)[0], looped(m.layers, x)))(
    block, x_BTD
  )
  np.testing.assert_allclose(stacked, want, rtol=1e-5, atol=1e-5)


def test_every_array_of_a_stack_leads_with_the_layers_axis():
  for style in CHOICES['style']:
    cfg = config(style=style, norm='layer')
    block = abstract(lambda rngs, cfg=cfg: Block(cfg, 3, rngs=rngs))
    names = jax.tree.leaves(
      axis_names(block), is_leaf=lambda x: isinstance(x, tuple)
    )
    assert {name[0] for name in names} == {'layers'}
    assert all(name.count('layers') == 1 for name in names)
    assert {x.shape[0] for x in jax.tree.leaves(block)} == {3}
    assert stack_depth(block.layers) == 3


def test_no_layers_are_the_identity():
  block = made(lambda rngs: Block(config(), 0, rngs=rngs))
  x_BTD = normal(1, 2, D)
  np.testing.assert_array_equal(block(x_BTD)[0], x_BTD)
  assert count_parameters(block) == 0


def test_a_negative_depth_is_refused():
  with pytest.raises(ValueError, match='depth must be >= 0, got -1'):
    stack(lambda rngs: Affine(), -1, rngs=nnx.Rngs(0))


def test_a_stack_can_be_called_in_any_way():
  layers = random(
    lambda rngs: stack(lambda r: MLP(config(), rngs=r), 2, rngs=rngs)
  )
  x_BTD = normal(1, 2, D)
  kernels = f64(layers.up.kernel)
  call = lambda layer, h, i: h + i * layer.up.kernel.sum()
  out = apply_stack(layers, x_BTD, call)
  np.testing.assert_allclose(out, f64(x_BTD) + kernels[1].sum(), atol=1e-4)


def test_bfloat16_multiplies_and_float32_adds():
  x_BTD = normal(2, 4, 16)
  outs = {}
  for dtype in CHOICES['dtype']:
    cfg = config(width=16, dtype=dtype, style='sandwich_branch')
    block = random(lambda rngs, cfg=cfg: Block(cfg, 2, rngs=rngs))
    assert {leaf.dtype for leaf in jax.tree.leaves(block)} == {x_BTD.dtype}
    program = jax.jit(lambda m, x: m(x)[0])
    products = {
      variable.aval.dtype.name
      for equation in equations(jax.make_jaxpr(program)(block, x_BTD).jaxpr)
      if equation.primitive.name == 'dot_general'
      for variable in equation.invars
      # Attention weights are made in float32.
      if variable.aval.ndim <= 3
    }
    assert products == {dtype}
    outs[dtype] = program(block, x_BTD)
    assert outs[dtype].dtype == x_BTD.dtype
  error = np.abs(outs['float32'] - outs['bfloat16']).max()
  assert 0 < error < 0.1
