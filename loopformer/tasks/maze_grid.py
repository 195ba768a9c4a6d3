"""Mazes on square grids: distances, shortest paths, validity, symmetries.

A maze is an n x n grid of token ids as published (arXiv:2506.21734): PAD 0,
then the characters '# SGo' as 1 to 5. A move goes up, left, right or down, and
the length of a path counts its moves.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8, UInt64

from loopformer.tasks import streams

CHARACTERS = '# SGo'
PAD, WALL, OPEN, START, GOAL, PATH = range(6)
MOST_PATHS = 1 << 60  # where counts of paths end

Grids = UInt8[np.ndarray, 'N n n']
Masks = Bool[np.ndarray, 'N n n']


class Waves(NamedTuple):
  """Breadth-first search from one square of each grid.

  distance_Nnn: moves from the source, -1 where it cannot be reached.
  paths_Nnn: number of shortest paths from it, at most `MOST_PATHS`.
  """

  distance_Nnn: Int[np.ndarray, 'N n n']
  paths_Nnn: Int[np.ndarray, 'N n n']


def _steps(size: int) -> np.ndarray:
  """Up, left, right, down, as differences of places in a walled grid."""
  return np.array([-(size + 2), -1, 1, size + 2])


def _walled(open_Nnn: np.ndarray, fill: int) -> np.ndarray:
  """A flat array of all grids with a border of -2, `fill` where open."""
  inner_Nnn = np.where(open_Nnn, fill, -2).astype(np.int32)
  border = ((0, 0), (1, 1), (1, 1))
  return np.pad(inner_Nnn, border, constant_values=-2).ravel()


def _places(mask_Nnn: np.ndarray) -> np.ndarray:
  """Where the marked squares stand in `_walled`, in order."""
  size = mask_Nnn.shape[-1]
  row, y, x = np.nonzero(mask_Nnn)
  return (row * (size + 2) + y + 1) * (size + 2) + x + 1


def _inner(flat: np.ndarray, size: int) -> np.ndarray:
  return flat.reshape(-1, size + 2, size + 2)[:, 1:-1, 1:-1]


def search(open_Nnn: Masks, source_Nnn: Masks) -> Waves:
  """d(v) = 1 + min d(u), c(v) = sum c(u) over neighbours u with least d.

  All grids advance together, one distance at a time, and only the squares of
  the wave are touched: O(N n^2) work in as many NumPy calls as the longest
  distance.
  """
  size = open_Nnn.shape[-1]
  steps = _steps(size)
  distance = _walled(open_Nnn | source_Nnn, -1)
  paths = np.zeros(len(distance), np.int64)
  wave = _places(source_Nnn)
  distance[wave], paths[wave] = 0, 1
  level = 0
  while len(wave):
    level += 1
    near = wave[:, None] + steps
    fresh = distance[near] == -1
    count = np.broadcast_to(paths[wave][:, None], near.shape)[fresh]
    near = near[fresh]
    distance[near] = level
    np.add.at(paths, near, count)
    wave = np.unique(near)
    paths[wave] = np.minimum(paths[wave], MOST_PATHS)
  return Waves(
    np.maximum(_inner(distance, size), -1), _inner(paths, size).copy()
  )


def at(values_Nnn: np.ndarray, mask_Nnn: Masks) -> np.ndarray:
  """The value of each grid at its one marked square, [N]."""
  size = mask_Nnn.shape[-1]
  place_N = mask_Nnn.reshape(-1, size * size).argmax(axis=1)
  rows_N = np.arange(len(mask_Nnn))
  return values_Nnn.reshape(-1, size * size)[rows_N, place_N]


def path_length(grids_Nnn: Grids) -> Int[np.ndarray, ' N']:
  """Least number of moves from S to G; -1 where there is no way."""
  waves = search(grids_Nnn != WALL, grids_Nnn == START)
  return at(waves.distance_Nnn, grids_Nnn == GOAL)


def count_paths(grids_Nnn: Grids) -> Int[np.ndarray, ' N']:
  """Number of shortest paths from S to G, at most `MOST_PATHS`."""
  waves = search(grids_Nnn != WALL, grids_Nnn == START)
  return at(waves.paths_Nnn, grids_Nnn == GOAL)


def shortest_path(grids_Nnn: Grids) -> Masks:
  """The squares between S and G on one shortest path; none without a way.

  Of several the one that, seen from G, goes up before left before right before
  down. Published labels of Maze-Hard break ties by a rule of their own.
  """
  size = grids_Nnn.shape[-1]
  steps = _steps(size)
  distance_Nnn = search(grids_Nnn != WALL, grids_Nnn == START).distance_Nnn
  distance = _walled(distance_Nnn >= 0, 0)
  distance[distance == 0] = distance_Nnn[distance_Nnn >= 0]
  marked = np.zeros(len(distance), bool)
  spot = _places(grids_Nnn == GOAL)
  spot = spot[distance[spot] > 1]
  while len(spot):
    near = spot[:, None] + steps
    closer = distance[near] == distance[spot][:, None] - 1
    spot = near[np.arange(len(near)), closer.argmax(axis=1)]
    marked[spot] = True
    spot = spot[distance[spot] > 1]
  return _inner(marked, size).copy()


def solve(grids_Nnn: Grids) -> Grids:
  """The grids with `shortest_path` marked."""
  return np.where(shortest_path(grids_Nnn), np.uint8(PATH), grids_Nnn)


def is_shortest_path(
  grids_Nnn: Grids, path_Nnn: Masks
) -> Bool[np.ndarray, ' N']:
  """Whether the marked squares are those between S and G on a shortest path.

  Any shortest path is accepted. With d the least number of moves: d - 1 free
  squares are marked, and G is still d moves away when only S, G and the marked
  squares may be entered; then that way takes every one of them.
  """
  count_N = path_Nnn.sum(axis=(1, 2))
  free_N = ~(path_Nnn & (grids_Nnn != OPEN)).any(axis=(1, 2))
  length_N = path_length(grids_Nnn)
  ends_Nnn = (grids_Nnn == START) | (grids_Nnn == GOAL)
  inside = search(path_Nnn | ends_Nnn, grids_Nnn == START).distance_Nnn
  kept_N = at(inside, grids_Nnn == GOAL) == length_N
  return (length_N > 0) & free_N & (count_N == length_N - 1) & kept_N


def is_solved(grids_Nnn: Grids, answers_Nnn: Grids) -> Bool[np.ndarray, ' N']:
  """The answer keeps walls, S and G and marks some shortest path."""
  path_Nnn = answers_Nnn == PATH
  solved_N = (path_Nnn | (answers_Nnn == grids_Nnn)).all(axis=(1, 2))
  rows = np.flatnonzero(solved_N)
  solved_N[rows] = is_shortest_path(grids_Nnn[rows], path_Nnn[rows])
  return solved_N


@functools.cache
def positions(size: int) -> Int[np.ndarray, '8 C']:
  """For each symmetry of the square, which cell each cell is taken from."""
  cells_nn = np.arange(size * size).reshape(size, size)
  turns = [np.rot90(cells_nn, turn) for turn in range(4)]
  images = np.stack([image for turn in turns for image in (turn, turn.T)])
  table_8C = images.reshape(8, -1)
  table_8C.flags.writeable = False
  return table_8C


def transform(grids_Nnn: Grids, which_N: Int[np.ndarray, ' N']) -> Grids:
  """Each grid under the symmetry of that number, 0 for none."""
  size = grids_Nnn.shape[-1]
  cells_NC = grids_Nnn.reshape(-1, size * size)
  table_NC = positions(size)[which_N]
  return np.take_along_axis(cells_NC, table_NC, axis=1).reshape(grids_Nnn.shape)


def canonical(grids_Nnn: Grids) -> tuple[Grids, UInt64[np.ndarray, ' N']]:
  """The image of least hash among the eight, and that hash.

  The hash is equal for equivalent mazes, always; for others it differs but for
  a collision in 64 bits, which never puts a class on both sides of a split.
  """
  size = grids_Nnn.shape[-1]
  cells_NC = grids_Nnn.reshape(-1, size * size)
  hash_8N = np.stack(
    [streams.row_hash(cells_NC[:, table_C]) for table_C in positions(size)]
  )
  return transform(grids_Nnn, hash_8N.argmin(axis=0)), hash_8N.min(axis=0)


def parse(text: str) -> Grids:
  """One maze from its lines; newlines are passed over."""
  cells = [CHARACTERS.index(symbol) + 1 for symbol in text.replace('\n', '')]
  size = int(len(cells) ** 0.5)
  return np.array(cells, np.uint8).reshape(1, size, size)


def render(tokens_T: Int[np.ndarray, ' T']) -> str:
  """A grid as lines of published characters, '.' for PAD."""
  size = int(len(tokens_T) ** 0.5)
  symbols = ''.join(('.' + CHARACTERS)[token] for token in tokens_T)
  lines = [symbols[i : i + size] for i in range(0, len(symbols), size)]
  return '\n'.join(lines)
