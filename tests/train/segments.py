"""Small reasoners trained one segment at a time, for tests of supervision."""

import functools

from loopformer.train import experiment
from loopformer.train.supervised import supervision_of
from tests.models import family_model
from tests.train import tiny

MODEL = {
  'vocab_size': 6,
  'num_classes': 6,
  'seq_len': 4,
  'layers': 1,
  'puzzles': 5,
  'puzzle_width': 8,
  'prefix': 1,
}
BLOCK = {**tiny.BLOCK, 'norm_gain': False}
CYCLES = {'high_cycles': 1, 'low_cycles': 1}
WINDOW = {
  'name': 'at_multiples',
  'k': 3,
  'rule': {'name': 'fixed_point', 'rtol': 0.5, 'norm': 'token_max'},
}
# By name: fields of the model, of the loop and of training.
CASES = {
  'trm': (CYCLES, {'max_steps': 3, 'halt': {'name': 'q'}}, {}),
  'capped': ({'family': 'trm', **CYCLES}, {'max_steps': 3}, {'segment': 2}),
  'fprm': (
    {
      'block': {**BLOCK, 'style': 'pre'},
      'conv': 'line',
      'conv_taps': 2,
      'start_std': 1.0,
    },
    {
      'max_steps': 6,
      'norm': 'token_max',
      'halt': WINDOW,
      'solver': {'name': 'patience_damped', 'decay': 0.9, 'patience': 1},
    },
    {'segment': 3},
  ),
}
TRAIN = {
  'batch_size': 8,
  'steps': 10,
  'objective': 'supervision',
  'cross_entropy': 'stablemax',
  'tensorboard': False,
}


def sections(name, **train):
  """A case as nested dicts."""
  model, loop, more = CASES[name]
  model = {'family': name, 'block': BLOCK, **MODEL, **model}
  return {
    'model': model,
    'task': {'name': 'sudoku'},
    'loop': loop,
    'train': {**TRAIN, **more, **train},
  }


@functools.cache
def how(name):
  """How a case is supervised."""
  return supervision_of(experiment.from_dict(sections(name)))


def model_of(name):
  """Its model, with no array at a special value."""
  made = experiment.from_dict(sections(name))
  return family_model(made.family, made.model, seed=1)
