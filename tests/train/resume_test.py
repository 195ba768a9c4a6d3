"""Killed processes end where an uninterrupted one does, bit for bit."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from loopformer.tasks import TASKS
from loopformer.train import checkpoint
from loopformer.train.experiment import bind
from loopformer.train.state import make_setup
from tests.train import tiny

ROOT = pathlib.Path(__file__).parents[2]
CHANGES = {
  'model': {'block': {'width': 16, 'heads': 2, 'style': 'post'}},
  'loop': {'depth': {'name': 'uniform_set', 'values': [1, 2, 3]}},
  'train': {'steps': 40, 'save_every': 5, 'log_every': 1, 'ema': 0.9},
}

# Children of one process, so that the imports are made once; each starts JAX
# by itself. A child dies by its own SIGKILL at a named point, or by its
# parent's a number of seconds after its first step.
DRIVER = """
    import json, os, pathlib, random, signal, sys, time, traceback
    from loopformer.tasks.sudoku import Sudoku
    from loopformer.train import checkpoint, loop, metrics
    from tests.train import tiny

    def die_at(owner, name, count):
      original, calls = getattr(owner, name), []

      def wrapped(*args, **kwargs):
        calls.append(0)
        if len(calls) == count:
          os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

      setattr(owner, name, wrapped)

    POINTS = {
      'batch': (Sudoku, 'train_batch'),
      'metrics': (metrics.JsonLinesWriter, 'write'),
      'flush': (metrics.JsonLinesWriter, 'flush'),
      'arrays': (checkpoint, '_write_arrays'),
      'seal': (checkpoint.manifest, 'write'),
      'rename': (checkpoint, '_swap_in'),
      'prune': (checkpoint, '_remove'),
    }

    def run(workdir, point, count):
      if point in POINTS:
        die_at(*POINTS[point], int(count))
      try:
        loop.train(tiny.make(**json.loads(sys.argv[2])), workdir)
        os._exit(0)
      except BaseException:
        traceback.print_exc()
        os._exit(1)

    def lines(path):
      return path.read_bytes().count(b'\\n') if path.exists() else 0

    workdir = pathlib.Path(sys.argv[1])
    for when in sys.argv[3:]:
      point, _, count = when.partition(':')
      child = os.fork()
      if not child:
        run(workdir, point, count)
      if point == 'after':
        before = lines(workdir / 'metrics.jsonl')
        while lines(workdir / 'metrics.jsonl') == before:
          time.sleep(0.001)
          if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(float(count))
        os.kill(child, signal.SIGKILL)
      _, status = os.waitpid(child, 0)
      killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
      finished = status == 0 and point in ('end', 'after')
      assert killed and point != 'end' or finished, (when, status)
      print(when, checkpoint.steps(workdir / 'checkpoints'), flush=True)
"""


def drive(workdir, *whens, timeout=120):
  """Runs a training to each of these ends in turn, in the same workdir."""
  ran = subprocess.run(
    [
      sys.executable,
      '-c',
      textwrap.dedent(DRIVER),
      workdir,
      json.dumps(CHANGES),
      *whens,
    ],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=timeout,
  )
  assert ran.returncode == 0, f'{ran.stdout}\n{ran.stderr}'
  return ran.stdout.splitlines()


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
  """A run that nothing happened to."""
  workdir = tmp_path_factory.mktemp('reference') / 'run'
  assert drive(workdir, 'end') == ['end [30, 35, 40]']
  return workdir


def final(workdir):
  """The bits of the last state: all of it, counters and key included."""
  experiment = tiny.make(**CHANGES)
  task = TASKS['sudoku'].build(experiment.task)
  setup = make_setup(bind(experiment, task))
  restored = checkpoint.restore(workdir / 'checkpoints', setup.abstract)
  assert restored.step == int(restored.state.step) == 40
  names = restored.state._fields
  return {name: tiny.bits(getattr(restored.state, name)) for name in names}


def assert_same(workdir, reference):
  ours, theirs = final(workdir), final(reference)
  assert [name for name in ours if ours[name] != theirs[name]] == []
  assert len(theirs['params']) == len(theirs['ema']) > 0
  read = lambda path: (path / 'metrics.jsonl').read_bytes()
  assert read(workdir) == read(reference)
  steps = [json.loads(line)['step'] for line in read(workdir).splitlines()]
  assert steps == list(range(1, 41))
  assert (workdir / 'DONE').exists() and not (workdir / 'FAILED').exists()
  leftovers = [p.name for p in (workdir / 'checkpoints').iterdir()]
  assert sorted(leftovers) == [f'step_{s:08d}' for s in (30, 35, 40)]


def test_killed_and_resumed(reference, tmp_path):
  """Between two saves, in the middle of one, and before the metrics of one."""
  # The counts are of calls in that process. A save waits for the one before.
  ends = drive(tmp_path, 'batch:13', 'seal:2', 'metrics:14', 'end')
  newest = [json.loads(end[end.index('[') :])[-1] for end in ends]
  assert newest == sorted(newest) and newest[0] >= 5 and newest[-1] == 40
  assert_same(tmp_path, reference)


@pytest.mark.slow
def test_killed_at_every_named_point(reference, tmp_path):
  """About a minute: each point once, early or late in its process."""
  whens = ('batch:1', 'arrays:1', 'rename:2', 'flush:2', 'prune:1', 'metrics:1')
  drive(tmp_path, *whens, 'end', timeout=600)
  assert_same(tmp_path, reference)


@pytest.mark.slow
def test_killed_at_random_times(reference, tmp_path):
  """About three minutes: twenty runs, killed 0 to 0.3 s after a first step."""
  for run in range(4):
    delays = [(0.061 * (5 * run + i)) % 0.3 for i in range(5)]
    whens = [f'after:{delay:.3f}' for delay in delays]
    drive(tmp_path / str(run), *whens, 'end', timeout=600)
    assert_same(tmp_path / str(run), reference)
