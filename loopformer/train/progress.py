"""How far a run is: a live bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from tqdm import tqdm


@runtime_checkable
class Stream(Protocol):
  """What is asked of a text stream."""

  def write(self, text: str, /) -> Any: ...
  def flush(self) -> None: ...
  def isatty(self) -> bool: ...


class Progress:
  """Steps done, steps per second, time left and a few metrics.

  On a terminal the line is redrawn ten times a second; elsewhere (log files,
  notebooks) a line is printed every `every` seconds, the first and last step
  included. The rate counts from the end of the first step, which compiles:

      rate = (step - first) / (now - time of first)
      left = (total - step) / rate

  on a monotonic clock, which no change of the date can turn back.
  """

  def __init__(
    self,
    total: int,
    start: int = 0,
    *,
    description: str = 'train',
    stream: Stream | None = None,
    every: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Counts from `start` to `total`; `stream` is standard error by default."""
    if not 0 <= start <= total:
      raise ValueError(f'start must be between 0 and {total}, got {start}.')
    self._total = total
    self._description = description
    self._stream = sys.stderr if stream is None else stream
    self._live = self._stream.isatty()
    self._every = 0.1 if self._live else every
    self._clock = clock
    self._began = clock()
    self._step = start
    self._first: tuple[int, float] | None = None
    self._shown: tuple[int, float] | None = None
    self._metrics: dict[str, float] = {}

  def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
    """Says that `step` steps are done; `metrics` replace the ones shown.

    Metrics are converted to floats only when a line is due, so that an array
    still being computed does not make the host wait at every step.
    """
    now = self._clock()
    self._step = step
    self._first = self._first or (step, now)
    if metrics is not None:
      self._metrics = dict(metrics)
    if self._shown is None or now - self._shown[1] >= self._every:
      self._show(now)

  def close(self) -> None:
    """Shows the last step, if it was not, and ends the line; once."""
    if self._shown is None:
      return
    if self._shown[0] != self._step:
      self._show(self._clock())
    self._stream.write('\n' * self._live)
    self._stream.flush()
    self._shown = None

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *error: Any) -> None:
    self.close()

  def _show(self, now: float) -> None:
    self._shown = (self._step, now)
    numbers = ', '.join(f'{k} {float(v):.4g}' for k, v in self._metrics.items())
    line = self._bar(now, numbers) if self._live else self._line(now, numbers)
    self._stream.write(line)
    self._stream.flush()

  def _rate(self, now: float) -> float:
    """Steps per second; zero until a second step is done."""
    step, then = self._first or (self._step, now)
    return (self._step - step) / (now - then) if now > then else 0.0

  def _bar(self, now: float, numbers: str) -> str:
    bar = tqdm.format_meter(
      self._step, self._total, now - self._began, prefix=self._description,
      rate=self._rate(now) or None, postfix=numbers or None, unit='step',
      ncols=100,
    )  # fmt: skip
    return f'\r{bar}\x1b[K'

  def _line(self, now: float, numbers: str) -> str:
    rate = self._rate(now)
    parts = [f'{self._description}: step {self._step}/{self._total}']
    if rate > 0:
      left = tqdm.format_interval((self._total - self._step) / rate)
      parts += [f'{rate:.3g} steps/s', f'{left} left']
    return ', '.join(parts + [numbers] * bool(numbers)) + '\n'
