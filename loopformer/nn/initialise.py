"""Redraws the parameters of a model by rules on their paths."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from loopformer.nn.variables import Param

Rules = Mapping[str, Any]
ITERATIONS = 60  # for singular values down to 1e-9 of the whole


def redraw(model: nnx.Module, rules: Rules, rngs: nnx.Rngs) -> None:
  """Gives every `Param` the first initialiser whose key is in its dotted path.

  Layers of a stack are drawn one by one, so that an initialiser never sees the
  leading axis. Parameters that no rule names stay as they are. For use in
  constructors alone: it changes the model it is given.

  Raises:
    ValueError: if a rule names no parameter.
  """
  unused = set(rules)
  for path, variable in nnx.to_flat_state(nnx.state(model, Param)):
    dotted = '.'.join(map(str, path))
    for key in rules:
      if key in dotted:
        unused.discard(key)
        shape = variable.get_value().shape
        stacked = '.layers.' in f'.{dotted}'
        value = _draw(rules[key], rngs.params(), shape, stacked)
        _owner(model, path).set_value(value)
        break
  if unused:
    raise ValueError(f'rules must name parameters, got {sorted(unused)}.')


def _draw(init, key, shape, stacked):
  if not stacked:
    return init(key, shape, jnp.float32)
  keys = jax.random.split(key, shape[0])
  return jax.vmap(lambda k: init(k, shape[1:], jnp.float32))(keys)


def _owner(model, path):
  for name in path:
    model = model[name] if isinstance(name, int) else getattr(model, name)
  return model


def cut_normal(std: float) -> Any:
  """A normal of deviation `std`, cut at three of them."""

  def init(key, shape, dtype=jnp.float32):
    return std * jax.random.truncated_normal(key, -3.0, 3.0, shape, dtype)

  return init


def up_half(init: Any, scale: float) -> Any:
  """The second half of the columns, a gated MLP's `up`, times `scale`."""

  def scaled(key, shape, dtype=jnp.float32):
    value = init(key, shape, dtype)
    half = shape[-1] // 2
    return value.at[..., half:].multiply(scale)

  return scaled


def by_columns(init: Any, *sizes: int) -> Any:
  """Blocks of so many columns, each drawn by itself."""

  def init_blocks(key, shape, dtype=jnp.float32):
    keys = jax.random.split(key, len(sizes))
    parts = [
      init(k, (*shape[:-1], size), dtype)
      for k, size in zip(keys, sizes, strict=True)
    ]
    return jnp.concatenate(parts, -1)

  return init_blocks


def orthogonal(std: float) -> Any:
  """Orthogonal rows or columns whose entries have deviation `std`.

  Q = U V^T of a normal matrix U S V^T, which is uniform too, by the iteration
  X <- (3 X - X X^T X) / 2 of Newton and Schulz: products alone. A factorisation
  may wait for ever on a CPU whose few threads run several at once.
  """

  def init(key, shape, dtype=jnp.float32):
    wide = shape[-2] <= shape[-1]
    x = jax.random.normal(key, shape if wide else shape[::-1], jnp.float32)
    times = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    step = lambda _, x: 1.5 * x - 0.5 * times(times(x, x.mT), x)
    x = jax.lax.fori_loop(0, ITERATIONS, step, x / jnp.linalg.norm(x))
    return (std * max(shape) ** 0.5 * (x if wide else x.mT)).astype(dtype)

  return init
