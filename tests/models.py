"""Modules and arrays for tests, made without compiling array by array."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from flax import nnx

from loopformer import core
from loopformer.nn.variables import abstract, build
from loopformer.zoo import FAMILIES


def made(make, seed=0):
  """The module `make(rngs)` returns."""
  return jax.jit(lambda key: build(make, key))(jax.random.key(seed))


def filled(module, seed=0):
  """A module of shapes with NumPy's numbers in it; nothing is compiled.

  Matrices keep the size of what they multiply; gains are near one, and no
  trained array is zero.
  """
  rng = np.random.default_rng(seed)

  def fill(path, leaf):
    noise = rng.normal(size=leaf.shape)
    if 'scale' in jax.tree_util.keystr(path):
      noise = 1 + 0.2 * noise
    elif 'kernel' in jax.tree_util.keystr(path):
      noise = noise * leaf.shape[-2] ** -0.5
    else:
      noise = 0.3 * noise
    return jnp.asarray(noise, leaf.dtype)

  return jax.tree_util.tree_map_with_path(fill, module)


def random(make, seed=0):
  """The module `make(rngs)` returns, `filled`."""
  return filled(abstract(make), seed)


@functools.cache
def family_model(name, cfg, seed=0):
  """A family's model, `filled`; the same object for equal arguments."""
  return filled(FAMILIES[name].abstract(cfg), seed)


def perturbed(module, scale=0.3, seed=7):
  """The module with noise on every trained array: no zero is special."""
  graph, params, rest = nnx.split(module, nnx.Param, ...)
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(seed)
  moved = [x + scale * rng.normal(size=x.shape).astype('f') for x in leaves]
  return nnx.merge(graph, jax.tree.unflatten(tree, moved), rest)


def normal(*shape, seed=0):
  """Standard normal numbers, float32."""
  draws = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(draws, jnp.float32)


def row_keys(rows, seed=3):
  """Keys of samples 0, 1, ..."""
  return core.row_keys(jax.random.key(seed), jnp.arange(rows))


def info(steps_B, keys_B=None):
  """What a step is told when all rows are live."""
  steps_B = jnp.asarray(steps_B, jnp.int32)
  live_B = jnp.ones(steps_B.shape, bool)
  return core.LoopInfo(jnp.max(steps_B), steps_B, live_B, keys_B)


def f64(x):
  """NumPy float64."""
  return np.asarray(x, np.float64)


def equations(jaxpr):
  """Every equation of a program, those of its loops too."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from equations(inner)
