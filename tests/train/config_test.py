"""Mappings become dataclasses, or one line says what is wrong."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from loopformer.train.config import differences, from_mapping, to_mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
  width: int = 4
  rate: float = 0.5
  name: str = 'a'

  def __post_init__(self):
    if self.width < 1:
      raise ValueError(f'width must be >= 1, got {self.width}.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
  count: int
  inner: Inner = dataclasses.field(default_factory=Inner)
  depths: tuple[int, ...] = ()
  flag: bool = False
  path: str | None = None
  limit: int | None = None
  seed: int = 0
  choice: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  choices: tuple[Mapping[str, Any], ...] = ()


def refused(values):
  with pytest.raises(ValueError) as error:
    from_mapping(Outer, values, path='outer')
  text = str(error.value)
  assert '\n' not in text
  return text


def test_nested_values_arrive():
  values = {
    'count': 3,
    'inner': {'width': 2, 'rate': 1},
    'depths': [1, 2],
    'path': None,
    'limit': 7,
    'choice': {'name': 'x', 'list': [1, (2, 3)]},
    'choices': [{'name': 'y'}],
  }
  outer = from_mapping(Outer, values)
  assert outer.inner == Inner(width=2, rate=1.0)
  assert isinstance(outer.inner.rate, float)  # An integer passes for a float.
  assert outer.depths == (1, 2)  # A list passes for a tuple.
  assert (outer.path, outer.limit) == (None, 7)
  assert outer.choice == {'name': 'x', 'list': [1, [2, 3]]}
  assert from_mapping(Outer, to_mapping(outer)) == outer


@pytest.mark.parametrize(
  ('values', 'says'),
  [
    ({'cuont': 1}, ('outer.cuont is not a field', "did you mean 'count'?")),
    ({'count': 1, 'inner': {'widht': 1}}, ('outer.inner.widht', "'width'")),
    (
      {'count': 1, 'inner': {'width': 'x'}},
      ("outer.inner.width must be int, got 'x'.",),
    ),
    (
      {'count': 1, 'inner': {'width': 0}},
      ('outer.inner.width must be >= 1, got 0.',),
    ),
    ({'count': 1, 'inner': {'rate': '1'}}, ('outer.inner.rate must be float',)),
    (
      {'count': 1, 'inner': {'rate': True}},
      ('outer.inner.rate must be float, got True.',),
    ),
    (
      {'count': 1, 'inner': {'rate': float('inf')}},
      ('outer.inner.rate must be finite, got inf.',),
    ),
    (
      {'count': 1, 'inner': {'rate': 10**400}},
      ('outer.inner.rate must be finite, got 1000',),
    ),
    (
      {'count': 1, 'seed': 2**32},
      ('outer.seed must be in [0, 2**32), got 4294967296.',),
    ),
    ({'count': 1, 'seed': -1}, ('outer.seed must be in [0, 2**32), got -1.',)),
    ({'count': True}, ('outer.count must be int, got True.',)),
    ({'count': 1.0}, ('outer.count must be int, got 1.0.',)),
    ({'count': None}, ('outer.count must be int, got None.',)),
    ({'count': 1, 'flag': 1}, ('outer.flag must be bool, got 1.',)),
    ({'count': 1, 'limit': True}, ('outer.limit must be int, got True.',)),
    ({'count': 1, 'path': 3}, ('outer.path must be str, got 3.',)),
    ({'count': 1, 'inner': 3}, ('outer.inner must be a mapping, got 3.',)),
    (
      {'count': 1, 'choice': 'x'},
      ("outer.choice must be a mapping, got 'x'.",),
    ),
    (
      {'count': 1, 'choices': ['x']},
      ("outer.choices must be a mapping, got 'x'.",),
    ),
    ({'count': 1, 'depths': 3}, ('outer.depths must be a list, got 3.',)),
    (
      {'count': 1, 'depths': [1, True]},
      ('outer.depths must be int, got True.',),
    ),
    ({}, ('outer: ', "'count'")),
  ],
)
def test_a_mistake_is_one_line(values, says):
  text = refused(values)
  for part in says:
    assert part in text


def test_no_hint_where_nothing_is_near():
  assert 'did you mean' not in refused({'zzzzzz': 1})


def test_differences_are_lines():
  old = {'a': {'b': 1, 'c': [1]}, 'd': 2}
  new = {'a': {'b': 2, 'c': [1]}, 'e': 3}
  assert differences(old, old) == []
  assert differences(old, new) == [
    'a.b: 1 -> 2',
    'd: 2 -> None',
    'e: None -> 3',
  ]
