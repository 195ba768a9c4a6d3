"""Random mazes: spanning trees with one path, random walls with several."""

import functools

import numpy as np
from jaxtyping import Bool, Int, UInt8

from loopformer.tasks import streams
from loopformer.tasks.maze_grid import (
  GOAL,
  OPEN,
  START,
  WALL,
  Grids,
  Masks,
  canonical,
  search,
)

_Found = UInt8[np.ndarray, 'M n n']  # M <= N mazes, of N tries

KINDS = ('unique', 'hard')
WALL_SHARE = (0.34, 0.4)  # of random walls: where paths are longest

_BLOCK = {'unique': 256, 'hard': 64}  # mazes drawn from one random stream
_TRIES = 1024  # grids of random walls looked at together
_PATIENCE = 300  # rounds without any maze before the lengths are hopeless
_STALE = 20  # blocks without a new maze before there are none left


def rooms(size: int, border: bool) -> int:
  """Rooms along a side of a perfect maze, with or without a ring of walls."""
  return (size - 1) // 2 if border else (size + 1) // 2


def longest(size: int, kind: str, border: bool) -> int:
  """Moves that no path exceeds: once through all rooms, or all squares."""
  if kind == 'unique':
    return 2 * rooms(size, border) ** 2 - 2
  return size * size - 1


def default_lengths(size: int, kind: str, border: bool) -> tuple[int, int]:
  """Least and greatest number of moves from S to G unless told otherwise.

  unique: 100 to 140 at 30 x 30 with a border, as published. hard: more than
  110 at 30 x 30, as published, without a bound above. Other sizes scale with
  the side to the power of 1.7, at which about as many random grids qualify.
  """
  if kind == 'unique':
    scale = (rooms(size, border) / 14) ** 1.7
    return round(100 * scale), round(140 * scale)
  return round(111 * (size / 30) ** 1.7), size * size - 1


@functools.cache
def _rooms(side: int) -> tuple[np.ndarray, np.ndarray]:
  """Which places of a walled grid of rooms are border, and their squares.

  The square is that of the room in the flat grid of (2 side + 1)^2.
  """
  border = np.pad(np.zeros((side, side), bool), 1, constant_values=True)
  y, x = np.mgrid[: side + 2, : side + 2]
  return border.ravel(), ((2 * y - 1) * (2 * side + 1) + 2 * x - 1).ravel()


def carve(rng: np.random.Generator, count: int, side: int) -> Masks:
  """Free squares of `count` perfect mazes with side^2 rooms each.

  Randomised depth-first search from a random room: step to a random neighbour
  not yet visited and open the square between, or else step back. Rooms are at
  odd coordinates of a grid of 2 side + 1 squares. The free squares form a tree,
  so there is one path between any two. All mazes are carved in step.
  """
  border, square = _rooms(side)
  steps = np.array([-(side + 2), -1, 1, side + 2])
  rows_N = np.arange(count)
  visited = np.tile(border, (count, 1))
  stack = np.zeros((count, side * side), np.int64)
  depth_N = np.zeros(count, np.int64)
  free = np.zeros((count, (2 * side + 1) ** 2), bool)
  here_N = rng.integers(1, side + 1, size=(count, 2)) @ [side + 2, 1]
  visited[rows_N, here_N] = True
  stack[:, 0] = here_N
  free[rows_N, square[here_N]] = True
  left = count * (side * side - 1)
  while left:
    near_N4 = here_N[:, None] + steps
    key_N4 = rng.random((count, 4))
    key_N4[visited[rows_N[:, None], near_N4]] = -1.0
    choice_N = key_N4.argmax(axis=1)
    on = np.flatnonzero(key_N4[rows_N, choice_N] >= 0.0)
    back = np.flatnonzero(key_N4[rows_N, choice_N] < 0.0)
    to = near_N4[on, choice_N[on]]
    free[on, square[to]] = True
    free[on, (square[to] + square[here_N[on]]) // 2] = True
    visited[on, to] = True
    depth_N[on] += 1
    stack[on, depth_N[on]] = to
    depth_N[back] = np.maximum(depth_N[back] - 1, 0)
    here_N = stack[rows_N, depth_N]
    left -= len(on)
  return free.reshape(count, 2 * side + 1, 2 * side + 1)


def _pick(rng: np.random.Generator, mask_Nnn: Masks) -> Masks:
  """A uniform one of the marked squares of each grid; none where none is."""
  flat = mask_Nnn.reshape(len(mask_Nnn), -1)
  key = np.where(flat, rng.random(flat.shape), -1.0)
  chosen = np.zeros_like(flat)
  chosen[np.arange(len(flat)), key.argmax(axis=1)] = True
  return (chosen & flat).reshape(mask_Nnn.shape)


def _grids(free_Nnn: Masks, start_Nnn: Masks, goal_Nnn: Masks) -> _Found:
  """The mazes of those that have a G."""
  grids_Nnn = np.where(free_Nnn, np.uint8(OPEN), np.uint8(WALL))
  grids_Nnn[start_Nnn] = START
  grids_Nnn[goal_Nnn] = GOAL
  return grids_Nnn[goal_Nnn.any(axis=(1, 2))]


def _try_unique(
  rng: np.random.Generator,
  size: int,
  border: bool,
  lengths_N: Int[np.ndarray, ' N'],
) -> tuple[_Found, Bool[np.ndarray, ' N']]:
  """Perfect mazes with S anywhere and G at each of these lengths from it.

  The second result says which lengths were found. An even size leaves the last
  row and column walls.
  """
  side = rooms(size, border)
  free_Nnn = carve(rng, len(lengths_N), side)
  if not border:
    free_Nnn = free_Nnn[:, 1:-1, 1:-1]
  rest = size - free_Nnn.shape[-1]
  free_Nnn = np.pad(free_Nnn, ((0, 0), (0, rest), (0, rest)))
  start_Nnn = _pick(rng, free_Nnn)
  distance_Nnn = search(free_Nnn, start_Nnn).distance_Nnn
  goal_Nnn = _pick(rng, distance_Nnn == lengths_N[:, None, None])
  found_N = np.logical_or.reduce(goal_Nnn, axis=(1, 2))
  return _grids(free_Nnn, start_Nnn, goal_Nnn), found_N


def _try_hard(
  rng: np.random.Generator, size: int, lengths: tuple[int, int], count: int
) -> Grids:
  """Those of `count` grids of random walls in which G can be far enough from S.

  S is the square farthest from a random one, or few grids of 30 x 30 would do;
  G is uniform among the squares at a right distance from S.
  """
  share_N = rng.uniform(*WALL_SHARE, size=count)[:, None, None]
  free_Nnn = rng.random((count, size, size)) >= share_N
  distance_Nnn = search(free_Nnn, _pick(rng, free_Nnn)).distance_Nnn
  far_N = distance_Nnn.max(axis=(1, 2))
  rows = np.flatnonzero(2 * far_N >= lengths[0])  # no two squares beyond that
  free_Nnn, far_N = free_Nnn[rows], far_N[rows]
  start_Nnn = _pick(rng, distance_Nnn[rows] == far_N[:, None, None])
  distance_Nnn = search(free_Nnn, start_Nnn).distance_Nnn
  right_Nnn = (distance_Nnn >= lengths[0]) & (distance_Nnn <= lengths[1])
  return _grids(free_Nnn, start_Nnn, _pick(rng, right_Nnn))


def _block_unique(
  rng: np.random.Generator, size: int, border: bool, lengths: tuple[int, int]
) -> Grids:
  """Unique mazes. Lengths are uniform, also those that are hard to find."""
  wanted_N = rng.integers(lengths[0], lengths[1] + 1, size=_BLOCK['unique'])
  parts, failures = [], 0
  while len(wanted_N):
    grids_Nnn, found_N = _try_unique(rng, size, border, wanted_N)
    parts.append(grids_Nnn)
    wanted_N = wanted_N[~found_N]
    failures = 0 if found_N.any() else failures + 1
    if failures == _PATIENCE:
      raise ValueError(
        f'max_path must be reachable, got {lengths[1]}: no path of '
        f'{wanted_N[0]} moves in {failures} rounds of mazes of size {size}.'
      )
  grids_Nnn = np.concatenate(parts)  # those found late are the long ones
  return grids_Nnn[rng.permutation(len(grids_Nnn))]


def _block_hard(
  rng: np.random.Generator, size: int, lengths: tuple[int, int]
) -> Grids:
  parts, found, failures = [], 0, 0
  while found < _BLOCK['hard']:
    parts.append(_try_hard(rng, size, lengths, _TRIES))
    found += len(parts[-1])
    failures = 0 if len(parts[-1]) else failures + 1
    if failures == _PATIENCE:
      raise ValueError(
        f'min_path must be reachable, got {lengths[0]}: no path of that '
        f'to {lengths[1]} moves in {failures} rounds of grids of size {size}.'
      )
  return np.concatenate(parts)[: _BLOCK['hard']]


def draw(
  size: int,
  kind: str,
  lengths: tuple[int, int],
  count: int,
  seed: int,
  *,
  border: bool,
) -> Grids:
  """Draws `count` mazes, no two of them equal up to symmetry.

  There are fewer if no more are found, as there are not many of 5 x 5. The
  first of many are the same as fewer.

  Raises:
    ValueError: no maze has a path of such a length.
  """
  grids_Nnn = np.zeros((0, size, size), np.uint8)
  classes_N = np.zeros(0, np.uint64)
  block, stale = 0, 0
  while len(grids_Nnn) < count and stale < _STALE:
    rng = streams.generator(streams.POOL, seed, block)
    if kind == 'unique':
      more_Nnn = _block_unique(rng, size, border, lengths)
    else:
      more_Nnn = _block_hard(rng, size, lengths)
    classes_N = np.concatenate([classes_N, canonical(more_Nnn)[1]])
    first_N = np.sort(np.unique(classes_N, return_index=True)[1])
    block, stale = block + 1, stale + 1
    if len(first_N) > len(grids_Nnn):
      stale = 0
    grids_Nnn = np.concatenate([grids_Nnn, more_Nnn])[first_N]
    classes_N = classes_N[first_N]
  return grids_Nnn[:count]
