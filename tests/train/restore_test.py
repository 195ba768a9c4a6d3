"""A run that is read to be measured, wherever it was trained."""

import json

import jax
import pytest

from loopformer.train import checkpoint
from loopformer.train.loop import train
from loopformer.train.restore import restore_run
from tests.train import tiny


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Workdir and end of a run of one step."""
  workdir = tmp_path_factory.mktemp('runs') / 'run'
  made = tiny.make(train={'steps': 1}, model={'start': 'zero'})
  return workdir, train(made, workdir)


def configured(workdir, section, **fields):
  """The run with another config."""
  path = workdir / 'config.json'
  config = json.loads(path.read_text())
  config[section] |= fields
  path.write_text(json.dumps(config))


@pytest.mark.parametrize('use_ema', [True, False])
def test_the_devices_it_was_trained_on_are_not_needed(
  use_ema, run, monkeypatch
):
  """A mesh and a batch that no device here could hold; no moments are read."""
  workdir, outcome = run
  mesh = {'data': 2, 'fsdp': 3, 'tensor': 1}
  configured(workdir, 'train', mesh=mesh, batch_size=7)
  configured(workdir, 'eval', use_ema=use_ema)
  read, seen = checkpoint._read_arrays, []

  def heard(path, flat):
    seen.extend(flat)
    return read(path, flat)

  monkeypatch.setattr(checkpoint, '_read_arrays', heard)
  found = restore_run(workdir)
  state = outcome.state
  params = state.ema if use_ema else state.params
  assert found.step == 1
  assert tiny.bits(found.subject.model) == tiny.bits(params)
  assert {name.split('/')[0] for name in seen} == {'params', 'ema'} - {
    'params' if use_ema else 'ema'
  }
  devices = {x.device for x in jax.tree.leaves(found.subject.model)}
  assert devices == {jax.local_devices()[0]}


def test_what_the_step_lacks_is_named(run):
  workdir, _ = run
  with pytest.raises(ValueError, match='1 missing .no float32.1.'):
    checkpoint.restore(
      workdir / 'checkpoints', {'no': jax.numpy.ones(1)}, partial=True
    )
