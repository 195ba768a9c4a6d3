"""Converts a checkpoint, published to ours or back, a few rows at a time.

    python -m loopformer.interop.convert --family=huginn --config=config.json \\
        model-00001.safetensors model-00002.safetensors huginn.safetensors
    python -m loopformer.interop.convert --family=huginn --to-published \\
        huginn.safetensors model.safetensors

Sources are files, folders of shards or a Hugging Face index. A published tensor
is copied by rows into the part of our array that it is, in a file mapped into
memory, so that no tensor need fit twice. `loopformer.interop.converted` loads
the result. The exit status is 2, and nothing is written, if a name, a shape or
a file is wrong.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from loopformer.interop.converted import describe, described, shapes_of
from loopformer.interop.layout import (
  as_published,
  check_names,
  published_shapes,
)
from loopformer.interop.published import (
  PUBLISHED,
  config_of,
  layout_of,
  tensors_of,
)
from loopformer.interop.shards import (
  DTYPES,
  Piece,
  Writer,
  open_shards,
  read_header,
  same_numbers,
  some_rows,
)

Path = str | pathlib.Path
KINDS = {'float32': DTYPES['F32'], 'bfloat16': DTYPES['BF16']}


def from_published(
  family: str,
  published: Mapping[str, Any],
  sources: Sequence[Path],
  out: Path,
  *,
  dtype: str = 'float32',
) -> None:
  """Writes a published checkpoint as ours.

  Raises:
    ValueError: naming a field, tensor or file that is wrong.
    OSError: if a file cannot be read or written.
  """
  cfg = config_of(family, published)
  layout, shapes = layout_of(family, cfg), shapes_of(family, cfg)
  pieces = _pieces(family, cfg, open_shards(sources))
  _check(pieces, layout, shapes)
  with Writer(out, shapes, KINDS[dtype], describe(family, cfg)) as writer:
    for name, entry in layout.items():
      for rows in some_rows(pieces[name].shape):
        part = as_published(entry, writer.map(entry.path))
        part[rows] = pieces[name].map()[rows]


def to_published(
  family: str, source: Path, out: Path, *, dtype: str = 'float32'
) -> None:
  """Writes a file of ours under the published names; a tied head is left out.

  Raises:
    ValueError: if the file is damaged or not one of this family.
    OSError: if a file cannot be read or written.
  """
  source = pathlib.Path(source)
  header = read_header(source)
  found, cfg = described(header, source)
  if found != family:
    raise ValueError(f'family must be {found} for {source}, got {family}.')
  layout, pieces = layout_of(family, cfg), header.pieces
  shapes = published_shapes(layout, shapes_of(family, cfg))
  with Writer(out, shapes, KINDS[dtype], {'format': 'pt'}) as writer:
    for name, entry in layout.items():
      for rows in some_rows(shapes[name]):
        part = as_published(entry, pieces[entry.path].map())
        writer.map(name)[rows] = part[rows]


def _pieces(family, cfg, shards):
  """What the shards hold under the names of the layout."""
  pieces: dict[str, Piece] = {}
  for name, piece in tensors_of(family, cfg, shards.items(), same_numbers):
    if name in pieces:
      raise ValueError(f'tensor {name} must be there once, got it twice.')
    pieces[name] = piece
  return pieces


def _check(pieces, layout, shapes):
  """Refuses tensors that are missing, left over or not what they must be."""
  unknown = [name for name in pieces if name not in layout]
  check_names(layout, pieces.keys(), unknown)
  for name, want in published_shapes(layout, shapes).items():
    piece = pieces[name]
    if piece.shape != want:
      raise ValueError(
        f'tensor {name} must have shape {want}, got {piece.shape}.'
      )
    if piece.kind not in DTYPES:
      raise ValueError(
        f'tensor {name} must hold one of {list(DTYPES)}, got {piece.kind}.'
      )


def _json(path):
  try:
    config = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'file {path} must be JSON: {error}.') from None
  if not isinstance(config, dict):
    raise ValueError(f'file {path} must hold an object, got {config!r}.')
  return config


def _run(given):
  if not given.to_published:
    if given.config is None:
      raise ValueError('config must be given, got none.')
    published = _json(given.config)
    from_published(
      given.family, published, given.sources, given.out, dtype=given.dtype
    )
    return
  if given.config is not None:
    raise ValueError(
      f'config must be left to the file with to-published, got {given.config}.'
    )
  if len(given.sources) != 1:
    raise ValueError(
      f'source must be one file with to-published, got {len(given.sources)}.'
    )
  to_published(given.family, given.sources[0], given.out, dtype=given.dtype)


def main(argv: Sequence[str] | None = None) -> int:
  """Returns the exit status."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--family', required=True, choices=sorted(PUBLISHED))
  parser.add_argument('--config', help='the published config.json')
  parser.add_argument('--dtype', default='float32', choices=sorted(KINDS))
  parser.add_argument('--to-published', action='store_true')
  parser.add_argument('sources', nargs='+')
  parser.add_argument('out')
  try:
    _run(parser.parse_args(argv))
  except (ValueError, OSError) as error:
    print(f'convert: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
