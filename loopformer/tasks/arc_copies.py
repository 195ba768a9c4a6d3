"""Augmented copies of an ARC task that differ from each other, and classes."""

import dataclasses

import numpy as np
from jaxtyping import UInt8, UInt64

from loopformer.tasks import streams
from loopformer.tasks.arc_grid import (
  COLOURS,
  DIHEDRAL,
  FIRST_COLOUR,
  IDENTITY,
  VOCAB,
  Augmentation,
  Grid,
  encode,
)
from loopformer.tasks.arc_json import Pair, Puzzle

ROUNDS = 5  # draws per copy asked for, as published


@dataclasses.dataclass(frozen=True)
class Copies:
  """Augmentations of one task, the identity first."""

  dihedral_N: UInt8[np.ndarray, ' N']
  colours_NC: UInt8[np.ndarray, 'N 10']

  def augmentation(self, index: int) -> Augmentation:
    return Augmentation(int(self.dihedral_N[index]), self.colours_NC[index])

  @property
  def count(self) -> int:
    return len(self.dihedral_N)


def distinct(
  puzzle: Puzzle, count: int, rng: np.random.Generator, side: int
) -> Copies:
  """The identity and up to `count` random copies, all different as tasks.

  Two copies are the same if their demonstrations and test inputs are, in
  whatever order. (The published builder compares the tests' answers too.) A
  task has fewer copies if `ROUNDS * count` draws do not give them.
  """
  sums_DMV = _sums(puzzle, side)
  dihedral_N = np.array([IDENTITY.dihedral], np.uint8)
  colours_NC = IDENTITY.colours_C[None]
  kept_N = np.zeros(1, np.intp)
  for _ in range(ROUNDS if count else 0):
    drawn_NC = np.tile(IDENTITY.colours_C, (count, 1))
    drawn_NC[:, 1:] = rng.permuted(drawn_NC[:, 1:], axis=1)
    drawn_N = rng.integers(len(DIHEDRAL), size=count, dtype=np.uint8)
    dihedral_N = np.concatenate([dihedral_N, drawn_N])
    colours_NC = np.concatenate([colours_NC, drawn_NC])
    hash_N = _hashes(sums_DMV, dihedral_N, colours_NC)
    kept_N = np.sort(np.unique(hash_N, return_index=True)[1])[: count + 1]
    if len(kept_N) > count:
      break
  return Copies(dihedral_N[kept_N], colours_NC[kept_N])


def _sums(puzzle: Puzzle, side: int) -> UInt64[np.ndarray, 'D M V']:
  """s_dmv = sum of the weights w_t of cells t with token v, canvas m under d.

  Canvases come as (input, output) by turns; a test's output counts as empty.
  """
  pairs = [tuple(pair) for pair in puzzle.train]
  pairs += [(pair.input, np.zeros((0, 0), np.uint8)) for pair in puzzle.test]
  grids = [grid for pair in pairs for grid in pair]
  canvas_DMS = np.stack(
    [[encode(symmetry(g), side=side) for g in grids] for symmetry in DIHEDRAL]
  )
  weights_S = streams.mix(np.arange(1, side * side + 1, dtype=np.uint64))
  sums = [
    np.where(canvas_DMS == token, weights_S, np.uint64(0)).sum(axis=-1)
    for token in range(VOCAB)
  ]
  return np.stack(sums, axis=-1)


def _hashes(
  sums_DMV: np.ndarray, dihedral_N: np.ndarray, colours_NC: np.ndarray
) -> UInt64[np.ndarray, ' N']:
  """Sum over pairs of a hash of sum_v mix(pi(v)) s_dmv: order plays no part."""
  tokens_NV = np.tile(np.arange(VOCAB, dtype=np.uint64), (len(dihedral_N), 1))
  tokens_NV[:, FIRST_COLOUR:] = colours_NC + np.uint8(FIRST_COLOUR)
  values_NV = streams.mix(tokens_NV + np.uint64(1))
  hash_N = np.empty(len(dihedral_N), np.uint64)
  for which in range(len(DIHEDRAL)):
    rows = np.flatnonzero(dihedral_N == which)
    cells_NM = streams.mix(values_NV[rows] @ sums_DMV[which].T)
    pairs_NP = cells_NM[:, 0::2] + np.uint64(3) * cells_NM[:, 1::2]
    hash_N[rows] = streams.mix(pairs_NP).sum(axis=1)
  return hash_N


def pair_class(pair: Pair) -> bytes:
  """The same for two pairs exactly if an augmentation maps one to the other.

  The least, over the eight symmetries, of shapes and cells with the colours
  other than 0 numbered in order of appearance.
  """
  return min(
    _numbered(symmetry(pair.input), symmetry(pair.output))
    for symmetry in DIHEDRAL
  )


def _numbered(*grids: Grid) -> bytes:
  flat = np.concatenate([grid.ravel() for grid in grids])
  colours, first = np.unique(flat, return_index=True)
  order = colours[np.argsort(first)]
  table_C = np.zeros(COLOURS, np.uint8)
  table_C[order[order > 0]] = np.arange(1, np.count_nonzero(order) + 1)
  return bytes(n for g in grids for n in g.shape) + table_C[flat].tobytes()
