"""The host loop: what a workdir holds, and how a run ends and goes on."""

import functools
import json
import logging
import os
import pathlib
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.core import devices
from loopformer.tasks import TASKS
from loopformer.tasks.sudoku import Sudoku
from loopformer.train import checkpoint, loop, step
from loopformer.train.experiment import bind, to_dict
from loopformer.train.state import create
from tests.train import tiny

TRAIN = {'steps': 12, 'save_every': 5, 'log_every': 1, 'ema': 0.9}


def experiment(**train):
  """Twelve steps, saved at 5, 10 and 12."""
  return tiny.make(train=TRAIN | train)


@functools.cache
def shared_step(_):
  """One compiled step for all runs of this file: their models are equal."""
  built = experiment()
  task = TASKS['sudoku'].build(built.task)
  return step.make_train_step(loop.make_setup(bind(built, task)))


@pytest.fixture(autouse=True)
def compile_once(monkeypatch):
  monkeypatch.setattr(loop, 'make_train_step', lambda _: shared_step(None))


@pytest.fixture
def at_batch(monkeypatch):
  """`at_batch(index, act)` calls `act(batch)` before that batch is used."""

  def install(index, act):
    class Faulty(Sudoku):
      def train_batch(self, seed, step, size):
        batch = super().train_batch(seed, step, size)
        if step == index:
          act(batch)
        return batch

    entry = TASKS['sudoku']._replace(build=Faulty)
    monkeypatch.setitem(TASKS, 'sudoku', entry)

  yield install


def poison(batch):
  """A label that is no class makes the loss not a number."""
  batch['labels'][0, 0] = 1000


def rows(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def assert_same_end(workdir, reference):
  """The whole state and every line of the metrics, bit for bit."""
  assert tiny.bits(last(workdir)) == tiny.bits(last(reference))
  ours, theirs = (
    (path / 'metrics.jsonl').read_bytes() for path in (workdir, reference)
  )
  assert ours == theirs


@functools.cache
def abstract():
  built = experiment()
  task = TASKS['sudoku'].build(built.task)
  return loop.make_setup(bind(built, task)).abstract


def last(workdir):
  restored = checkpoint.restore(workdir / 'checkpoints', abstract())
  assert restored.step == 12
  return restored.state


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
  """A run that nothing happened to; not to be written to."""
  workdir = tmp_path_factory.mktemp('reference') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, 'make_train_step', lambda _: shared_step(None))
    outcome = loop.train(experiment(), workdir)
  assert not outcome.interrupted
  assert tiny.bits(outcome.state) == tiny.bits(last(workdir))
  return workdir


def test_what_a_workdir_holds(reference):
  names = {path.name for path in reference.iterdir()}
  expected = {'config.json', 'env.json', 'metrics.jsonl', 'checkpoints', 'DONE'}
  assert names == expected
  assert checkpoint.steps(reference / 'checkpoints') == [5, 10, 12]
  assert checkpoint.verify_directory(reference / 'checkpoints') == []
  env = json.loads((reference / 'env.json').read_text())
  assert env['jax'] == jax.__version__ and env['devices'] == 1
  assert set(env) >= {'loopformer', 'python', 'platform', 'device'}
  config = json.loads((reference / 'config.json').read_text())
  assert config['train']['steps'] == 12
  assert config['model']['seq_len'] == 16  # As bound to the task.
  task = TASKS['sudoku'].build(experiment().task)
  bound = to_dict(bind(experiment(), task))
  assert config == json.loads(json.dumps(bound))


def test_metrics_have_each_step_once(reference):
  found = rows(reference)
  assert [row['step'] for row in found] == list(range(1, 13))
  names = {'loss', 'learning_rate', 'gradient_norm', 'skipped', 'mean_steps'}
  assert all(names <= set(row) for row in found)
  assert found[-1]['loss'] < found[0]['loss']


def test_log_every_and_the_last_step(tmp_path):
  loop.train(experiment(steps=7, log_every=3, save_every=100), tmp_path)
  assert [row['step'] for row in rows(tmp_path)] == [3, 6, 7]
  assert checkpoint.steps(tmp_path / 'checkpoints') == [7]


def test_a_finished_run_stays_finished(reference, tmp_path):
  """Rerun, also with fewer steps than it has made: nothing to do."""
  workdir = tmp_path / 'run'
  for steps in (12, 8):
    shutil.copytree(reference, workdir, dirs_exist_ok=True)
    outcome = loop.train(experiment(steps=steps), workdir)
    assert int(outcome.state.step) == 12 and not outcome.interrupted
    assert (workdir / 'DONE').exists() and not (workdir / 'FAILED').exists()
    assert_same_end(workdir, reference)


def test_more_steps_may_be_asked_for(reference, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(reference, workdir)
  outcome = loop.train(experiment(steps=14), workdir)
  assert int(outcome.state.step) == 14
  assert [row['step'] for row in rows(workdir)] == list(range(1, 15))


def test_a_changed_config_is_refused_in_one_line(reference):
  before = (reference / 'config.json').read_bytes()
  optimizer = {'name': 'lion', 'learning_rate': 0.5}
  other = tiny.make(
    loop={'max_steps': 2}, train=TRAIN | {'optimizer': optimizer}
  )
  with pytest.raises(ValueError) as error:
    loop.train(other, reference)
  text = str(error.value)
  assert '\n' not in text
  for line in (
    'loop.max_steps: 3 -> 2',
    "train.optimizer.name: 'adamw' -> 'lion'",
    'train.optimizer.learning_rate: 0.001 -> 0.5',
  ):
    assert line in text
  assert 'train.steps' not in text
  assert (reference / 'config.json').read_bytes() == before
  assert (reference / 'DONE').exists()


def test_a_state_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(devices, 'memory', lambda _: 1000)
  with pytest.raises(ValueError, match='^weights and optimizer .* must fit'):
    loop.train(experiment(), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_run_older_than_a_field_goes_on(reference, tmp_path):
  """What its config does not hold has its default; what it had is a change."""
  workdir = tmp_path / 'run'
  shutil.copytree(reference, workdir)
  path = workdir / 'config.json'
  config = json.loads(path.read_text())
  del config['model']['halting_bias']
  path.write_text(json.dumps(config))
  assert not loop.train(experiment(), workdir).interrupted
  path.write_text(json.dumps(config | {'model': config['model'] | {'old': 1}}))
  with pytest.raises(ValueError, match='model.old: 1 -> None'):
    loop.train(experiment(), workdir)


def test_sigterm_saves_and_a_flipped_bit_falls_back(
  reference, tmp_path, at_batch, caplog
):
  """Stopped after step 7; step 7 is damaged, so the run goes on from 5."""
  at_batch(6, lambda _: os.kill(os.getpid(), signal.SIGTERM))
  outcome = loop.train(experiment(), tmp_path)
  assert outcome.interrupted and int(outcome.state.step) == 7
  assert checkpoint.steps(tmp_path / 'checkpoints') == [5, 7]
  assert not {'DONE', 'FAILED'} & {path.name for path in tmp_path.iterdir()}
  assert [row['step'] for row in rows(tmp_path)] == list(range(1, 8))
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  flip_a_bit(tmp_path / 'checkpoints' / 'step_00000007')
  at_batch(-1, None)
  with caplog.at_level(logging.WARNING):
    loop.train(experiment(), tmp_path)
  assert 'step 7 is damaged' in caplog.text
  assert (tmp_path / 'DONE').exists()
  assert_same_end(tmp_path, reference)


def flip_a_bit(directory: pathlib.Path):
  """In the middle of the largest file."""
  files = [path for path in directory.rglob('*') if path.is_file()]
  path = max(files, key=lambda path: path.stat().st_size)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def test_abort_names_the_step_and_can_be_resumed(reference, tmp_path, at_batch):
  at_batch(6, poison)
  with pytest.raises(loop.NonFiniteError, match='^step 7: the loss is not fin'):
    loop.train(experiment(on_nonfinite='abort'), tmp_path)
  assert (tmp_path / 'FAILED').exists() and not (tmp_path / 'DONE').exists()
  assert checkpoint.steps(tmp_path / 'checkpoints') == [5]
  at_batch(-1, None)
  loop.train(experiment(on_nonfinite='abort'), tmp_path)
  assert (tmp_path / 'DONE').exists() and not (tmp_path / 'FAILED').exists()
  assert_same_end(tmp_path, reference)


def test_abort_names_the_leaf(tmp_path, monkeypatch):
  """A parameter that overflows shows in the gradients it touches."""

  def poisoned(setup):
    state = create(setup)
    state.params['head']['kernel'].set_value(jnp.full((8, 6), jnp.nan))
    return jax.device_put(state, setup.shardings)

  monkeypatch.setattr(loop, 'begin', poisoned)
  with pytest.raises(loop.NonFiniteError) as error:
    loop.train(experiment(), tmp_path)
  text = str(error.value)
  first = loop.parameter_names(abstract().params)[0]
  assert text.startswith(f'step 1: the gradient of {first} is not finite')
  assert '\n' not in text
  assert checkpoint.steps(tmp_path / 'checkpoints') == []


@pytest.mark.parametrize(
  ('loss', 'norm', 'where'),
  [
    (np.nan, np.nan, 'the loss'),
    (1.0, np.inf, 'the norm of the gradients'),
    (1.0, 1.0, 'the update'),
  ],
)
def test_abort_names_what_is_not_finite(
  loss, norm, where, tmp_path, monkeypatch
):
  metrics = {'loss': loss, 'gradient_norm': norm, 'finite': False}
  metrics['first_bad_leaf'] = -1
  step_fn = lambda state, batch: (state, metrics)
  monkeypatch.setattr(loop, 'make_train_step', lambda _: step_fn)
  with pytest.raises(loop.NonFiniteError, match=f'^step 1: {where} is not fin'):
    loop.train(experiment(), tmp_path)


def test_skip_leaves_the_update_out_and_counts_it(tmp_path, at_batch, caplog):
  at_batch(3, poison)
  with caplog.at_level(logging.WARNING):
    outcome = loop.train(experiment(on_nonfinite='skip'), tmp_path)
  assert (
    'step 4: the loss is not finite; the update was skipped.' in caplog.text
  )
  assert (int(outcome.state.step), int(outcome.state.skipped)) == (12, 1)
  found = rows(tmp_path)
  assert [row['step'] for row in found] == list(range(1, 13))
  assert [row['skipped'] for row in found] == [0.0] * 3 + [1.0] * 9
  assert np.isnan(float(found[3]['loss']))
  assert np.isfinite([float(row['loss']) for row in found[4:]]).all()
  assert (tmp_path / 'DONE').exists()


def test_a_save_that_fails_marks_the_run(tmp_path, monkeypatch):
  """The last save ends in the background, after the last step."""

  def full(*_):
    raise OSError('no space left on device')

  monkeypatch.setattr(checkpoint.manifest, 'write', full)
  with pytest.raises(checkpoint.CheckpointError, match='no space left'):
    loop.train(experiment(steps=2), tmp_path)
  assert (tmp_path / 'FAILED').exists() and not (tmp_path / 'DONE').exists()
