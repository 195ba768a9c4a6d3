"""Wrong input to a command: one line that names it, before anything is made."""

import jax
import pytest

from loopformer.bin import cli
from tests import util

CONFIG = '--config=experiments/universal.py:sudoku4'
MISTAKES = {
  'no config': ([], '--config must be given'),
  'missing file': (['--config=experiments/no.py'], 'experiments/no.py'),
  'unknown variant': (['--config=experiments/universal.py:no'], "got 'no'"),
  'no config file': (['--config=setup.py'], "get_config, got 'setup.py'."),
  'unknown key': (
    [CONFIG, '--config.loop.max_stepz=3'],
    '--config.loop.max_stepz=3 names no field of the config; did you mean '
    "'max_steps'?",
  ),
  'unknown part': ([CONFIG, '--config.seed=3'], '--config.seed=3 names no'),
  'wrong type': ([CONFIG, '--config.loop.max_steps=abc'], 'loop.max_steps'),
  'negative depth': ([CONFIG, '--config.loop.max_steps=-1'], 'got -1'),
  'unknown family': ([CONFIG, '--config.model.family=unversal'], 'universal'),
  'missing data': ([CONFIG, '--config.task.path=/no.csv'], 'task.path'),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_is_one_line(name, tmp_path):
  arguments, expected = MISTAKES[name]
  workdir = tmp_path / 'run'
  done = util.run_module(
    'loopformer.bin.train',
    *arguments,
    f'--workdir={workdir}',
    env={'JAX_PLATFORMS': 'no_such_platform'},
    check=False,
  )
  assert done.returncode == 2
  assert len(done.stderr.strip().splitlines()) == 1, done.stderr
  assert done.stderr.startswith('loopformer-train: ')
  assert expected in done.stderr
  assert not workdir.exists()


@pytest.mark.parametrize(
  ('message', 'told'),
  [('RESOURCE_EXHAUSTED: Out of memory for 9 bytes.\nat', 1), ('other', 0)],
)
def test_no_memory_is_one_line(message, told, capsys, monkeypatch):
  def run():
    raise jax.errors.JaxRuntimeError(message)

  monkeypatch.setattr(cli.app, 'run', lambda main, **_: main(['name']))
  monkeypatch.setattr(cli, 'keep_memory', lambda: True)
  monkeypatch.setattr(cli, '_quiet', lambda: None)
  launch = lambda: cli.launch('name', lambda: None, run)
  if told:
    launch()
    assert capsys.readouterr().err == f'name: {message[:-3]}\n'
  else:
    with pytest.raises(jax.errors.JaxRuntimeError):
      launch()


def test_evaluating_no_run_is_one_line(tmp_path):
  done = util.run_module(
    'loopformer.bin.evaluate', f'--workdir={tmp_path}', check=False
  )
  assert done.returncode == 2
  assert done.stderr == (
    f'loopformer-eval: workdir must hold a run (config.json), got {tmp_path}.\n'
  )
