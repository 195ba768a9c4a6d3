"""ARC-like tasks made up on the spot, so that everything runs without a file.

Not ARC: each task is one rule of `RULES`, shown on random grids. They exercise
the canvas, copies, votes and a training run, and say nothing about ARC.
"""

from collections.abc import Callable

import numpy as np

from loopformer.tasks import streams
from loopformer.tasks.arc_copies import pair_class
from loopformer.tasks.arc_grid import COLOURS, Grid
from loopformer.tasks.arc_json import Pair, Puzzle

LARGEST = 6  # rows and columns of an input

DEMONSTRATIONS, TESTS = 3, 1


def crop(grid_hw: Grid) -> Grid:
  """The box around the cells that are not 0."""
  rows, columns = np.nonzero(grid_hw)
  return grid_hw[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def fall(grid_hw: Grid) -> Grid:
  """The cells that are not 0 dropped to the bottom of their columns."""
  order_hw = np.argsort(grid_hw > 0, axis=0, kind='stable')
  return np.take_along_axis(grid_hw, order_hw, axis=0)


def recolour(grid_hw: Grid, old: int, new: int) -> Grid:
  """Colours `old` and `new` exchanged."""
  table_C = np.arange(COLOURS, dtype=np.uint8)
  table_C[[old, new]] = new, old
  return table_C[grid_hw]


RULES: dict[str, Callable[[Grid], Grid]] = {
  'crop': crop,
  'fall': fall,
  'reflect': np.fliplr,
  'rotate': np.rot90,
  'transpose': np.transpose,
}


def make(count: int, seed: int, side: int) -> tuple[Puzzle, ...]:
  """`count` tasks, a pure function of the arguments; every sixth recolours."""
  names = ['recolour', *RULES]
  return tuple(
    _puzzle(
      names[index % len(names)],
      index,
      streams.generator(streams.POOL, seed, index),
      min(side, LARGEST),
    )
    for index in range(count)
  )


def _puzzle(
  name: str, index: int, rng: np.random.Generator, largest: int
) -> Puzzle:
  old, new, other = (rng.permutation(COLOURS - 1)[:3] + 1).tolist()
  rule = RULES.get(name, lambda grid_hw: recolour(grid_hw, old, new))
  palette = np.array([old, new, other], np.uint8)
  pairs: dict[bytes, Pair] = {}  # by class: a test is no demonstration again
  while len(pairs) < DEMONSTRATIONS + TESTS:
    height, width = rng.integers(2, largest + 1, size=2)
    grid_hw = rng.choice(palette, (height, width))
    grid_hw[rng.random((height, width)) < 0.5] = 0
    grid_hw[rng.integers(height), rng.integers(width)] = old  # never empty
    pair = Pair(grid_hw, np.ascontiguousarray(rule(grid_hw)))
    pairs.setdefault(pair_class(pair), pair)
  every = tuple(pairs.values())
  train, test = every[:DEMONSTRATIONS], every[DEMONSTRATIONS:]
  return Puzzle(f'{name}-{index:04d}', train, test)
