"""A disk cache of arrays: built once, rebuilt when it cannot be read."""

import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]


def directory() -> pathlib.Path:
  """LOOPFORMER_CACHE, else XDG_CACHE_HOME/loopformer, else a temporary one."""
  own, xdg = (
    os.environ.get('LOOPFORMER_CACHE'),
    os.environ.get('XDG_CACHE_HOME'),
  )
  if own:
    return pathlib.Path(own)
  parent = pathlib.Path(xdg) if xdg else pathlib.Path(tempfile.gettempdir())
  return parent / 'loopformer'


def _read(path: pathlib.Path, names: tuple[str, ...]) -> Arrays | None:
  try:
    with np.load(path, allow_pickle=False) as saved:
      return {name: saved[name] for name in names}
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None


def _write(path: pathlib.Path, arrays: Arrays) -> None:
  """Writes beside `path` and renames, so that readers see all or nothing."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(dir=path.parent, suffix='.tmp')
  try:
    with os.fdopen(handle, 'wb') as file:
      np.savez(file, allow_pickle=False, **arrays)
    os.replace(temporary, path)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise


def cached(
  key: str, names: tuple[str, ...], build: Callable[[], Arrays]
) -> Arrays:
  """Returns the arrays `names` saved under `key`, built if need be.

  A file that is damaged or lacks a name counts as absent. A cache directory
  that cannot be written costs the next process the same work, nothing else.
  """
  path = directory() / f'{key}.npz'
  found = _read(path, names)
  if found is not None:
    return found
  built = build()
  try:
    _write(path, built)
  except OSError:
    pass
  return built
