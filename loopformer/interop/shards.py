"""Safetensors files by pieces: one tensor's rows in memory, never a file.

A file is 8 bytes of header length, a JSON header of dtypes, shapes and offsets,
and the numbers (github.com/huggingface/safetensors).
"""

import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'F16': np.dtype(np.float16),
  'F32': np.dtype(np.float32),
  'F64': np.dtype(np.float64),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
CHUNK = 2**20  # numbers copied at a time


class Piece(NamedTuple):
  """One tensor of a file.

  Attributes:
    path: the file.
    kind: name of its dtype there.
    shape: its shape.
    start: byte at which its numbers begin.
  """

  path: pathlib.Path
  kind: str
  shape: tuple[int, ...]
  start: int

  def map(self) -> np.ndarray:
    """The tensor, mapped into memory until it is let go."""
    if not math.prod(self.shape):
      return np.empty(self.shape, DTYPES[self.kind])
    flat = np.memmap(
      self.path, DTYPES[self.kind], 'r', self.start, math.prod(self.shape)
    )
    return flat.reshape(self.shape)


def some_rows(shape: tuple[int, ...]) -> Iterator[Any]:
  """Indices that cut an array into rows of at most `CHUNK` numbers in all."""
  if not shape:
    yield ...
    return
  step = max(CHUNK // max(math.prod(shape[1:]), 1), 1)
  for first in range(0, shape[0], step):
    yield slice(first, first + step)


class Header(NamedTuple):
  """What a file holds: its tensors by name, and its metadata."""

  pieces: Mapping[str, Piece]
  metadata: Mapping[str, str]


def read_header(path: pathlib.Path) -> Header:
  """The header of a whole file.

  Raises:
    ValueError: if the file is cut or damaged.
    OSError: if it cannot be opened.
  """
  size = path.stat().st_size
  with path.open('rb') as file:
    length = int.from_bytes(file.read(8), 'little')
    if size < 8 or length > size - 8:
      raise ValueError(f'file {path} cannot be read: its header is cut short.')
    text = file.read(length)
  try:
    listed = json.loads(text)
    metadata = dict(listed.pop('__metadata__', {}).items())
    pieces = {
      name: _piece(path, fields, 8 + length) for name, fields in listed.items()
    }
    ends = [_end(fields) for fields in listed.values()]
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    raise ValueError(
      f'file {path} cannot be read: its header is damaged.'
    ) from None
  want = 8 + length + max(ends, default=0)
  if size != want:
    raise ValueError(
      f'file {path} cannot be read: it must have {want} bytes, got {size}.'
    )
  return Header(pieces, metadata)


def _end(fields):
  return fields['data_offsets'][1]


def _piece(path, fields, base):
  begin, end = fields['data_offsets']
  shape = tuple(fields['shape'])
  kind = fields['dtype']
  if not all(type(n) is int and n >= 0 for n in (begin, end, *shape)):
    raise ValueError
  if kind in DTYPES and end - begin != _nbytes(kind, shape):
    raise ValueError
  return Piece(path, kind, shape, base + begin)


def _nbytes(kind, shape):
  return DTYPES[kind].itemsize * math.prod(shape)


def open_shards(sources: Sequence[str | pathlib.Path]) -> dict[str, Piece]:
  """All tensors of some files, folders of files, or Hugging Face indices.

  A folder stands for the index in it, or else for every file in it.

  Raises:
    ValueError: if a file is damaged, a tensor is there twice, or the files are
      not those of their index.
    OSError: if a file cannot be opened.
  """
  pieces: dict[str, Piece] = {}
  for source in sources:
    for name, piece in _one(pathlib.Path(source)).items():
      if name in pieces:
        raise ValueError(
          f'tensor {name} must be there once, got it in {pieces[name].path} '
          f'and in {piece.path}.'
        )
      pieces[name] = piece
  return pieces


def _one(source):
  if source.is_dir():
    indices = sorted(source.glob('*.index.json'))
    files = indices or sorted(source.glob('*.safetensors'))
    if not files:
      raise ValueError(f'folder {source} must hold *.safetensors, got none.')
    return open_shards(files)
  if source.name.endswith('.json'):
    return _indexed(source)
  if source.suffix != '.safetensors':
    raise ValueError(
      f'source must be a folder, an index or *.safetensors, got {source}.'
    )
  return dict(read_header(source).pieces)


def _indexed(path):
  """The shards of an index, which must list exactly what they hold."""
  try:
    listed = dict(json.loads(path.read_text(encoding='utf-8'))['weight_map'])
    files = sorted(set(listed.values()))
    outside = [name for name in files if pathlib.Path(name).name != name]
  except (ValueError, TypeError, KeyError, RecursionError):
    raise ValueError(f'index {path} must map names to files.') from None
  if outside:
    raise ValueError(f'index {path} must name files beside it, got {outside}.')
  pieces = open_shards([path.parent / name for name in files])
  wrong = {
    *(listed.keys() ^ pieces.keys()),
    *(n for n, p in pieces.items() if listed.get(n) != p.path.name),
  }
  if wrong:
    raise ValueError(
      f'index {path} must list what its files hold, which differs for '
      f'{sorted(wrong)[:3]}.'
    )
  return pieces


def same_numbers(one: Piece, other: Piece) -> bool:
  """Whether two tensors hold the same numbers, read side by side."""
  return one.shape == other.shape and all(
    np.array_equal(one.map()[rows], other.map()[rows])
    for rows in some_rows(one.shape)
  )


class Writer:
  """A safetensors file that is filled in any order, then put in place.

  Used as a context: the file appears under its name when the block ends well,
  and nothing is left of it otherwise.

  Raises:
    OSError: if there is no room for it.
  """

  def __init__(
    self,
    path: str | pathlib.Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: np.dtype,
    metadata: Mapping[str, str],
  ):
    self.path = pathlib.Path(path)
    if self.path.suffix != '.safetensors':
      raise ValueError(f'file must end in .safetensors, got {path}.')
    self.partial = self.path.with_name(f'.{self.path.name}.partial')
    self.dtype, self.shapes = np.dtype(dtype), shapes
    text, self.starts, self.size = _layout(shapes, self.dtype, metadata)
    self.text = text

  def __enter__(self) -> 'Writer':
    with self.partial.open('wb') as file:
      try:
        # Room first: writing to a map of a file on a full disk kills.
        if hasattr(os, 'posix_fallocate'):
          os.posix_fallocate(file.fileno(), 0, self.size)
        file.truncate(self.size)
        file.write(self.text)
      except OSError:
        self.partial.unlink(missing_ok=True)
        raise
    return self

  def __exit__(self, kind: Any, *_: Any) -> None:
    try:
      if kind is None:
        with self.partial.open('rb+') as file:
          os.fsync(file.fileno())
        self.partial.replace(self.path)
    finally:
      self.partial.unlink(missing_ok=True)

  def map(self, name: str) -> np.ndarray:
    """A tensor of the file, mapped into memory until it is let go."""
    shape = self.shapes[name]
    if not math.prod(shape):
      return np.empty(shape, self.dtype)
    flat = np.memmap(
      self.partial, self.dtype, 'r+', self.starts[name], math.prod(shape)
    )
    return flat.reshape(shape)


def _layout(shapes, dtype, metadata):
  """The header's bytes, where each tensor begins, and the size of the file."""
  listed: dict[str, Any] = {'__metadata__': dict(metadata)}
  begin = 0
  for name, shape in shapes.items():
    end = begin + _nbytes(NAMES[dtype], shape)
    offsets = [begin, end]
    listed[name] = {
      'dtype': NAMES[dtype],
      'shape': list(shape),
      'data_offsets': offsets,
    }
    begin = end
  text = json.dumps(listed).encode()
  text += b' ' * (-len(text) % 8)
  base = 8 + len(text)
  starts = {
    name: base + fields['data_offsets'][0]
    for name, fields in listed.items()
    if name != '__metadata__'
  }
  return len(text).to_bytes(8, 'little') + text, starts, base + begin
