"""Positions and masks of padded, packed and prefixed batches, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.nn.block import Block
from loopformer.nn.config import BlockConfig
from loopformer.nn.place import place_of, tokens_of
from loopformer.nn.rotary import rotary_table
from tests.models import normal, random

CAUSAL = BlockConfig(width=8, heads=2, hidden=8, mask='causal')
same = np.testing.assert_array_equal


def real(*rows):
  """Rows of 0 for padding and 1 for tokens."""
  return jnp.array([list(map(int, row)) for row in rows], bool)


def test_padding_takes_no_positions():
  tokens = tokens_of(real('00111', '11100', '10101'))
  same(tokens.positions_BS[0, 2:], [0, 1, 2])
  same(tokens.positions_BS[1, :3], [0, 1, 2])
  same(tokens.positions_BS[2, ::2], [0, 1, 2])


def test_positions_start_anew_in_every_document():
  segments_BT = jnp.array([[0, 0, 0, 1, 1, 2]])
  tokens = tokens_of(real('111111'), segments_BT=segments_BT)
  same(tokens.positions_BS, [[0, 1, 2, 0, 1, 0]])


def test_a_document_reads_itself_alone():
  segments_BT = jnp.array([[0, 0, 1, 1]])
  tokens = tokens_of(real('1110'), segments_BT=segments_BT)
  want = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
  same(place_of(CAUSAL, tokens).mask_BTT[0], np.array(want, bool))


def test_a_prefix_is_read_in_both_directions():
  tokens = tokens_of(real('1111'), prefix_BT=real('0110'))
  want = np.tril(np.ones((4, 4), bool))
  want[1, 2] = True
  same(place_of(CAUSAL, tokens).mask_BTT[0], want)


def test_a_window_counts_positions_and_not_indices():
  cfg = BlockConfig(width=8, heads=2, mask='window', window=2)
  place = place_of(cfg, tokens_of(real('10101')))
  same(place.mask_BTT[0, 4], [False, False, True, False, True])


@pytest.mark.parametrize('rotary', ['half', 'none'])
def test_a_padded_text_is_what_it_is_alone(rotary):
  """What stands in the padding is never read."""
  cfg = BlockConfig(width=8, heads=2, hidden=8, mask='causal', rotary=rotary)
  block, x_BTD = random(lambda rngs: Block(cfg, 2, rngs=rngs)), normal(1, 3, 8)
  run = jax.jit(lambda block, x, place: block(x, place)[0])
  alone = run(block, x_BTD, None)
  for left in (0, 2):
    pad = ((0, 0), (left, 2 - left), (0, 0))
    padded = jnp.pad(x_BTD, pad, constant_values=7.0)
    there = jnp.pad(jnp.ones((1, 3), bool), pad[:2])
    out = run(block, padded, place_of(cfg, tokens_of(there)))
    np.testing.assert_allclose(out[:, left : left + 3], alone, atol=1e-5)


def test_packed_documents_are_what_they_are_alone():
  block = random(lambda rngs: Block(CAUSAL, 2, rngs=rngs))
  x_BTD = normal(1, 5, 8)
  run = jax.jit(lambda block, x, place: block(x, place)[0])
  segments_BT = jnp.array([[3, 3, 4, 4, 4]])
  tokens = tokens_of(real('11111'), segments_BT=segments_BT)
  packed = run(block, x_BTD, place_of(CAUSAL, tokens))
  for part in (slice(0, 2), slice(2, 5)):
    alone = run(block, x_BTD[:, part], None)
    np.testing.assert_allclose(packed[:, part], alone, atol=1e-5)


def test_other_positions_turn_by_other_tables():
  tokens = tokens_of(real('0111'))
  place = place_of(CAUSAL, tokens)
  moved = place.at(CAUSAL, tokens.positions_BS + 5)
  same(moved.mask_BTT, place.mask_BTT)
  same(moved.positions_BT, place.positions_BT + 5)
  wanted = rotary_table(place.positions_BT + 5, 4)
  for found, table in zip(moved.tables[0], wanted, strict=True):
    same(found, table)
