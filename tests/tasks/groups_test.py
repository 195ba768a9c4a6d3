"""Cayley tables: the axioms, and what is known about each group."""

import time

import numpy as np
import pytest

from loopformer.tasks.groups import cayley_table, inverses, running_products

ORDERS = {
  'z1': 1, 'z7': 7, 'z60': 60, 's3': 6, 's4': 24, 's5': 120, 'a4': 12,
  'a5': 60, 'z2xz3': 6, 'a4xz5': 60, 's3xz2xz2': 24,
}  # fmt: skip
ABELIAN = {'z1', 'z7', 'z60', 'z2xz3'}
NAMES = pytest.mark.parametrize('name', ORDERS)


@NAMES
def test_order_and_identity(name):
  table_EE = cayley_table(name)
  elements_E = np.arange(ORDERS[name])
  assert table_EE.shape == (ORDERS[name],) * 2
  np.testing.assert_array_equal(table_EE[0], elements_E)
  np.testing.assert_array_equal(table_EE[:, 0], elements_E)


@NAMES
def test_inverses_and_cancellation(name):
  table_EE = cayley_table(name)
  elements_E = np.arange(len(table_EE))
  inverse_E = inverses(table_EE)
  assert not table_EE[elements_E, inverse_E].any()
  assert not table_EE[inverse_E, elements_E].any()
  for line in (np.sort(table_EE, axis=0).T, np.sort(table_EE, axis=1)):
    assert (line == elements_E).all()


@NAMES
def test_associativity_on_all_triples(name):
  table_EE = cayley_table(name)
  left_EEE = table_EE[table_EE]
  right_EEE = table_EE[:, table_EE]
  np.testing.assert_array_equal(left_EEE, right_EEE)


@NAMES
def test_commutativity_is_known(name):
  table_EE = cayley_table(name)
  assert (table_EE == table_EE.T).all() == (name in ABELIAN)


def class_sizes(name):
  table_EE = cayley_table(name)
  inverse_E, elements_E = inverses(table_EE), np.arange(len(table_EE))
  conjugates_EE = table_EE[
    table_EE[inverse_E[:, None], elements_E[None]], elements_E[:, None]
  ]
  _, counts = np.unique(conjugates_EE.min(axis=0), return_counts=True)
  return sorted(counts.tolist())


@pytest.mark.parametrize(
  ('name', 'sizes'),
  [
    ('a5', [1, 12, 12, 15, 20]),
    ('s3', [1, 2, 3]),
    ('a4', [1, 3, 4, 4]),
    ('s4', [1, 3, 6, 6, 8]),
    ('s5', [1, 10, 15, 20, 20, 24, 30]),
  ],
)
def test_conjugacy_classes(name, sizes):
  assert class_sizes(name) == sizes


def test_products_of_s3_by_hand():
  # Lexicographic: 0 = 012, 1 = 021, 2 = 102; first 1, then 2: 0 -> 0 -> 1,
  # 1 -> 2 -> 2, 2 -> 1 -> 0, which is 120 = element 3.
  assert cayley_table('s3')[1, 2] == 3
  assert cayley_table('s3')[2, 1] == 4


def test_direct_product_multiplies_side_by_side():
  table_EE, left, right = map(cayley_table, ('s3xz4', 's3', 'z4'))
  rng = np.random.default_rng(0)
  for a, b, c, d in rng.integers([6, 4, 6, 4], size=(50, 4)):
    assert table_EE[a * 4 + b, c * 4 + d] == left[a, c] * 4 + right[b, d]


def test_chinese_remainders():
  assert sorted(np.diag(cayley_table('z2xz3')).tolist()) == [0, 0, 1, 1, 2, 2]


def test_running_products_one_by_one():
  table_EE = cayley_table('s4')
  words_BK = np.random.default_rng(0).integers(24, size=(5, 9))
  products_BK = running_products(words_BK, table_EE)
  for word, products in zip(words_BK, products_BK, strict=True):
    value = 0
    for letter, product in zip(word, products, strict=True):
      value = table_EE[value, letter]
      assert value == product


@pytest.mark.parametrize('name', ['', 'a', 'q8', 'z0', 'a5x', 'z-3', 's3*z2'])
def test_unknown_names(name):
  with pytest.raises(ValueError, match='group must be z<n>'):
    cayley_table(name)


@pytest.mark.parametrize('name', ['z2521', 's7', 'a8', 's5xa5', 's9999'])
def test_large_groups_are_refused_at_once(name):
  start = time.perf_counter()
  with pytest.raises(ValueError, match='at most 2520 elements'):
    cayley_table(name)
  assert time.perf_counter() - start < 0.5


def test_tables_cannot_be_written():
  with pytest.raises(ValueError, match='read-only'):
    cayley_table('z7')[0, 0] = 1
