"""Writers of scalar metrics: JSON lines, TensorBoard, and several at once."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from absl import logging

from loopformer.train.manifest import write_atomically


@runtime_checkable
class Writer(Protocol):
  """Where the scalars of a step go. Call `write` once per step."""

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Records `scalars` (anything `float` takes) of `step`."""

  def truncate_after(self, step: int) -> None:
    """Forgets steps after `step`: call it with the step a run starts from."""

  def flush(self) -> None:
    """Returns once everything written is on the disk."""

  def close(self) -> None:
    """Flushes and lets go of the files; writing after it is an error."""


class JsonLinesWriter:
  """One line `{"step": 10, "loss": 0.5}` per step, appended to `path`.

  A line is handed to the operating system whole, so that a killed process
  loses none. JSON has no NaN: non-finite values are the strings 'NaN',
  'Infinity' and '-Infinity' (as in proto3's JSON), which `float` reads.
  """

  def __init__(self, path: str | os.PathLike[str]):
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._file = self._path.open('ab', buffering=0)

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Appends one line. A write that fails leaves no half line behind.

    Raises:
      ValueError: if a scalar is called 'step'.
      OSError: if the line could not be written.
    """
    if 'step' in scalars:
      raise ValueError("scalars must not be called 'step'.")
    row = {'step': int(step)} | {k: _valid(v) for k, v in scalars.items()}
    line = json.dumps(row, allow_nan=False).encode() + b'\n'
    end = self._file.seek(0, os.SEEK_END)
    if self._file.write(line) != len(line):
      self._file.truncate(end)
      raise OSError(f'{self._path}: no room for the metrics of step {step}.')

  def truncate_after(self, step: int) -> None:
    """Drops the lines of later steps and torn ones, in one atomic rewrite."""
    lines = self._path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _keeps(line, step)]
    self._file.close()
    write_atomically(self._path, b''.join(kept))
    self._file = self._path.open('ab', buffering=0)

  def flush(self) -> None:
    """Waits for the disk."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file; a second call does nothing."""
    if not self._file.closed:
      self.flush()
      self._file.close()


class TensorBoardWriter:
  """Event files for TensorBoard, through tensorboardX: no TensorFlow."""

  def __init__(self, directory: str | os.PathLike[str]):
    """Opens no file before the first `write`."""
    import tensorboardX  # Here: half a second that only its users should pay.

    self._open = tensorboardX.SummaryWriter
    self._directory = os.fspath(directory)
    self._purge: int | None = None
    self._events = None

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Adds one point to the curve of every scalar."""
    if self._events is None:
      self._events = self._open(self._directory, purge_step=self._purge)
    for name, value in scalars.items():
      self._events.add_scalar(name, float(value), int(step))

  def truncate_after(self, step: int) -> None:
    """Tells TensorBoard to hide what earlier event files say after `step`."""
    self.close()
    self._purge = step + 1

  def flush(self) -> None:
    """Waits for the queue of tensorboardX."""
    if self._events is not None:
      self._events.flush()

  def close(self) -> None:
    """Closes the event file; a later `write` opens another."""
    if self._events is not None:
      self._events.close()
      self._events = None


class MultiWriter:
  """Sends everything to each of `writers`; none of them can stop a run.

  The first failure of a writer is logged, later ones are silent.
  """

  def __init__(self, writers: Sequence[Writer]):
    self._writers = tuple(writers)
    self._failed: set[int] = set()

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes to every writer."""
    self._each('write', step, scalars)

  def truncate_after(self, step: int) -> None:
    """Truncates every writer."""
    self._each('truncate_after', step)

  def flush(self) -> None:
    """Flushes every writer."""
    self._each('flush')

  def close(self) -> None:
    """Closes every writer."""
    self._each('close')

  def _each(self, method: str, *args: Any) -> None:
    for index, writer in enumerate(self._writers):
      try:
        getattr(writer, method)(*args)
      except Exception as error:  # noqa: BLE001 - training goes on
        if index not in self._failed:
          self._failed.add(index)
          logging.error(
            '%s.%s failed, training goes on: %s: %s',
            type(writer).__name__, method, type(error).__name__, error,
          )  # fmt: skip


def _valid(value: Any) -> float | str:
  """A value that JSON can hold."""
  number = float(value)
  if math.isfinite(number):
    return number
  if math.isnan(number):
    return 'NaN'
  return 'Infinity' if number > 0 else '-Infinity'


def _keeps(line: bytes, step: int) -> bool:
  """Whether `line` is whole and of `step` or before it."""
  try:
    return line.endswith(b'\n') and json.loads(line)['step'] <= step
  except (ValueError, KeyError, TypeError):
    return False
