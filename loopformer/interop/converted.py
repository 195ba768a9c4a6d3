"""Files that hold a model of ours: its arrays by path, its family, its config.

A safetensors file whose metadata names the family and holds the config in full
as JSON, so that nothing else is needed to build the model.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from loopformer.interop.layout import dotted
from loopformer.interop.published import PUBLISHED
from loopformer.interop.shards import DTYPES, Header, read_header
from loopformer.nn.config import BlockConfig
from loopformer.zoo import FAMILIES

FORMAT = 'loopformer'
Shapes = dict[str, tuple[int, ...]]


def load_converted(
  path: str | pathlib.Path, *, dtype: Any = jnp.float32
) -> tuple[str, Any, nnx.Module]:
  """The family, config and model of a converted file.

  Args:
    path: a file of `loopformer.interop.convert`.
    dtype: of the arrays; None for the one they are stored in.

  Raises:
    ValueError: if the file is damaged or holds something else.
    OSError: if it cannot be opened.
  """
  header = read_header(pathlib.Path(path))
  family, cfg = described(header, path)
  graph, state = nnx.split(FAMILIES[family].abstract(cfg))
  for at, variable in nnx.to_flat_state(state):
    array = header.pieces[dotted(at)].map()
    variable.set_value(jnp.array(array, dtype or array.dtype))
  return family, cfg, nnx.merge(graph, state)


def describe(family: str, cfg: Any) -> dict[str, str]:
  """Metadata of a file that holds a model of this config."""
  config = json.dumps(dataclasses.asdict(cfg))
  return {'format': FORMAT, 'family': family, 'config': config}


def described(header: Header, path: Any) -> tuple[str, Any]:
  """The family and the config of a converted file.

  Raises:
    ValueError: if it is not one, or its arrays are not those of its config.
  """
  found = header.metadata
  if found.get('format') != FORMAT or found.get('family') not in PUBLISHED:
    raise ValueError(
      f'file {path} must be one that loopformer.interop.convert wrote, got '
      f'metadata of {sorted(found)}.'
    )
  family = found['family']
  cfg = config_from_json(family, found.get('config', ''))
  shapes, pieces = shapes_of(family, cfg), header.pieces
  wrong = {
    *(shapes.keys() ^ pieces.keys()),
    *(n for n, piece in pieces.items() if piece.shape != shapes.get(n)),
    *(n for n, piece in pieces.items() if piece.kind not in DTYPES),
  }
  if wrong:
    raise ValueError(
      f'file {path} must hold the arrays of its config, which differ for '
      f'{sorted(wrong)[:3]}.'
    )
  return family, cfg


def config_from_json(family: str, text: str) -> Any:
  """The config that `describe` has written.

  Raises:
    ValueError: if it is not one of this family.
  """
  try:
    fields = json.loads(text)
    made = {name: _field(value) for name, value in fields.items()}
    return FAMILIES[family].config(**made)
  except (
    ValueError,
    TypeError,
    AttributeError,
    RecursionError,
  ) as error:
    reason = str(error).rstrip('.')
    raise ValueError(
      f'config in the metadata must be one of {family}: {reason}.'
    ) from None


def _field(value):
  if isinstance(value, Mapping):
    return BlockConfig(**value)
  return tuple(value) if isinstance(value, list) else value


@functools.cache
def shapes_of(family: str, cfg: Any) -> Shapes:
  """Shapes of all arrays of a model by dotted path."""
  state = nnx.state(FAMILIES[family].abstract(cfg))
  return {
    dotted(at): tuple(variable.get_value().shape)
    for at, variable in nnx.to_flat_state(state)
  }
