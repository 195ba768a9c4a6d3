"""Metrics: every step once in a valid file, and no writer stops a run."""

import json
import math
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from loopformer.train import metrics


def rows(path):
  return [
    json.loads(line, parse_constant=pytest.fail)
    for line in path.read_text().splitlines()
  ]


def test_resume_after_a_kill_has_every_step_once(tmp_path):
  path = tmp_path / 'new' / 'metrics.jsonl'
  first = metrics.JsonLinesWriter(path)
  for step in range(1, 8):
    first.write(step, {'loss': 1 / step})
  with path.open('ab') as file:  # Killed in the middle of a line.
    file.write(b'{"step": 8, "lo')
  again = metrics.JsonLinesWriter(path)
  again.truncate_after(4)
  for step in range(5, 9):
    again.write(step, {'loss': 1 / step})
  again.close()
  again.close()
  assert rows(path) == [{'step': s, 'loss': 1 / s} for s in range(1, 9)]


def test_a_line_survives_without_flush(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  metrics.JsonLinesWriter(path).write(
    3, {'a': jnp.float32(0.5), 'b': np.int32(2), 'c': True}
  )
  assert rows(path) == [{'step': 3, 'a': 0.5, 'b': 2.0, 'c': 1.0}]


def test_nonfinite_values_are_valid_json_and_read_back(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  values = {'a': math.nan, 'b': math.inf, 'c': -math.inf}
  metrics.JsonLinesWriter(path).write(1, values)
  (row,) = rows(path)
  assert [row[k] for k in 'abc'] == ['NaN', 'Infinity', '-Infinity']
  np.testing.assert_equal({k: float(row[k]) for k in 'abc'}, values)


def test_full_disk_leaves_no_half_line(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  writer = metrics.JsonLinesWriter(path)
  writer.write(1, {'loss': 1.0})

  class Full:
    """A file that takes seven bytes of a line."""

    def __init__(self, file):
      self.seek, self.truncate = file.seek, file.truncate
      self.write = lambda line: file.write(line[:7])

  whole, writer._file = writer._file, Full(writer._file)
  with pytest.raises(OSError, match='no room for the metrics of step 2'):
    writer.write(2, {'loss': 1.0})
  writer._file = whole
  writer.write(3, {'loss': 1.0})
  assert [row['step'] for row in rows(path)] == [1, 3]


def test_step_is_no_scalar(tmp_path):
  writer = metrics.JsonLinesWriter(tmp_path / 'metrics.jsonl')
  with pytest.raises(ValueError, match="'step'"):
    writer.write(1, {'step': 1.0})


def points(directory):
  """(tag, step, value) of every event, read without TensorFlow."""
  from tensorboardX.proto import event_pb2

  events = []
  for path in sorted(directory.iterdir()):
    raw = path.read_bytes()
    while raw:  # Length (8 bytes), its check (4), the event, its check (4).
      size = int.from_bytes(raw[:8], 'little')
      events.append(event_pb2.Event.FromString(raw[12 : 12 + size]))
      raw = raw[16 + size :]
  return events


def test_tensorboard(tmp_path):
  writer = metrics.TensorBoardWriter(tmp_path)
  assert not any(tmp_path.iterdir())
  writer.truncate_after(4)
  writer.write(5, {'loss': jnp.float32(0.5)})
  writer.flush()
  writer.close()
  writer.close()
  events = points(tmp_path)
  values = [(v.tag, e.step, v.simple_value) for e in events
            for v in e.summary.value]  # fmt: skip
  assert values == [('loss', 5, 0.5)]
  # A restart at step 5 hides what was said from there on before it.
  assert [e.step for e in events if e.HasField('session_log')] == [5]
  assert 'tensorflow' not in sys.modules


class Broken:
  """A writer whose every method fails."""

  def write(self, *_):
    raise RuntimeError('cannot')

  truncate_after = flush = close = write


def test_a_broken_writer_is_logged_once_and_stops_nothing(
  tmp_path, monkeypatch
):
  said = []
  monkeypatch.setattr(logging, 'error', lambda text, *a: said.append(text % a))
  path = tmp_path / 'metrics.jsonl'
  writer = metrics.MultiWriter([Broken(), metrics.JsonLinesWriter(path)])
  writer.truncate_after(0)
  writer.write(1, {'loss': 1.0})
  writer.write(2, {'loss': 1.0})
  writer.flush()
  writer.close()
  assert [row['step'] for row in rows(path)] == [1, 2]
  (line,) = said
  assert line == (
    'Broken.truncate_after failed, training goes on: RuntimeError: cannot'
  )
