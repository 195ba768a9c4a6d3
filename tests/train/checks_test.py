"""Parts of an experiment that do not go together are one line."""

import pytest

from loopformer.train.experiment import from_dict
from tests.train import tiny
from tests.train.segments import sections

ACT = {'name': 'act'}
HELD = {'name': 'after', 'count': 2, 'rule': ACT}
HALTING = {**tiny.SECTIONS['model'], 'halting': True}


@pytest.mark.parametrize(
  'halt',
  [ACT, HELD, {'name': 'any_of', 'rules': [{'name': 'fixed_steps'}, HELD]}],
)
@pytest.mark.parametrize('objective', ['every', 'supervision'])
def test_act_needs_an_objective_that_pays_for_pondering(objective, halt):
  fields = {'model': HALTING, 'loop': {'halt': halt}}
  tiny.make(**fields, train={'objective': 'last'})
  with pytest.raises(ValueError, match='loop.halt must not hold act') as error:
    tiny.make(**fields, train={'objective': objective})
  assert f'train.objective = {objective!r}' in str(error.value)
  assert '\n' not in str(error.value)


def test_packed_documents_are_not_supervised():
  model = {'family': 'universal', 'block': {'mask': 'causal'}}
  config = {'model': model, 'task': {'name': 'text', 'pack': True}}
  from_dict(config)
  with pytest.raises(ValueError, match='^task.pack must be False') as error:
    from_dict({**config, 'train': {'objective': 'supervision'}})
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('fields', 'says'),
  [
    ({'seed': 2**64}, 'train.seed must be in [0, 2**32), got 1844674'),
    (
      {'optimizer': {'clip': float('inf')}},
      'train.optimizer.clip must be finite, got inf.',
    ),
  ],
)
def test_numbers_no_run_can_use_are_refused(fields, says):
  with pytest.raises(ValueError) as error:
    from_dict(sections('trm', **fields))
  assert str(error.value).startswith(says)
