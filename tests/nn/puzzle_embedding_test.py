"""Puzzles: prefix tokens and grid tokens against their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.core.rows import keyed_normal
from loopformer.nn.puzzle_embedding import (
  CUT_AT_TWO,
  PuzzleEmbedding,
  prefix_tokens,
  truncated_state,
)
from loopformer.nn.variables import abstract, count_parameters
from tests.models import f64, made, random, row_keys

D, S, V, PUZZLES, E = 8, 4, 5, 3, 12
INPUTS = jnp.array([[1, 2, 3, 4], [4, 0, 2, 1]])


def embedding(make=random, prefix=3, **fields):
  fields = {
    'vocab_size': V,
    'width': D,
    'seq_len': S,
    'puzzles': PUZZLES,
    'puzzle_width': E,
    'learned_positions': False,
    **fields,
  }
  return make(lambda rngs: PuzzleEmbedding(prefix=prefix, rngs=rngs, **fields))


@pytest.mark.parametrize('learned', [False, True])
def test_is_its_equation(learned):
  """A vector of 12 fills a token and a half; the rest are registers."""
  layer, puzzles_B = embedding(learned_positions=learned), jnp.array([2, 1])
  front = np.zeros((2, 3 * D))
  front[:, :E] = f64(layer.puzzles)[puzzles_B]
  tokens = f64(layer.tokens)[INPUTS]
  want = np.concatenate([front.reshape(2, 3, D), tokens], 1)
  if learned:
    want = (want + f64(layer.positions)) / 2**0.5
  got = layer(INPUTS, layer.rows(puzzles_B))
  np.testing.assert_allclose(got, D**0.5 * want, atol=1e-5)


def test_registers_are_exact_zeros():
  layer = embedding()
  front = layer(INPUTS)[:, :3].reshape(2, -1)
  np.testing.assert_array_equal(front[:, E:], 0.0)
  assert (front[:, :E] != 0).all()


def test_without_ids_every_sample_is_puzzle_zero():
  layer = embedding()
  zero = layer.rows(jnp.zeros(2, int))
  np.testing.assert_array_equal(layer(INPUTS), layer(INPUTS, zero))


def test_a_row_has_the_gradient_of_its_own_sample():
  """dx / dp = sqrt(D): the sum over all of x moves each number by that."""
  layer = embedding()
  grad = jax.grad(lambda rows: layer(INPUTS, rows)[0].sum())
  rows = grad(layer.rows(jnp.array([2, 2])))
  np.testing.assert_allclose(rows[0], D**0.5, rtol=1e-6)
  np.testing.assert_array_equal(rows[1], 0.0)


def test_without_a_table_there_is_the_grid_alone():
  layer = embedding(prefix=0, puzzle_width=0)
  assert layer.rows(jnp.zeros(2, int)) is None
  want = D**0.5 * f64(layer.tokens)[INPUTS]
  np.testing.assert_allclose(layer(INPUTS), want, atol=1e-5)


def test_the_table_is_no_parameter():
  shapes = embedding(abstract, learned_positions=True)
  assert count_parameters(shapes) == V * D + (3 + S) * D


def test_the_start():
  """Vectors of puzzles are zero, tokens of deviation 1 / sqrt(D), cut at two
  deviations of the normal they are drawn from."""
  layer = embedding(made, vocab_size=512, width=64, puzzle_width=100)
  np.testing.assert_array_equal(layer.puzzles[...], 0.0)
  tokens = f64(layer.tokens)
  assert tokens.std() == pytest.approx(1 / 8, rel=0.01)
  assert 1.9 < np.abs(tokens).max() * 8 * CUT_AT_TWO <= 2


def test_a_state_is_cut_and_scaled_alike():
  draws = jax.jit(lambda keys_B: keyed_normal(keys_B, (64, 64), truncate=2.0))(
    row_keys(8)
  )
  state = f64(truncated_state(draws, 6.0))
  assert state.std() == pytest.approx(6.0, rel=0.01)
  assert np.abs(state).max() <= 6 * 2 / CUT_AT_TWO


@pytest.mark.parametrize(
  'puzzle_width, prefix, tokens',
  [(512, 0, 1), (513, 0, 2), (512, 16, 16), (0, 16, 0), (0, 0, 0), (1, 0, 1)],
)
def test_tokens_of_a_prefix(puzzle_width, prefix, tokens):
  assert prefix_tokens(puzzle_width, 512, prefix) == tokens


@pytest.mark.parametrize(
  'given, message',
  [
    ((-1, 8, 0), 'puzzle_width must be >= 0, got -1.'),
    ((8, 8, -1), 'prefix must be >= 0, got -1.'),
    ((17, 8, 2), 'puzzle_width must be <= prefix * width = 16, got 17.'),
  ],
)
def test_errors_name_the_field(given, message):
  with pytest.raises(ValueError) as error:
    prefix_tokens(*given)
  assert str(error.value) == message
