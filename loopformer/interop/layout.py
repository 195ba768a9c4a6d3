"""Where each published tensor lives in a model, and how it is turned.

A layout is a mapping from a published name to an `Entry`. Loading and saving
are strict: every name once, every shape as it must be, nothing left over.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx


class Form(NamedTuple):
  """How a published array becomes ours, and back."""

  ours: Callable[[np.ndarray], np.ndarray]
  theirs: Callable[[np.ndarray], np.ndarray]


def _plain(x):
  return x


# A depthwise kernel is [D, 1, taps..] there and [taps.., 1, D] here.
FORMS = {
  'plain': Form(_plain, _plain),
  'linear': Form(np.transpose, np.transpose),
  'conv': Form(
    lambda x: np.moveaxis(np.moveaxis(x, 0, -1), 0, -2),
    lambda x: np.moveaxis(np.moveaxis(x, -2, 0), -1, 0),
  ),
}


class Entry(NamedTuple):
  """One published tensor.

  Attributes:
    path: dotted path of our array.
    layer: its index in a stack of layers, or None.
    form: a key of `FORMS`.
  """

  path: str
  layer: int | None = None
  form: str = 'plain'


Layout = Mapping[str, Entry]


def load(
  model: nnx.Module, layout: Layout, tensors: Iterable[tuple[str, Any]]
) -> nnx.Module:
  """The model with its arrays read from named tensors, float32.

  Args:
    model: of shapes or arrays.
    layout: where each tensor goes.
    tensors: (name, array), each converted before the next is read.

  Raises:
    ValueError: naming a tensor that is unknown, missing, given twice or of
      another shape.
  """
  graph, state = nnx.split(model)
  flat = {
    _dotted(path): variable for path, variable in nnx.to_flat_state(state)
  }
  parts: dict[str, dict[int | None, np.ndarray]] = {path: {} for path in flat}
  unknown = []
  for name, tensor in tensors:
    if name not in layout:
      unknown.append(name)
      continue
    entry = layout[name]
    if entry.layer in parts[entry.path]:
      raise ValueError(f'tensor {name} must be there once, got it twice.')
    want = _shape(flat[entry.path], entry)
    parts[entry.path][entry.layer] = _converted(name, tensor, entry, want)
  _check_names(layout, parts, unknown)
  for path, variable in flat.items():
    variable.set_value(jnp.asarray(_joined(parts[path])))
  return nnx.merge(graph, state)


def save(model: nnx.Module, layout: Layout) -> dict[str, np.ndarray]:
  """The arrays of a model, or of its gradient, as published."""
  flat = {
    _dotted(path): np.asarray(variable[...])
    for path, variable in nnx.to_flat_state(nnx.state(model))
  }
  return {name: _published(flat, entry) for name, entry in layout.items()}


def _published(flat, entry):
  array = flat[entry.path]
  if entry.layer is not None:
    array = array[entry.layer]
  return FORMS[entry.form].theirs(array)


def _shape(variable, entry):
  """The published shape of an entry."""
  shape = variable.get_value().shape
  ours = np.empty(shape if entry.layer is None else shape[1:], np.bool_)
  return FORMS[entry.form].theirs(ours).shape


def _converted(name, tensor, entry, want):
  tensor = np.asarray(tensor)
  if not jnp.issubdtype(tensor.dtype, jnp.floating):
    raise ValueError(
      f'tensor {name} must hold floating-point numbers, got {tensor.dtype}.'
    )
  if tensor.shape != want:
    raise ValueError(
      f'tensor {name} must have shape {want}, got {tensor.shape}.'
    )
  return FORMS[entry.form].ours(np.asarray(tensor, np.float32))


def _joined(pieces):
  if None in pieces:
    return pieces[None]
  return np.stack([pieces[layer] for layer in sorted(pieces)])


def _check_names(layout, parts, unknown):
  if unknown:
    raise ValueError(
      f'tensors must be those of the family, got {len(unknown)} that are not: '
      f'{_some(unknown)}.'
    )
  missing = [name for name, e in layout.items() if e.layer not in parts[e.path]]
  if missing:
    raise ValueError(
      f'tensors must be complete, got none for {len(missing)}: '
      f'{_some(missing)}.'
    )


def _some(names):
  return ', '.join(sorted(names)[:3]) + (', ...' if len(names) > 3 else '')


def _dotted(path) -> str:
  return '.'.join(map(str, path))


def check_covers(model: nnx.Module, layout: Layout) -> None:
  """Raises `ValueError` if an array of the model has no published name."""
  _, state = nnx.split(model)
  have = {_dotted(path) for path, _ in nnx.to_flat_state(state)}
  left = have ^ {entry.path for entry in layout.values()}
  if left:
    raise ValueError(f'layout must cover the model, got {sorted(left)}.')
