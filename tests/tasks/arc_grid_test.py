"""ARC's canvas, symmetries and colours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopformer.tasks import arc_grid
from loopformer.tasks.arc_grid import Augmentation, decode, encode

BY_HAND = np.array([[1, 2, 0], [3, 4, 5]], np.uint8)

# The eight images of BY_HAND, in the published order.
IMAGES = (
  [[1, 2, 0], [3, 4, 5]],
  [[0, 5], [2, 4], [1, 3]],
  [[5, 4, 3], [0, 2, 1]],
  [[3, 1], [4, 2], [5, 0]],
  [[0, 2, 1], [5, 4, 3]],
  [[3, 4, 5], [1, 2, 0]],
  [[1, 3], [2, 4], [0, 5]],
  [[5, 0], [4, 2], [3, 1]],
)


@st.composite
def placed(draw):
  """A grid, where it lies, and the side of a canvas that holds it."""
  height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
  side = draw(st.integers(max(height, width), 30))
  top = draw(st.integers(0, side - height))
  left = draw(st.integers(0, side - width))
  rng = np.random.default_rng(draw(st.integers(0, 2**32)))
  grid_hw = rng.integers(0, 10, (height, width), np.uint8)
  return grid_hw, (top, left), side


@st.composite
def augmentations(draw):
  colours = [0, *draw(st.permutations(range(1, 10)))]
  return Augmentation(draw(st.integers(0, 7)), np.array(colours, np.uint8))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(placed())
def test_decoding_undoes_encoding(case):
  grid_hw, offset, side = case
  tokens_S = encode(grid_hw, offset, side)
  assert (tokens_S.shape, tokens_S.dtype) == ((side * side,), np.int32)
  np.testing.assert_array_equal(decode(tokens_S, offset), grid_hw)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(placed(), augmentations())
def test_inverting_undoes_applying(case, augmentation):
  grid_hw = case[0]
  image_hw = augmentation.apply(grid_hw)
  assert ((image_hw == 0).sum()) == (grid_hw == 0).sum()
  np.testing.assert_array_equal(augmentation.invert(image_hw), grid_hw)
  back_hw = augmentation.invert(decode(encode(image_hw)))
  np.testing.assert_array_equal(back_hw, grid_hw)


def test_a_canvas_by_hand():
  grid_hw = np.array([[0, 9]], np.uint8)
  assert encode(grid_hw, (1, 0), 4).reshape(4, 4).tolist() == [
    [0, 0, 0, 0],
    [2, 11, 1, 0],
    [1, 1, 0, 0],
    [0, 0, 0, 0],
  ]
  assert encode(grid_hw, (2, 1), 3).reshape(3, 3).tolist() == [
    [0, 0, 0],
    [0, 0, 0],
    [0, 2, 11],
  ]


@pytest.mark.parametrize('which', range(8))
def test_symmetries_by_hand_and_their_inverses(which):
  image_hw = arc_grid.DIHEDRAL[which](BY_HAND)
  assert image_hw.tolist() == IMAGES[which]
  inverses = [
    other
    for other in range(8)
    if np.array_equal(arc_grid.DIHEDRAL[other](image_hw), BY_HAND)
  ]
  assert inverses == [arc_grid.INVERSE[which]]
  assert inverses == [{1: 3, 3: 1}.get(which, which)]


def test_the_crop_is_the_largest_rectangle_and_the_flattest_of_them():
  tokens_44 = np.array([[3, 3, 3, 3], [3, 3, 1, 3], [3, 0, 3, 3], [1, 3, 3, 3]])
  assert decode(tokens_44.ravel()).tolist() == [[1, 1, 1, 1]]
  tokens_44[0, 3] = 12  # no colour either
  assert decode(tokens_44.ravel()).tolist() == [[1, 1], [1, 1]]
  tokens_44[0, 0] = 0
  assert decode(tokens_44.ravel()).shape == (0, 0)


@pytest.mark.parametrize('offset', [(28, 0), (0, 29), (-1, 0)])
def test_a_grid_past_the_edge_is_refused(offset):
  with pytest.raises(ValueError, match=r'grid must fit into 30 x 30 at \('):
    encode(np.zeros((3, 2), np.uint8), offset)
