"""Random streams, row hashes and the splits made from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopformer.tasks import streams

ROWS = np.random.default_rng(0).integers(0, 12, (20000, 16))


def test_streams_are_pure_and_differ():
  draw = lambda *place: streams.generator(*place).random(4).tolist()
  assert draw(streams.TRAIN, 1, 2) == draw(streams.TRAIN, 1, 2)
  places = [(0, 1, 2), (1, 1, 2), (0, 2, 1), (0, 1, 3), (0, 1)]
  assert len({tuple(draw(*place)) for place in places}) == len(places)


def test_hash_is_a_function_of_the_row_alone():
  hash_B = streams.row_hash(ROWS)
  np.testing.assert_array_equal(hash_B[5:9], streams.row_hash(ROWS[5:9]))
  narrow_B = streams.row_hash(ROWS.astype(np.uint8))
  np.testing.assert_array_equal(hash_B, narrow_B)
  assert len(np.unique(hash_B)) == len(ROWS)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=2, max_size=9), st.data())
def test_changing_or_swapping_a_cell_changes_the_hash(row, data):
  place = data.draw(st.integers(0, len(row) - 1))
  changed = [*row]
  changed[place] = (changed[place] + 1) % 256
  rotated = row[1:] + row[:1]
  hashes = streams.row_hash(np.array([row, changed, rotated]))
  assert hashes[0] != hashes[1]
  assert (hashes[0] == hashes[2]) == (row == rotated)


@pytest.mark.parametrize('fraction', [0.05, 0.2, 0.5, 0.9])
def test_split_has_its_share_and_grows_with_it(fraction):
  hash_B = streams.row_hash(ROWS)
  out_B = streams.is_heldout(hash_B, fraction)
  deviation = 5 * (fraction * (1 - fraction) / len(ROWS)) ** 0.5
  assert abs(out_B.mean() - fraction) < deviation
  assert streams.is_heldout(hash_B, min(1.0, fraction + 0.05))[out_B].all()


def test_drawn_rows_lie_on_their_side():
  rng = np.random.default_rng(0)
  for heldout in (False, True):
    rows_NT = streams.draw_split(
      lambda count: rng.integers(0, 5, (count, 6)),
      300,
      heldout=heldout,
      fraction=0.1,
    )
    assert rows_NT.shape == (300, 6)
    sides_N = streams.is_heldout(streams.row_hash(rows_NT), 0.1)
    assert (sides_N == heldout).all()


def test_an_empty_side_is_an_error():
  zeros = lambda count: np.zeros((count, 1), int)
  heldout = streams.is_heldout(streams.row_hash(zeros(1)), 0.5)[0]
  with pytest.raises(ValueError, match='no .* rows'):
    streams.draw_split(zeros, 1, heldout=not heldout, fraction=0.5)
