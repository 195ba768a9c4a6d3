"""Progress: lines by time, hand-computed rates, and no negative time left."""

import io
import itertools
import time

import pytest

from loopformer.train.progress import Progress


class Clock:
  """A clock that moves when told to."""

  now = 0.0

  def __call__(self):
    return self.now


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_plain_lines_every_ten_seconds():
  clock, stream = Clock(), io.StringIO()
  with Progress(100, 20, stream=stream, clock=clock) as progress:
    clock.now = 60.0  # The first step compiles for a minute.
    for step in range(21, 101):
      progress.update(step, {'loss': 1 / step})
      clock.now += 0.25
  assert stream.getvalue().splitlines() == [
    'train: step 21/100, loss 0.04762',
    'train: step 61/100, 4 steps/s, 00:09 left, loss 0.01639',
    'train: step 100/100, 3.95 steps/s, 00:00 left, loss 0.01',
  ]


def test_terminal_redraws_one_line_and_ends_it_once():
  clock, stream = Clock(), Terminal()
  progress = Progress(4, description='eval', stream=stream, clock=clock)
  for step in range(1, 5):
    clock.now += 0.5
    progress.update(step)
  progress.close()
  progress.close()
  *_, last = stream.getvalue().split('\r')
  assert '4/4' in last and '2.00step/s' in last and last.startswith('eval')
  assert stream.getvalue().count('\n') == 1
  assert stream.getvalue().count('\r') == 4


def test_a_wall_clock_that_runs_backwards_changes_nothing(monkeypatch):
  monkeypatch.setattr(time, 'time', itertools.count(1e9, -3600.0).__next__)
  for stream in (io.StringIO(), Terminal()):
    with Progress(50, stream=stream, every=0.0) as progress:
      for step in range(1, 40):
        time.sleep(0.001)
        progress.update(step)
    assert 'steps/s' in stream.getvalue() or 'step/s' in stream.getvalue()
    assert '-' not in stream.getvalue()


def test_metrics_are_read_only_when_shown():
  class Costly:
    reads = 0

    def __float__(self):
      self.reads += 1
      return 1.0

  clock, value = Clock(), Costly()
  progress = Progress(1000, stream=io.StringIO(), clock=clock)
  for step in range(1, 1000):
    progress.update(step, {'loss': value})
  assert value.reads == 1


def test_nothing_done_says_nothing():
  stream = io.StringIO()
  with Progress(10, stream=stream):
    pass
  assert stream.getvalue() == ''


def test_start_beyond_the_end_is_refused():
  with pytest.raises(ValueError, match='start must be between 0 and 3, got 4'):
    Progress(3, 4)
