"""The symmetry group: its order, its laws, and what it leaves in place."""

import numpy as np
import pytest

from loopformer.tasks.sudoku_canon import canonical, class_hash, relabel
from loopformer.tasks.sudoku_pool import draw_puzzle
from loopformer.tasks.sudoku_rules import GEOMETRIES, agrees, is_solved
from loopformer.tasks.sudoku_solver import solve
from loopformer.tasks.sudoku_symmetry import draw, positions

SIZES = pytest.mark.parametrize('size', [4, 6, 9])


def puzzle(size, seed=0, clues=None):
  rng = np.random.default_rng(seed)
  clues = clues or {4: 6, 6: 14, 9: 30}[size]
  return draw_puzzle(rng, GEOMETRIES[size], clues)


@SIZES
def test_a_thousand_draws_keep_validity_clues_and_blanks(size):
  geometry = GEOMETRIES[size]
  board_C, answer_C = puzzle(size)
  drawn = draw(np.random.default_rng(1), 1000, geometry)
  boards_NC = drawn.apply(np.tile(board_C, (1000, 1)))
  answers_NC = drawn.apply(np.tile(answer_C, (1000, 1)))
  assert is_solved(answers_NC, geometry).all()
  assert agrees(boards_NC, answers_NC).all()
  clues_N = np.count_nonzero(boards_NC, axis=1)
  assert (clues_N == np.count_nonzero(board_C)).all()
  blank_NC = drawn.apply(np.zeros((1000, geometry.cells), np.uint8))
  assert not blank_NC.any()


@pytest.mark.parametrize(('size', 'order'), [(4, 128), (6, 3456)])
def test_positions_form_a_group_of_the_known_order(size, order):
  group_GC = positions(GEOMETRIES[size])
  members = {tuple(cells) for cells in group_GC}
  assert len(members) == len(group_GC) == order
  rng = np.random.default_rng(0)
  for first, second in rng.integers(order, size=(100, 2)):
    assert tuple(group_GC[first][group_GC[second]]) in members
    assert tuple(group_GC[first].argsort()) in members


def test_every_element_of_4x4_is_drawn_equally_often():
  drawn = draw(np.random.default_rng(0), 60000, GEOMETRIES[4])
  both_NK = np.concatenate([drawn.cells_BC, drawn.digits_BM], axis=1)
  _, counts = np.unique(both_NK, axis=0, return_counts=True)
  assert len(counts) == 128 * 24
  expected = 60000 / 3072
  chi2 = ((counts - expected) ** 2 / expected).sum()
  assert abs(chi2 - 3071) < 5 * (2 * 3071) ** 0.5


@pytest.mark.parametrize('size', [4, 6])
def test_drawn_positions_are_listed_ones(size):
  members = {tuple(cells) for cells in positions(GEOMETRIES[size])}
  drawn = draw(np.random.default_rng(0), 200, GEOMETRIES[size])
  assert {tuple(cells) for cells in drawn.cells_BC} <= members


def test_transposing_is_in_the_square_group_and_is_its_own_inverse():
  flip_C = np.arange(16).reshape(4, 4).T.ravel()
  assert tuple(flip_C) in {tuple(cells) for cells in positions(GEOMETRIES[4])}
  np.testing.assert_array_equal(flip_C[flip_C], np.arange(16))


def test_6x6_is_never_transposed():
  flip_C = np.arange(36).reshape(6, 6).T.ravel()
  assert tuple(flip_C) not in {tuple(c) for c in positions(GEOMETRIES[6])}


def test_fewer_draws_are_the_first_of_more():
  few = draw(np.random.default_rng(2), 3, GEOMETRIES[9])
  more = draw(np.random.default_rng(2), 9, GEOMETRIES[9])
  np.testing.assert_array_equal(few.cells_BC, more.cells_BC[:3])
  np.testing.assert_array_equal(few.digits_BM, more.digits_BM[:3])


def test_relabelling_renames_by_first_appearance():
  boards_NC = np.array([[0, 3, 1, 3, 0, 2]], np.uint8)
  assert relabel(boards_NC).tolist() == [[0, 1, 2, 1, 0, 3]]


@pytest.mark.parametrize('size', [4, 6])
def test_canonical_form_is_a_fixed_member_of_the_class(size):
  geometry = GEOMETRIES[size]
  board_C, _ = puzzle(size)
  drawn = draw(np.random.default_rng(3), 50, geometry)
  forms_NC = canonical(drawn.apply(np.tile(board_C, (50, 1))), geometry)
  assert (forms_NC == forms_NC[0]).all()
  np.testing.assert_array_equal(canonical(forms_NC[:1], geometry), forms_NC[:1])
  images_GC = relabel(board_C[positions(geometry)])
  assert (images_GC == forms_NC[0]).all(axis=1).any()


def test_288_grids_fall_into_two_classes():
  grids_GC = np.stack(solve([0] * 16, GEOMETRIES[4], limit=1000))
  forms_GC = canonical(grids_GC, GEOMETRIES[4])
  _, counts = np.unique(forms_GC, axis=0, return_counts=True)
  assert sorted(counts) == [96, 192]


@SIZES
def test_class_hash_is_invariant_and_tells_puzzles_apart(size):
  geometry = GEOMETRIES[size]
  boards_NC = np.stack([puzzle(size, seed)[0] for seed in range(12)])
  repeated_NC = np.repeat(boards_NC, 25, axis=0)
  drawn = draw(np.random.default_rng(4), len(repeated_NC), geometry)
  hash_NK = class_hash(drawn.apply(repeated_NC), geometry).reshape(12, 25)
  assert (hash_NK == hash_NK[:, :1]).all()
  if size == 9:  # small boards coincide by chance
    assert len(np.unique(hash_NK)) == 12


def test_9x9_hash_sees_one_clue_moved():
  board_C, answer_C = puzzle(9)
  moved_C = board_C.copy()
  off, on = np.flatnonzero(board_C)[0], np.flatnonzero(board_C == 0)[0]
  moved_C[off], moved_C[on] = 0, answer_C[on]
  hashes = class_hash(np.stack([board_C, moved_C]), GEOMETRIES[9])
  assert hashes[0] != hashes[1]


def test_no_listing_of_9x9():
  with pytest.raises(ValueError, match='size must be 4 or 6'):
    positions(GEOMETRIES[9])
