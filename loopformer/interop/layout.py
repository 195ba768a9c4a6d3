"""Where each published tensor lives in a model, and how it is turned.

A layout is a mapping from a published name to an `Entry`. Loading and saving
are strict: every name once, every shape as it must be, nothing left over.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
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


# Biases of queries and keys have a spare axis for tokens there.
# A depthwise kernel is [D, 1, taps..] there and [taps.., 1, D] here.
FORMS = {
  'plain': Form(_plain, _plain),
  'heads': Form(lambda x: x.squeeze(1), lambda x: x[:, None]),
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
    columns: the part of our last axis that the tensor is, or None for all:
      published projections may lie side by side in one of our arrays.
  """

  path: str
  layer: int | None = None
  form: str = 'plain'
  columns: tuple[int, int] | None = None

  def within(self, array: Any) -> Any:
    """The part of our array that the tensor is."""
    array = array if self.layer is None else array[self.layer]
    return array if self.columns is None else array[..., slice(*self.columns)]


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
  flat = {dotted(path): variable for path, variable in nnx.to_flat_state(state)}
  shapes = {path: x.get_value().shape for path, x in flat.items()}
  arrays: dict[str, np.ndarray] = {}
  seen, unknown = set(), []
  for name, tensor in tensors:
    if name in seen:
      raise ValueError(f'tensor {name} must be there once, got it twice.')
    seen.add(name)
    if name in layout:
      entry = layout[name]
      path, shape = entry.path, shapes[entry.path]
      ours = converted(name, tensor, entry, entry.within(_hollow(shape)).shape)
      # Only now that a tensor fits: a config may ask for any size.
      if path not in arrays:
        arrays[path] = np.empty(shape, np.float32)
      entry.within(arrays[path])[...] = ours
    else:
      unknown.append(name)
  check_names(layout, seen, unknown)
  for path, variable in flat.items():
    # A stack without layers has arrays without a number, and no tensors.
    array = arrays.pop(path) if path in arrays else np.zeros(shapes[path], 'f4')
    variable.set_value(jnp.asarray(array))
  return nnx.merge(graph, state)


def save(model: nnx.Module, layout: Layout) -> dict[str, np.ndarray]:
  """The arrays of a model, or of its gradient, as published."""
  flat = {
    dotted(path): np.asarray(variable[...])
    for path, variable in nnx.to_flat_state(nnx.state(model))
  }
  return {
    name: as_published(entry, flat[entry.path])
    for name, entry in layout.items()
  }


def as_published(entry: Entry, array: Any) -> Any:
  """The part of our array that a tensor is, in its shape: a view."""
  return FORMS[entry.form].theirs(entry.within(array))


def published_shapes(
  layout: Layout, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
  """Shapes of all tensors for shapes of our arrays; nothing is allocated."""
  arrays = {name: _hollow(shape) for name, shape in shapes.items()}
  return {
    name: as_published(entry, arrays[entry.path]).shape
    for name, entry in layout.items()
  }


def converted(
  name: str, tensor: Any, entry: Entry, shape: tuple[int, ...]
) -> np.ndarray:
  """A published tensor as the part of our array it is, float32.

  Raises:
    ValueError: if it has another shape or kind of numbers.
  """
  tensor = np.asarray(tensor)
  if not jnp.issubdtype(tensor.dtype, jnp.floating):
    raise ValueError(
      f'tensor {name} must hold floating-point numbers, got {tensor.dtype}.'
    )
  want = FORMS[entry.form].theirs(_hollow(shape)).shape
  if tensor.shape != want:
    raise ValueError(
      f'tensor {name} must have shape {want}, got {tensor.shape}.'
    )
  return FORMS[entry.form].ours(np.asarray(tensor, np.float32))


def _hollow(shape):
  """An array of a shape that takes no memory."""
  return np.broadcast_to(np.False_, shape)


def check_names(
  layout: Layout, seen: Collection[str], unknown: Collection[str]
) -> None:
  """Raises `ValueError` unless every name was seen, and no other."""
  if unknown:
    raise ValueError(
      f'tensors must be those of the family, got {len(unknown)} that are not: '
      f'{_some(unknown)}.'
    )
  missing = [name for name in layout if name not in seen]
  if missing:
    raise ValueError(
      f'tensors must be complete, got none for {len(missing)}: '
      f'{_some(missing)}.'
    )


def _some(names):
  return ', '.join(sorted(names)[:3]) + (', ...' if len(names) > 3 else '')


def dotted(path: Iterable[Any]) -> str:
  """The path of an array as one name."""
  return '.'.join(map(str, path))


def check_covers(model: nnx.Module, layout: Layout) -> None:
  """Raises `ValueError` if an array of the model has no published name.

  The arrays of a stack without layers need none.
  """
  _, state = nnx.split(model)
  flat = nnx.to_flat_state(state)
  have = {dotted(path) for path, x in flat if x.get_value().size}
  left = have ^ {entry.path for entry in layout.values()}
  if left:
    raise ValueError(f'layout must cover the model, got {sorted(left)}.')
