"""Leaves of a training state: by path, on the host, and back in place.

A tree is stored as a flat dict from path to NumPy array, so that what lies on
the disk depends neither on Python classes nor on devices.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

_SHOWN = 4  # Leaves named in a message.
# A row that has made no recurrence has an infinite residual in its loop.
_UNBOUNDED = 'carry/loop/'


def flatten(tree: PyTree) -> dict[str, Any]:
  """The leaves by path: 'params/kernel', '0/mu/kernel'; '.' for a lone leaf.

  Raises:
    ValueError: if two leaves have one path, as {'a/b': 1, 'a': {'b': 2}} has.
  """
  leaves = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator='/') or '.'
    if name in leaves:
      raise ValueError(f'paths of leaves must differ, got {name} twice.')
    leaves[name] = leaf
  return leaves


def is_key(leaf: Any) -> bool:
  """Whether `leaf` is an array of typed PRNG keys."""
  return hasattr(leaf, 'dtype') and jnp.issubdtype(
    leaf.dtype, jax.dtypes.prng_key
  )


def describe(leaf: Any) -> str:
  """Dtype and shape, as in 'bfloat16[2,3]' or 'key<fry>[8]'."""
  leaf = leaf if hasattr(leaf, 'dtype') else np.asarray(leaf)
  return f'{leaf.dtype}[{",".join(map(str, leaf.shape))}]'


def to_host(leaves: dict[str, Any]) -> dict[str, np.ndarray]:
  """Copies of all leaves; of keys, their data. The transfers overlap.

  Raises:
    ValueError: if a leaf is no array and no number.
  """
  data = {
    name: jax.random.key_data(leaf) if is_key(leaf) else leaf
    for name, leaf in leaves.items()
  }
  for leaf in data.values():
    if isinstance(leaf, jax.Array) and leaf.is_fully_addressable:
      leaf.copy_to_host_async()
  return {name: _copy(name, leaf) for name, leaf in data.items()}


def _copy(name: str, leaf: Any) -> np.ndarray:
  if isinstance(leaf, jax.Array) and not (
    leaf.is_fully_addressable or leaf.is_fully_replicated
  ):
    leaf = multihost_utils.process_allgather(leaf, tiled=True)
  array = np.array(leaf)
  if not (jnp.issubdtype(array.dtype, np.number) or array.dtype == bool):
    raise ValueError(
      f'leaf {name} must be an array or a number, got {type(leaf).__name__}'
      f' of dtype {array.dtype}.'
    )
  return array


def empty(leaf: Any) -> np.ndarray:
  """What `to_host` makes of a leaf without elements."""
  data = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
  return np.zeros(data.shape, data.dtype)


def check_tree(
  step: int, saved: dict[str, str], leaves: dict[str, Any]
) -> None:
  """Raises a `ValueError` that lists how `leaves` differ from the `saved`."""
  wanted = {name: describe(leaf) for name, leaf in leaves.items()}
  both = [name for name in wanted if name in saved]
  differences = {
    'missing': [f'{n} {wanted[n]}' for n in wanted if n not in saved],
    'unexpected': [f'{n} {saved[n]}' for n in saved if n not in wanted],
    'different': [
      f'{n} is {saved[n]}, should be {wanted[n]}'
      for n in both
      if saved[n] != wanted[n]
    ],
  }
  if any(differences.values()):
    parts = [f'{len(v)} {k} ({_few(v)})' for k, v in differences.items() if v]
    raise ValueError(
      f'step {step} was saved by another configuration, its leaves do not fit: '
      f'{"; ".join(parts)}.'
    )


def check_finite(step: int, arrays: dict[str, np.ndarray]) -> None:
  """Raises a `ValueError` that names the leaves with NaN or infinity.

  The loop of rows in flight is exempt: it isolates what is not finite itself.
  """
  bad = [
    f'{name} ({np.count_nonzero(~np.isfinite(array))} of {array.size})'
    for name, array in arrays.items()
    if jnp.issubdtype(array.dtype, np.inexact)
    and not name.startswith(_UNBOUNDED)
    and not np.isfinite(array).all()
  ]
  if bad:
    raise ValueError(
      f'leaves of step {step} must be finite, got NaN or infinity in '
      f'{_few(bad)}; allow_nonfinite=True restores them all the same.'
    )


def place(array: np.ndarray, like: Any, impl: str | None) -> Any:
  """Turns a host array into what `like` is, where `like` is."""
  if isinstance(like, np.ndarray):
    return array
  if isinstance(like, np.generic):
    return array[()]
  if not hasattr(like, 'dtype'):
    return array.item()
  # What was free to move (a fresh counter) stays so: once committed to a device
  # it could not meet parameters that lie on several.
  if like.sharding is None or not getattr(like, 'committed', True):
    value = jnp.asarray(array)
  else:
    value = jax.device_put(array, like.sharding)
  return value if impl is None else jax.random.wrap_key_data(value, impl=impl)


def _few(items: list[str]) -> str:
  """The first items, and how many more there are."""
  more = [f'{len(items) - _SHOWN} more'] if len(items) > _SHOWN else []
  return ', '.join(items[:_SHOWN] + more)
