"""Finite groups as Cayley tables: Z_n, S_n, A_n and direct products."""

import functools
import itertools
import math
import re

import numpy as np
from jaxtyping import Int

_LARGEST = 2520  # elements: |A7|, a table of 25 MB


def _cyclic(n: int) -> np.ndarray:
  return np.add.outer(np.arange(n), np.arange(n)) % n


def _is_even(permutation: tuple[int, ...]) -> bool:
  pairs = itertools.combinations(permutation, 2)
  return sum(a > b for a, b in pairs) % 2 == 0


def _permutations(n: int, *, even: bool) -> np.ndarray:
  """Table of S_n or A_n; elements in lexicographic order, (ab)(x) = b(a(x))."""
  elements = [
    element
    for element in itertools.permutations(range(n))
    if not even or _is_even(element)
  ]
  images_EN = np.array(elements).reshape(len(elements), n)
  weights_N = n ** np.arange(n)[::-1]  # the order of codes is lexicographic
  codes_E = images_EN @ weights_N
  return np.stack(
    [
      np.searchsorted(codes_E, images_EN[:, first_N] @ weights_N)
      for first_N in images_EN
    ]
  )


def _product(left_EE: np.ndarray, right_FF: np.ndarray) -> np.ndarray:
  """Element (a, b) of the direct product has index a * |right| + b."""
  order = len(left_EE) * len(right_FF)
  table = left_EE[:, None, :, None] * len(right_FF) + right_FF[None, :, None]
  return table.reshape(order, order)


def _order(kind: str, n: int) -> int:
  if kind == 'z':
    return n
  return math.factorial(n) if kind == 's' else max(1, math.factorial(n) // 2)


def _parse(name: str) -> list[tuple[str, int]]:
  pairs = []
  for part in name.lower().split('x'):
    factor = re.fullmatch('([zsa])([1-9][0-9]{0,3})', part)
    if factor is None:
      raise ValueError(
        f'group must be z<n>, s<n>, a<n> or a product like a4xz5, got {name!r}.'
      )
    pairs.append((factor[1], int(factor[2])))
  if math.prod(_order(kind, n) for kind, n in pairs) > _LARGEST:
    raise ValueError(
      f'group must have at most {_LARGEST} elements, got {name!r}.'
    )
  return pairs


@functools.cache
def cayley_table(name: str) -> Int[np.ndarray, 'E E']:
  """Returns table[a, b] = a b of the group `name`; element 0 is the identity.

  Names: 'z60', 's3', 'a5', products joined by x as in 'a4xz5'. A product of
  permutations applies the left factor first.

  Raises:
    ValueError: an unknown name, or more than 2,520 elements.
  """
  tables = [
    _cyclic(n) if kind == 'z' else _permutations(n, even=kind == 'a')
    for kind, n in _parse(name)
  ]
  table_EE = functools.reduce(_product, tables).astype(np.int32)
  table_EE.setflags(write=False)
  return table_EE


def inverses(table_EE: Int[np.ndarray, 'E E']) -> Int[np.ndarray, ' E']:
  """The b of each a with a b = 0, the identity."""
  return np.argmin(table_EE, axis=1)


def running_products(
  words_BK: Int[np.ndarray, 'B K'], table_EE: Int[np.ndarray, 'E E']
) -> Int[np.ndarray, 'B K']:
  """p_1 = g_1, p_t = p_{t-1} g_t."""
  products_BK = words_BK.copy()
  for t in range(1, words_BK.shape[1]):
    products_BK[:, t] = table_EE[products_BK[:, t - 1], words_BK[:, t]]
  return products_BK
