"""Every family keeps every law it does not declare itself exempt from."""

import itertools

import pytest

from loopformer.zoo import FAMILIES
from tests.conformance.laws import LAWS
from tests.conformance.tiny import SUPERVISED, TINY, experiment

# TRM stands for the families that are trained and run in the same way, but not
# where its many cycles make a rounding error at this level of compilation more
# than one; on eight devices `tests/train/supervised_test.py` stands for all of
# them. `recurrent_depth` stands for the families on its chassis.
TRAINED_ALIKE = [family for family in SUPERVISED if family != 'trm']
RUN_ALIKE = [family for family in TRAINED_ALIKE if family != 'fprm']
ON_CHASSIS = ['huginn', 'parcae', 'retrofit']
DECODERS = ['ouro', 'hrm_text']
SLOW = {
  *itertools.product(ON_CHASSIS, ['devices', 'alone', 'jit', 'fixed point']),
  *itertools.product(DECODERS, ['devices', 'jit']),
  *itertools.product(TRAINED_ALIKE, ['devices']),
  *itertools.product(RUN_ALIKE, ['alone', 'jit']),
  *itertools.product(['feedforward', 'recurrent_depth'], ['devices']),
  *itertools.product(RUN_ALIKE, ['size']),
  ('trm', 'alone'),
  ('trm', 'devices'),
}
CASES = [
  pytest.param(
    *case, id='-'.join(case), marks=[pytest.mark.slow] * (case in SLOW)
  )
  for case in itertools.product(FAMILIES, LAWS)
]


@pytest.mark.parametrize(('family', 'law'), CASES)
def test_law(family, law):
  reason = FAMILIES[family].exempt.get(law)
  if reason:
    pytest.skip(f'{family} is exempt: {reason}')
  LAWS[law](family)


def test_every_family_has_a_tiny_experiment():
  assert set(TINY) == set(FAMILIES)


@pytest.mark.parametrize('family', FAMILIES)
def test_exemptions_are_of_laws_and_have_reasons(family):
  exempt = FAMILIES[family].exempt
  assert set(exempt) <= set(LAWS)
  assert all(len(reason.split()) > 3 for reason in exempt.values())


@pytest.mark.parametrize('family', FAMILIES)
def test_a_family_is_causal_or_says_that_it_is_not(family):
  assert 'causality' in FAMILIES[family].exempt or (
    experiment(family).model.block.causal
  )


def table() -> list[str]:
  """Laws down, families across: `yes`, or that there is an exemption."""
  width = max(map(len, LAWS)) + 2
  lines = [' ' * width + '  '.join(FAMILIES)]
  for law in LAWS:
    cells = [
      ('exempt' if law in family.exempt else 'yes').ljust(len(name))
      for name, family in FAMILIES.items()
    ]
    lines.append(law.ljust(width) + '  '.join(cells).rstrip())
  for name, family in FAMILIES.items():
    lines += [f'{name}, {law}: {why}.' for law, why in family.exempt.items()]
  return lines


def test_the_table_of_laws(capsys):
  lines = table()
  with capsys.disabled():
    print('\n' + '\n'.join(lines))
  exemptions = sum(len(family.exempt) for family in FAMILIES.values())
  assert len(lines) == 1 + len(LAWS) + exemptions
  assert sum(line.count('exempt') for line in lines[: 1 + len(LAWS)]) == (
    exemptions
  )
