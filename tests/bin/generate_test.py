"""Text from a run by the command line, and mistakes told in one line."""

import pytest

from loopformer.train import experiment, loop
from tests import util
from tests.train import tiny

LENGTH = 32  # of the texts the run is trained on


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run of one step on text."""
  folder = tmp_path_factory.mktemp('text') / 'run'
  model = {
    'family': 'universal',
    'block': {**tiny.BLOCK, 'mask': 'causal'},
    'positions': 'sinusoidal',
  }
  config = {
    'model': model,
    'task': {'name': 'text', 'length': LENGTH},
    'loop': {'max_steps': 2},
    'train': {'batch_size': 2, 'steps': 1, 'tensorboard': False},
  }
  loop.train(experiment.from_dict(config), folder)
  return folder


def generate(*arguments):
  return util.run_module('loopformer.bin.generate', *arguments, check=False)


def test_text_goes_to_stdout_and_its_cost_to_stderr(workdir):
  done = generate(f'--workdir={workdir}', '--prompt=The ', '--tokens=12')
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('The ') and done.stdout.endswith('\n')
  assert '12 tokens in ' in done.stderr and ' 2.00 recurrences' in done.stderr
  assert 'trained on texts' not in done.stderr


def test_a_text_longer_than_those_trained_on_is_warned_of(workdir):
  arguments = ('--prompt=The ', f'--tokens={LENGTH}', '--temperature=0')
  done = generate(f'--workdir={workdir}', *arguments)
  assert done.returncode == 0, done.stderr
  assert f'trained on texts of {LENGTH} tokens' in done.stderr


MISTAKES = {
  'no prompt': ((), '--prompt must be given'),
  'empty prompt': (('--prompt=',), 'prompt'),
  'policy': (('--prompt=a', '--policy=none'), 'policy'),
  'depth': (('--prompt=a', f'--recurrences={10**9}'), 'texts must fit'),
  'halt': (('--prompt=a', '--halt={'), '--halt must be JSON'),
  'rule': (('--prompt=a', '--halt={"name": "no"}'), "got 'no'"),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_a_mistake_is_one_line(name, workdir):
  arguments, expected = MISTAKES[name]
  done = generate(f'--workdir={workdir}', *arguments)
  assert done.returncode == 2, done.stderr
  assert len(done.stderr.strip().splitlines()) == 1, done.stderr
  assert expected in done.stderr
  assert done.stdout == ''


def test_a_folder_that_holds_no_run_is_one_line(tmp_path):
  done = generate(f'--workdir={tmp_path}', '--prompt=a')
  assert done.returncode == 2
  assert done.stderr.startswith('loopformer-generate: workdir must hold a run')
