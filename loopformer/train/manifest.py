"""SHA-256 manifest of a step directory: seals it, and finds what changed.

Orbax checks its own tree of nodes but not the bytes of the arrays: a flipped
bit comes back as another weight. The manifest covers every file, itself too.
"""

import hashlib
import json
import os
import pathlib
from typing import Any, Literal, NamedTuple

NAME = 'manifest.json'
Kind = Literal['missing', 'size', 'hash', 'extra', 'link', 'unreadable']
_MEANING = {
  'missing': 'is missing',
  'size': 'has another size than was written',
  'hash': 'has other content than was written',
  'extra': 'is not in the manifest',
  'link': 'is a symbolic link',
  'unreadable': 'cannot be read',
}


class Problem(NamedTuple):
  """A file, relative to the step directory, and what is wrong with it."""

  file: str
  kind: Kind

  def __str__(self) -> str:
    return f'{self.file} {_MEANING[self.kind]}'


def write(directory: pathlib.Path) -> None:
  """Records size and SHA-256 of every file below `directory`, atomically.

  Raises:
    OSError: if a file cannot be read or the manifest cannot be written.
  """
  files = {
    name: {'bytes': path.stat().st_size, 'sha256': _digest(path)}
    for name, path in sorted(_files(directory).items())
  }
  write_atomically(directory / NAME, _encode(files))


def write_atomically(path: pathlib.Path, content: bytes) -> None:
  """Leaves at `path` what was there or all of `content`, whatever happens."""
  temporary = path.with_name(f'{path.name}.tmp')
  with temporary.open('wb') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)


def verify(directory: pathlib.Path) -> list[Problem]:
  """Compares `directory` with its manifest; an empty list means intact."""
  try:
    raw = (directory / NAME).read_bytes()
  except FileNotFoundError:
    return [Problem(NAME, 'missing')]
  except OSError:
    return [Problem(NAME, 'unreadable')]
  try:
    expected = json.loads(raw)['files']
  except (ValueError, KeyError, TypeError):
    return [Problem(NAME, 'hash')]
  # One way to write it and a digest over the entries: any flipped bit shows,
  # and shows here, not as a blame on an innocent file.
  if _encode(expected) != raw:
    return [Problem(NAME, 'hash')]
  found = _files(directory)
  checked = (_check(n, found.get(n), e) for n, e in expected.items())
  extra = [Problem(name, 'extra') for name in sorted(found.keys() - expected)]
  return [problem for problem in checked if problem] + extra


def _check(
  name: str, path: pathlib.Path | None, entry: dict[str, Any]
) -> Problem | None:
  if path is None:
    return Problem(name, 'missing')
  if path.is_symlink():
    return Problem(name, 'link')
  try:
    if path.stat().st_size != entry['bytes']:
      return Problem(name, 'size')
    same = _digest(path) == entry['sha256']
  except FileNotFoundError:
    return Problem(name, 'missing')
  except OSError:
    return Problem(name, 'unreadable')
  return None if same else Problem(name, 'hash')


def _files(directory: pathlib.Path) -> dict[str, pathlib.Path]:
  """Every file or link below `directory` but the manifest; links unfollowed."""
  entries = {
    path.relative_to(directory).as_posix(): path
    for path in directory.rglob('*')
    if path.is_symlink() or not path.is_dir()
  }
  entries.pop(NAME, None)
  return entries


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _encode(files: Any) -> bytes:
  text = json.dumps(files, sort_keys=True)
  seal = hashlib.sha256(text.encode()).hexdigest()
  return json.dumps(
    {'files': files, 'sha256': seal}, sort_keys=True, indent=1
  ).encode()
