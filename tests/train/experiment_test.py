"""A config is right, or refused in one line before any device is touched."""

import json

import pytest

from loopformer.tasks import TASKS
from loopformer.train import experiment as experiment_lib
from loopformer.train.experiment import bind, from_dict, to_dict
from loopformer.train.reduced import reduced
from loopformer.zoo import FAMILIES
from tests.tasks import tokens
from tests.train import tiny
from tests.util import run_python

HALTING = {**tiny.SECTIONS['model'], 'halting': True}
PONDER = {'halt': {'name': 'ponder'}}


@pytest.mark.parametrize(
  ('section', 'fields', 'says'),
  [
    (
      'model',
      {'family': 'univrsal'},
      (
        'model.family must be one of',
        "'univrsal'",
        "did you mean 'universal'?",
      ),
    ),
    ('model', {'family': None}, ('model.family must be one of', 'None')),
    ('model', {'family': ['universal']}, ('model.family must be one of',)),
    ('model', {'layrs': 2}, ('model.layrs is not a field', "'layers'")),
    ('model', {'layers': -1}, ('model.layers must be >= 1, got -1.',)),
    ('model', {'layers': True}, ('model.layers must be int, got True.',)),
    (
      'model',
      {'block': {'width': 7.5}},
      ('model.block.width must be int, got 7.5.',),
    ),
    ('model', {'block': {'stile': 'pre'}}, ('model.block.stile', "'style'")),
    ('model', {'block': 3}, ('model.block must be a mapping, got 3.',)),
    (
      'task',
      {'name': 'sudokku'},
      ('task.name must be one of', "did you mean 'sudoku'?"),
    ),
    ('task', {'sise': 4}, ('task.sise is not a field', "'size'")),
    ('task', {'size': 5}, ('task.', 'size', '5')),
    ('loop', {'max_steps': -3}, ('loop.max_steps must be >= 1, got -3.',)),
    ('loop', {'max_steps': 0}, ('loop.max_steps must be >= 1, got 0.',)),
    (
      'loop',
      {'halt': {'name': 'fixed_pont'}},
      ('loop.halt.name must be one of', "'fixed_point'"),
    ),
    (
      'loop',
      {'halt': {'name': 'fixed_point', 'rtoll': 1}},
      ('loop.halt.rtoll', "'rtol'"),
    ),
    (
      'loop',
      {'halt': {'name': 'fixed_point', 'rtol': -1.0}},
      ('loop.halt.rtol must be >= 0, got -1.0.',),
    ),
    (
      'loop',
      {'halt': {'name': 'fixed_steps', 'count': -1}},
      ('loop.halt.count must be >= 0, got -1.',),
    ),
    (
      'loop',
      {'adjoint': {'name': 'fulll'}},
      ('loop.adjoint.name must be one of', "'full'"),
    ),
    (
      'loop',
      {'adjoint': {'name': 'last_k', 'k': 0}},
      ('loop.adjoint.k must be >= 1, got 0.',),
    ),
    (
      'loop',
      {'adjoint': {'name': 'none'}},
      ('loop.adjoint.name must be one of', "got 'none'"),
    ),
    (
      'loop',
      {'adjoint': {'remat': 1}},
      ('loop.adjoint.name must be one of', 'None'),
    ),
    (
      'loop',
      {'solver': {'name': 'andersen'}},
      ('loop.solver.name must be one of', "'anderson'"),
    ),
    (
      'loop',
      {'depth': {'name': 'fixed', 'count': -2}},
      ('loop.depth.count must be > 0, got -2.',),
    ),
    (
      'loop',
      {'depth': {'name': 'poison'}},
      ('loop.depth.name must be one of',),
    ),
    (
      'loop',
      {'rows': 'cell'},
      ("loop.rows must be one of ('sample', 'token'), got 'cell'.",),
    ),
    (
      'loop',
      {'halt': {'name': 'act'}},
      ("the head 'halt'", 'which this model does not have'),
    ),
    ('train', {'setps': 3}, ('train.setps is not a field', "'steps'")),
    ('train', {'steps': '10'}, ("train.steps must be int, got '10'.",)),
    (
      'train',
      {'batch_size': True},
      ('train.batch_size must be int, got True.',),
    ),
    (
      'train',
      {'accumulate': 3},
      ('train.batch_size must be a multiple of accumulate = 3, got 8.',),
    ),
    ('train', {'ema': 1}, ('train.ema must be in [0, 1), got 1.0.',)),
    (
      'train',
      {'objective': 'lst'},
      ('train.objective must be one of', "got 'lst'"),
    ),
    ('train', {'objective': 'expected'}, ("needs loop.halt.name = 'ponder'",)),
    (
      'train',
      {'optimizer': {'name': 'adamww'}},
      ('train.optimizer.name must be one of', "'adamww'"),
    ),
    (
      'train',
      {'optimizer': {'learning_rate': 0}},
      ('train.optimizer.learning_rate must be > 0, got 0.0.',),
    ),
    ('train', {'mesh': {'fsdp': -1}}, ('train.mesh.', '(-1, -1, 1)')),
    ('train', {'mesh': {'tensor': 0}}, ('train.mesh.tensor must be >= 1',)),
    ('eval', {'depths': [1, -4]}, ('eval.depths must be >= 1, got -4.',)),
    ('eval', {'depths': []}, ('eval.depths must hold at least one depth',)),
    ('eval', {'rules': [{'name': 'klx'}]}, ('eval.halt.name must be one of',)),
    (
      'eval',
      {'variations': [{'size': 6}, {'length': 32}]},
      ('eval.variations[1].length is not a field', "'size'"),
    ),
    ('eval', {'variations': [{'size': 5}]}, ('eval.variations[0].size must',)),
    (
      'eval',
      {'rollouts': {'count': -1}},
      ('eval.rollouts.count must be >= 0',),
    ),
  ],
)
def test_a_mistake_is_one_line(section, fields, says):
  with pytest.raises(ValueError) as error:
    from_dict(tiny.sections(**{section: fields}))
  text = str(error.value)
  assert '\n' not in text
  for part in says:
    assert part in text


def test_sections_are_checked():
  with pytest.raises(ValueError, match="modle is not a section.*'model'"):
    from_dict({**tiny.sections(), 'modle': {}})
  with pytest.raises(ValueError, match='^loop must be a mapping, got 8.$'):
    from_dict({**tiny.sections(), 'loop': 8})
  with pytest.raises(ValueError, match='^model.family must be one of'):
    from_dict({})


@pytest.mark.parametrize('adjoint', ['implicit', 'phantom', 'last_k'])
def test_objectives_need_their_recurrences(adjoint):
  arguments = {'phantom': {'k': 2, 'tau': 0.5}, 'last_k': {'k': 1}}
  spec = {'name': adjoint, **arguments.get(adjoint, {})}
  changes = {'model': HALTING, 'train': {'objective': 'expected'}}
  with pytest.raises(ValueError, match='loop.adjoint.name must be one of'):
    from_dict(tiny.sections(**changes, loop={**PONDER, 'adjoint': spec}))
  if adjoint != 'last_k':
    every = {'objective': 'every'}
    with pytest.raises(ValueError, match='loop.adjoint.name must be one of'):
      from_dict(tiny.sections(loop={'adjoint': spec}, train=every))


def test_expected_takes_ponder_per_sample():
  changes = {'model': HALTING, 'train': {'objective': 'expected'}}
  assert tiny.make(**changes, loop=PONDER).train.objective == 'expected'
  for wrong in (
    {'rows': 'token'},
    {'halt': {'name': 'ponder', 'sample': True}},
  ):
    with pytest.raises(ValueError, match='unsampled, per sample'):
      tiny.make(**changes, loop={**PONDER, **wrong})


@pytest.mark.parametrize(
  'loop, train, says',
  [
    ({}, {'objective': 'supervision'}, "model.halting must be 'q' for train"),
    ({'halt': {'name': 'q'}}, {}, "halt = 'q' reads the head 'q', which"),
    ({'rows': 'token', 'halt': {'name': 'act'}}, {}, "the head 'halt_token'"),
  ],
)
def test_a_reasoner_has_the_head_that_is_trained(loop, train, says):
  model = {'family': 'trm', 'halting': 'probability'}
  config = {'model': model, 'task': {'name': 'sudoku'}}
  for name, objective in (('act', 'last'), ('ponder', 'expected')):
    trained = {'loop': {'halt': {'name': name}}}
    from_dict({**config, **trained, 'train': {'objective': objective}})
  with pytest.raises(ValueError, match=says) as error:
    from_dict({**config, 'loop': loop, 'train': train})
  assert '\n' not in str(error.value)
  with pytest.raises(ValueError, match="halt = 'act' reads the head 'halt'"):
    halt = {'halt': {'name': 'act'}}
    from_dict({**config, 'model': {'family': 'trm'}, 'loop': halt})


RICH = tiny.sections(
  model={'halting': True},
  loop={
    'halt': {
      'name': 'any_of',
      'rules': [{'name': 'fixed_point', 'rtol': 0.01}, {'name': 'act'}],
    },
    'adjoint': {'name': 'last_k', 'k': 2},
    'depth': {'name': 'uniform_set', 'values': [1, 2]},
  },
  train={
    'optimizer': {'name': 'muon', 'learning_rate': 1},
    'mesh': {'fsdp': 2},
  },
  eval={'depths': [1, 2], 'rules': [{'name': 'fixed_point', 'rtol': 0.1}]},
)


@pytest.mark.parametrize('config', [tiny.SECTIONS, RICH])
def test_round_trip_through_json(config):
  made = from_dict(config)
  text = json.dumps(to_dict(made))
  assert from_dict(json.loads(text)) == made
  assert from_dict(to_dict(made)) == made
  assert json.loads(json.dumps(to_dict(from_dict(json.loads(text))))) == (
    json.loads(text)
  )


def test_what_is_left_out_has_its_default():
  made = from_dict(
    {'model': {'family': 'universal'}, 'task': {'name': 'sudoku'}}
  )
  assert made.train == experiment_lib.TrainConfig()
  assert made.eval == experiment_lib.EvalConfig()
  assert made.model == FAMILIES['universal'].config()


def test_config_dict_can_be_overridden_and_read_back():
  config = experiment_lib.config_dict(**tiny.sections())
  config.lock()
  config.train.steps = 77
  assert from_dict(config.to_dict()).train.steps == 77
  with pytest.raises(AttributeError):
    config.train.setps = 3


def test_variations_are_tasks_with_the_same_tokens():
  changes = ({'length': 9}, {'length': 12, 'seed': 3})
  words = {'name': 'group', 'group': 'z5', 'length': 6}
  config = {'model': {'family': 'universal'}, 'task': words}
  made = from_dict({**config, 'eval': {'variations': changes}})
  built = experiment_lib.build_variations(made)
  sizes = {name: task.seq_len for name, task in built.items()}
  assert sizes == {'length=9': 10, 'length=12,seed=3': 13}
  assert built['length=12,seed=3'].config.group == 'z5'
  assert from_dict(to_dict(made)) == made
  other = from_dict({**config, 'eval': {'variations': [{'group': 's3'}]}})
  with pytest.raises(ValueError, match='must keep vocab_size = 6, got 7.'):
    experiment_lib.build_variations(other)


def test_bind_takes_sizes_from_the_task():
  made = tiny.make(model={'vocab_size': 99, 'seq_len': 2})
  bound = bind(made, TASKS['sudoku'].build(made.task))
  sizes = bound.model.vocab_size, bound.model.num_classes, bound.model.seq_len
  assert sizes == (6, 6, 16)


def test_a_causal_task_needs_a_causal_model():
  made = tiny.make()

  class Causal:
    vocab_size, num_classes, seq_len, causal = 4, 4, 4, True

  with pytest.raises(ValueError, match='model.block.mask must be causal') as e:
    bind(made, Causal)
  assert '\n' not in str(e.value)


NUMBERS = {'name': 'regression', 'dims': 3}
CAUSAL = {'family': 'universal', 'block': {'mask': 'causal'}}


def test_a_task_of_numbers_gives_the_model_its_features():
  made = from_dict({'model': CAUSAL, 'task': NUMBERS})
  model = bind(made, TASKS['regression'].build(made.task)).model
  assert (model.features, model.num_classes, model.seq_len) == (3, 1, 22)
  # A task of tokens takes them away.
  made = tiny.make(model={'features': 2})
  assert bind(made, TASKS['sudoku'].build(made.task)).model.features == 0


@pytest.mark.parametrize(
  ('changes', 'says'),
  [
    ({'model': {'family': 'trm'}}, "for task 'regression' of real numbers"),
    (
      {'train': {'objective': 'supervision'}},
      "train.objective must not be 'supervision' for task 'regression'",
    ),
    ({'eval': {'rules': [{'name': 'argmax'}]}}, "reads the head 'logits'"),
    ({'loop': {'halt': {'name': 'kl', 'threshold': 0.1}}}, 'reads the head'),
    (
      {'model': {'family': 'huginn', 'block': {'mask': 'causal'}}},
      'features must be 0 with tied',
    ),
  ],
)
def test_what_needs_tokens_is_refused_numbers(changes, says):
  made = from_dict({'model': CAUSAL, 'task': NUMBERS, **changes})
  with pytest.raises(ValueError, match=says) as error:
    bind(made, TASKS['regression'].build(made.task))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('family', FAMILIES)
def test_reduced_is_small_and_valid(family):
  config = {'model': {'family': family}, 'task': {'name': 'sudoku', 'size': 9}}
  small = reduced(from_dict(config))
  assert small.model.block.width == 16
  assert (small.train.steps, small.task.size) == (2, 4)
  assert from_dict(to_dict(small)) == small


CONFIGURE = """
from jax._src import xla_bridge
from tests.train import tiny
tiny.make(loop={'depth': {'name': 'uniform_set', 'values': [1, 2]}})
for section, fields in (
    ('model', {'layers': -1}),
    ('loop', {'halt': {'name': 'fixed_point', 'rtol': 'x'}}),
):
  try:
    tiny.make(**{section: fields})
  except ValueError as error:
    print(error)
assert not xla_bridge.backends_are_initialized()
"""


def test_no_backend_starts_for_a_config():
  first, second = run_python(CONFIGURE, fresh=True).stdout.splitlines()
  assert first == 'model.layers must be >= 1, got -1.'
  assert second == "loop.halt.rtol must be float, got 'x'."


def test_the_vocabulary_of_a_model_is_that_of_its_tokenizer(tmp_path):
  pytest.importorskip('tokenizers')
  path = tokens.byte_level(tmp_path)

  def bound(**fields):
    task = {'name': 'text', 'length': 16, 'tokenizer': path, **fields}
    model = {'family': 'recurrent_depth'}
    experiment = from_dict({'model': model, 'task': task})
    return bind(experiment, experiment_lib.build_task(experiment)).model

  assert bound().vocab_size == bound().num_classes == 300
  assert bound(vocab_size=384).vocab_size == 384
  for fields, line in (
    ({'vocab_size': 256}, 'task.vocab_size must be >= 300, the tokens'),
    ({'tokenizer': 'x.json'}, "task.tokenizer must be 'bytes' or an existing"),
    ({'documents': 'whole', 'length': 10**9}, 'the text must give more than'),
  ):
    with pytest.raises(ValueError, match=line):
      bound(**fields)
