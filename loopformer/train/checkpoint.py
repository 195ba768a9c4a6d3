"""Checkpoints: atomic step directories, verified when they are read.

    checkpoints/step_00000010/
      state/         the leaves, a flat dict from path to array, by Orbax
      meta.json      schema, step, shape and dtype of every leaf, caller's meta
      manifest.json  size and SHA-256 of every file

A step is written into a temporary directory, flushed to the disk and renamed:
what carries a step's name is whole. Orbax finds damaged metadata but restores
flipped bits of arrays as other numbers, and knows no fallback; the manifest
adds both. The leaves are stored under their paths, so that what was written
does not depend on Python classes, and whole, so that it does not depend on the
devices. Nothing is pickled. The directory is local or mounted, since atomicity
is a rename.
"""

import functools
import json
import operator
import os
import pathlib
import re
import shutil
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jaxtyping import PyTree

from loopformer.train import leaves, manifest

SCHEMA = 1
_STEP = re.compile(r'step_(\d{8,})')
_LEFTOVER = re.compile(r'step_\d{8,}\.(tmp|old)')

Path = str | os.PathLike[str]


class CheckpointError(RuntimeError):
  """A step could not be written, or what lies on the disk is damaged."""


class Restored(NamedTuple):
  """What a step held: the state placed like `like`, and the caller's meta."""

  step: int
  state: PyTree
  meta: dict[str, Any]


class Checkpointer:
  """Writes steps below `directory` in the background and reads them back.

  Keeps the newest `keep` steps up to the one last written, and every multiple
  of `keep_every`. Steps after it, left over when a run restarts from an earlier
  one, are not touched. With several processes each calls every method (leaves
  that lie on several hosts are gathered), and process 0 writes.

  One `Checkpointer` writes to a directory at a time: opening it removes what
  killed runs left half written. To only read, use `steps` and `restore`. Leave
  it through `close` or `with`: an interpreter that ends aborts the last save.
  """

  def __init__(
    self, directory: Path, *, keep: int = 3, keep_every: int | None = None
  ):
    if keep < 1:
      raise ValueError(f'keep must be >= 1, got {keep}.')
    if keep_every is not None and keep_every < 1:
      raise ValueError(f'keep_every must be >= 1 or None, got {keep_every}.')
    if '://' in os.fspath(directory):
      raise ValueError(
        f'directory must be a local or mounted path, got {directory}.'
      )
    self._directory = pathlib.Path(directory).absolute()
    self._keep = keep
    self._keep_every = keep_every
    self._writes = jax.process_index() == 0
    self._executor = futures.ThreadPoolExecutor(1, 'checkpoint')
    self._pending: tuple[int, futures.Future[None]] | None = None
    if self._writes:
      self._directory.mkdir(parents=True, exist_ok=True)
      _clean(self._directory)

  def save(self, step: int, state: PyTree, meta: dict[str, Any]) -> None:
    """Copies `state` to the host and returns; the rest goes on behind.

    The caller may donate its buffers afterwards. Waits for the save before.

    Raises:
      CheckpointError: the save before failed; this one was not begun.
      ValueError: a leaf is no array or number, or `meta` is not JSON.
    """
    self.wait()
    step = operator.index(step)
    if step < 0:
      raise ValueError(f'step must be >= 0, got {step}.')
    flat = leaves.flatten(state)
    arrays = leaves.to_host(flat)
    content = _encode_meta(step, flat, meta)
    if self._writes:
      task = self._executor.submit(self._write, step, arrays, content)
      self._pending = step, task

  def wait(self) -> None:
    """Returns once the last save is on the disk.

    Raises:
      CheckpointError: if it failed; says so once.
    """
    if self._pending is None:
      return
    (step, task), self._pending = self._pending, None
    try:
      task.result()
    except Exception as error:
      raise CheckpointError(
        f'step {step} could not be saved: {_brief(error)}'
      ) from error

  def close(self) -> None:
    """Waits for the last save and ends the background thread."""
    try:
      self.wait()
    finally:
      self._executor.shutdown()

  def __enter__(self) -> 'Checkpointer':
    return self

  def __exit__(self, *error: Any) -> None:
    self.close()

  def steps(self) -> list[int]:
    """The steps on the disk now, ascending."""
    return steps(self._directory)

  def restore(
    self,
    like: PyTree,
    *,
    step: int | None = None,
    allow_nonfinite: bool = False,
  ) -> Restored | None:
    """Waits for a save under way, then calls `restore` of this module."""
    self.wait()
    return restore(
      self._directory, like, step=step, allow_nonfinite=allow_nonfinite
    )

  def _write(
    self, step: int, arrays: dict[str, np.ndarray], content: bytes
  ) -> None:
    """The background thread: write aside, seal, flush, rename, tidy up."""
    path = _step_path(self._directory, step)
    temporary = path.with_name(f'{path.name}.tmp')
    try:
      temporary.mkdir()
      _write_arrays(temporary / 'state', arrays)
      (temporary / 'meta.json').write_bytes(content)
      manifest.write(temporary)
      _flush(temporary)
      _swap_in(temporary, path)
    except BaseException as error:
      # Said now, too: a process that ends without `close` raises nothing.
      logging.error('step %d could not be saved: %s', step, _brief(error))
      shutil.rmtree(temporary, ignore_errors=True)
      raise
    written = [other for other in self.steps() if other <= step]
    for other in written[: -self._keep]:
      if self._keep_every is None or other % self._keep_every:
        _remove(_step_path(self._directory, other))


def steps(directory: Path) -> list[int]:
  """The steps below `directory`, ascending; none if there is no directory."""
  try:
    names = os.listdir(directory)
  except FileNotFoundError:
    return []
  return sorted(int(m[1]) for m in map(_STEP.fullmatch, names) if m)


def restore(
  directory: Path,
  like: PyTree,
  *,
  step: int | None = None,
  allow_nonfinite: bool = False,
  partial: bool = False,
) -> Restored | None:
  """Reads the newest intact step, or `step`; None if there are no steps.

  `like` is a tree of arrays, `jax.ShapeDtypeStruct`s or Python numbers. Each
  leaf comes back as its counterpart: NumPy as NumPy, a number as a number, the
  rest on the counterpart's sharding, whatever devices it was written from. A
  damaged step is passed over with a warning for the one before. With `partial`
  a step may hold more than `like`, which is not read.

  Raises:
    CheckpointError: `step`, or every step, is damaged.
    ValueError: there is no `step`; the tree of a step differs from `like`; a
      leaf holds NaN or infinity and `allow_nonfinite` is False.
  """
  read = functools.partial(
    _restore_step, like=like, allow_nonfinite=allow_nonfinite, partial=partial
  )
  directory = pathlib.Path(directory).absolute()
  found = steps(directory)
  if step is not None:
    if step not in found:
      raise ValueError(f'step must be one of {found}, got {step}.')
    return read(directory, step)
  for candidate in reversed(found):
    try:
      return read(directory, candidate)
    except CheckpointError as error:
      logging.warning('%s; trying the step before.', error)
  if found:
    raise CheckpointError(f'no step of {found} in {directory} is intact.')
  return None


def verify_directory(directory: Path) -> list[str]:
  """A line for every damaged file of every step; none if all is well."""
  directory = pathlib.Path(directory)
  found = steps(directory)
  if not found:
    return [f'{directory} holds no steps.']
  paths = [_step_path(directory, step) for step in found]
  return [f'{path.name}/{p}' for path in paths for p in manifest.verify(path)]


def _restore_step(
  directory: pathlib.Path,
  step: int,
  *,
  like: PyTree,
  allow_nonfinite: bool,
  partial: bool,
) -> Restored:
  path = _step_path(directory, step)
  problems = manifest.verify(path)
  if problems:
    more = f' (and {len(problems) - 1} more)' * (len(problems) > 1)
    raise CheckpointError(f'step {step} is damaged: {problems[0]}{more}')
  content = _read(step, lambda: json.loads((path / 'meta.json').read_bytes()))
  if content['schema'] != SCHEMA:
    raise ValueError(
      f'schema of step {step} must be {SCHEMA}, got {content["schema"]}.'
    )
  flat = leaves.flatten(like)
  saved = content['leaves']
  if partial:
    saved = {name: saved[name] for name in flat if name in saved}
  leaves.check_tree(step, saved, flat)
  arrays = _read(step, lambda: _read_arrays(path / 'state', flat))
  if not allow_nonfinite:
    leaves.check_finite(step, arrays)
  placed = [
    leaves.place(arrays[name], leaf, content['keys'].get(name))
    for name, leaf in flat.items()
  ]
  state = jax.tree.unflatten(jax.tree.structure(like), placed)
  return Restored(step, state, content['meta'])


def _read(step: int, reader: Callable[[], Any]) -> Any:
  """Calls `reader`; whatever it raises means that `step` is of no use."""
  try:
    return reader()
  except Exception as error:
    raise CheckpointError(
      f'step {step} cannot be read: {_brief(error)}'
    ) from error


def _encode_meta(
  step: int, flat: dict[str, Any], meta: dict[str, Any]
) -> bytes:
  content = {
    'schema': SCHEMA,
    'step': step,
    'leaves': {name: leaves.describe(leaf) for name, leaf in flat.items()},
    'keys': {
      name: str(jax.random.key_impl(leaf))
      for name, leaf in flat.items()
      if leaves.is_key(leaf)
    },
    'meta': meta,
  }
  try:
    return json.dumps(content, indent=1, allow_nan=False).encode()
  except (TypeError, ValueError) as error:
    raise ValueError(f'meta must be JSON without NaN: {error}.') from error


def _orbax() -> ocp.Checkpointer:
  """Orbax as a function of one process: it waits for no other."""
  here = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(
    primary_host=here,
    active_processes={here},
    barrier_sync_key_prefix=f'loopformer_{here}',
  )
  return ocp.Checkpointer(
    ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
    multiprocessing_options=alone,
  )


def _write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  """Orbax takes no empty arrays and no empty tree: `meta.json` has those."""
  filled = {name: array for name, array in arrays.items() if array.size}
  if filled:
    with _orbax() as orbax:
      orbax.save(path, args=ocp.args.PyTreeSave(filled))


def _read_arrays(
  path: pathlib.Path, flat: dict[str, Any]
) -> dict[str, np.ndarray]:
  """These arrays whole and on the host, so that no device layout matters."""
  arrays = {
    n: leaves.empty(leaf) for n, leaf in flat.items() if not np.size(leaf)
  }
  as_numpy = {
    name: ocp.RestoreArgs(restore_type=np.ndarray)
    for name in flat
    if name not in arrays
  }
  if as_numpy:
    with _orbax() as orbax:
      arguments = ocp.args.PyTreeRestore(
        as_numpy, restore_args=as_numpy, partial_restore=True
      )
      arrays |= orbax.restore(path, args=arguments)
  return arrays


def _step_path(directory: pathlib.Path, step: int) -> pathlib.Path:
  return directory / f'step_{step:08d}'


def _clean(directory: pathlib.Path) -> None:
  """Removes what killed runs left; brings back a step they were replacing."""
  for path in directory.iterdir():
    if _LEFTOVER.fullmatch(path.name):
      step = path.with_suffix('')
      if path.suffix == '.old' and not step.exists():
        path.rename(step)
      else:
        shutil.rmtree(path)


def _swap_in(temporary: pathlib.Path, path: pathlib.Path) -> None:
  """Renames `temporary` to `path`, durably; an earlier `path` goes last."""
  old = path.with_name(f'{path.name}.old')
  if path.exists():
    path.rename(old)
  temporary.rename(path)
  _fsync(path.parent)
  shutil.rmtree(old, ignore_errors=True)


def _remove(path: pathlib.Path) -> None:
  """Takes the name away first: a step half removed must not look like one."""
  temporary = path.rename(path.with_name(f'{path.name}.tmp'))
  shutil.rmtree(temporary, ignore_errors=True)


def _flush(directory: pathlib.Path) -> None:
  """Every file and directory from here down to the disk."""
  for path in directory.rglob('*'):
    _fsync(path)
  _fsync(directory)


def _fsync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _brief(error: BaseException) -> str:
  """One line of an error, which may have hundreds."""
  first = (str(error).splitlines() or [''])[0]
  return f'{type(error).__name__}: {first[:200]}'
