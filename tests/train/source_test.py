"""A run that starts from the end of another one."""

import jax
import numpy as np
import pytest

from loopformer.train.experiment import bind, from_dict
from loopformer.train.loop import train
from loopformer.train.source import arrays_of, begin
from loopformer.train.state import create, make_setup
from tests.conformance.tiny import BLOCK, TINY, TRAIN, task_of
from tests.train import tiny

PLAIN = {'family': 'feedforward', 'layers': 3, 'block': BLOCK}
RETROFIT = {
  'family': 'retrofit',
  'prelude': 1,
  'core': 1,
  'coda': 0,
  'embed_scale': 0.0,
  'block': BLOCK,
}


def experiment(model, length=6, **fields):
  made = from_dict(
    {
      'model': model,
      'task': {'name': 'group', 'group': 's3', 'length': length},
      'loop': {'max_steps': 1},
      'train': {**TRAIN, 'steps': 1, **fields},
    }
  )
  return bind(made, task_of(made))


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """Workdir and parameters of a decoder of three layers, trained a step."""
  workdir = tmp_path_factory.mktemp('source')
  outcome = train(experiment(PLAIN, ema=0.5), workdir)
  return str(workdir), jax.device_get(arrays_of(outcome.state.ema))


@pytest.mark.slow
def test_the_same_model_goes_on_with_the_averaged_parameters(source):
  workdir, theirs = source
  made = experiment(PLAIN, source={'workdir': workdir}, seed=5, ema=0.9)
  state = begin(make_setup(made))
  assert int(state.step) == 0
  for params in (state.params, state.ema):
    ours = arrays_of(params)
    assert sorted(ours) == sorted(theirs)
    for name, array in ours.items():
      np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_layers_of_a_decoder_become_a_looped_model(source):
  workdir, theirs = source
  where = {'workdir': workdir, 'layers': (0, 2)}
  setup = make_setup(experiment(RETROFIT, source=where))
  ours = arrays_of(begin(setup).params)
  assert sorted(ours) == sorted(arrays_of(create(setup).params))
  for name, layer in (('prelude', 0), ('core', 2)):
    for path, array in theirs.items():
      if "['block']" in path:
        mine = ours[path.replace('block', name, 1)]
        np.testing.assert_array_equal(mine[0], array[layer], err_msg=path)
  kernel = ours["['injection']['mix']['kernel'].value"]
  np.testing.assert_array_equal(kernel, np.eye(16, 8, -8))


def test_a_run_that_is_launched_so_starts_there(source, tmp_path):
  """At rate zero the trained model is the source."""
  workdir, theirs = source
  frozen = {**TRAIN['optimizer'], 'learning_rate': 1e-30}
  made = experiment(PLAIN, source={'workdir': workdir}, optimizer=frozen)
  ours = arrays_of(train(made, tmp_path).state.params)
  for name, array in ours.items():
    np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize(
  ('model', 'difference'),
  [
    ({**PLAIN, 'layers': 2}, 'model.layers: 3 -> 2'),
    # Of the same shapes throughout.
    (
      {**PLAIN, 'block': {**BLOCK, 'rotary_theta': 500.0}},
      'model.block.rotary_theta: 10000.0 -> 500.0',
    ),
    ({**RETROFIT, 'embed_scale': 1.0}, 'of shape '),
  ],
)
def test_a_run_of_another_model_is_refused(model, difference, source):
  made = experiment(model, source={'workdir': source[0]})
  with pytest.raises(ValueError) as error:
    begin(make_setup(made))
  text = str(error.value)
  assert text.startswith('train.source.workdir must hold a run of the same mod')
  assert difference in text and '\n' not in text


def test_texts_may_be_longer_than_those_of_the_source(source):
  made = experiment(PLAIN, length=9, source={'workdir': source[0]})
  ours = arrays_of(begin(make_setup(made)).params)
  for name, array in ours.items():
    np.testing.assert_array_equal(array, source[1][name], err_msg=name)


def test_arrays_that_no_gradient_trains_are_taken_too(tmp_path):
  """The stored initial states of a reasoner, drawn from another seed."""
  model = {'family': 'trm', **TINY['trm'][0]}
  theirs = train(experiment(model), tmp_path).state.rest
  source = {'workdir': str(tmp_path)}
  setup = make_setup(experiment(model, source=source, seed=5))
  drawn, ours = create(setup).rest, begin(setup).rest
  assert tiny.bits(ours) == tiny.bits(theirs) != tiny.bits(drawn)


@pytest.mark.parametrize(
  ('model', 'where', 'message'),
  [
    (PLAIN, {'workdir': 'runs/x', 'layers': (0,)}, 'must be () for model.fam'),
    (RETROFIT, {'workdir': 'runs/x', 'layers': (0,)}, 'must name 2 layers'),
    (RETROFIT, {'layers': (0, 1)}, 'workdir must name a run'),
    (PLAIN, {'workdir': 'runs/x', 'layers': (-1,)}, 'layers must be >= 0'),
  ],
)
def test_sources_that_make_no_sense_are_refused(model, where, message):
  with pytest.raises(ValueError) as error:
    experiment(model, source=where)
  assert str(error.value).startswith('train.source')
  assert message in str(error.value)


def test_a_missing_run_is_named():
  made = experiment(PLAIN, source={'workdir': '/nowhere'})
  with pytest.raises(ValueError, match='must hold a run .*nowhere'):
    begin(make_setup(made))
