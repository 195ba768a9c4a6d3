"""Embeddings, sinusoids and initial states that belong to a sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.nn.embedding import Embedding
from loopformer.nn.position import initial_state, path_noise, sinusoid
from tests.models import f64, normal, random, row_keys

D = 6
INPUTS = jnp.array([[3, 1, 2], [0, 0, 4]])


def test_the_sinusoid_is_its_formula():
  index = np.array([[0, 1], [7, 300]])
  angle = index[..., None] / 1e4 ** (2 * np.arange(D // 2) / D)
  want = np.concatenate([np.sin(angle), np.cos(angle)], -1)
  np.testing.assert_allclose(sinusoid(jnp.array(index), D), want, atol=2e-5)
  start = [0.0] * (D // 2) + [1.0] * (D // 2)
  np.testing.assert_array_equal(sinusoid(jnp.array(0), D), start)


def test_an_odd_width_has_no_sinusoid():
  with pytest.raises(ValueError, match='width must be even .* got 5'):
    sinusoid(jnp.arange(3), 5)


def embedding(**fields):
  return random(lambda rngs: Embedding(5, D, rngs=rngs, **fields))


@pytest.mark.parametrize('scale', [None, 2.0])
@pytest.mark.parametrize('positions', ['none', 'learned', 'sinusoidal'])
def test_the_embedding_is_its_formula(positions, scale):
  layer = embedding(positions=positions, seq_len=4, scale=scale)
  factor = D**0.5 if scale is None else scale
  want = factor * f64(layer.tokens.embedding)[INPUTS]
  if positions == 'learned':
    want = want + factor * f64(layer.position_table)[:3]
  if positions == 'sinusoidal':
    want = want + f64(sinusoid(jnp.arange(3), D))
  np.testing.assert_allclose(layer(INPUTS), want, atol=1e-6)


def test_a_tied_head_reads_the_table():
  layer, x_BTD = embedding(), normal(2, 3, D)
  want = f64(x_BTD) @ f64(layer.tokens.embedding).T
  np.testing.assert_allclose(layer.attend(x_BTD), want, atol=1e-6)


def test_a_text_longer_than_its_positions_is_refused():
  layer = embedding(positions='learned', seq_len=2)
  with pytest.raises(ValueError, match='at most seq_len = 2 tokens, got 3'):
    layer(INPUTS)


def test_noise_belongs_to_row_and_position():
  keys_B = row_keys(4)
  draw = jax.jit(
    lambda keys_B, context: initial_state('normal', context, keys_B, scale=0.5),
  )
  whole = draw(keys_B, jnp.zeros((4, 6, D)))
  order = np.array([2, 0, 3, 1])
  np.testing.assert_array_equal(
    draw(keys_B[order], jnp.zeros((4, 6, D))), whole[order]
  )
  alone = draw(keys_B[2:3], jnp.zeros((1, 3, D)))
  np.testing.assert_array_equal(alone[0], whole[2, :3])
  assert len(np.unique(whole)) == whole.size


def test_noise_is_a_normal_cut_at_three():
  draws = f64(
    initial_state('normal', jnp.zeros((16, 32, 64)), row_keys(16), scale=2.0)
  )
  assert np.abs(draws).max() <= 6.0
  # The variance of a normal cut at +-3 is 1 - 6 phi(3) / (2 Phi(3) - 1).
  assert draws.std() == pytest.approx(2 * 0.97333**0.5, rel=0.01)
  assert abs(draws.mean()) < 0.05


def test_other_initial_states():
  context = normal(2, 3, D)
  embedded = initial_state('embed', context, None)
  np.testing.assert_array_equal(embedded, context)
  np.testing.assert_array_equal(
    initial_state('zero', context, None, width=4), np.zeros((2, 3, 4))
  )


def test_noise_needs_keys():
  with pytest.raises(ValueError, match='keys must be given .* got None'):
    initial_state('normal', normal(1, 2, D), None)


def test_noise_is_keyed_by_row_recurrence_and_call():
  """`keys_B` are those of a recurrence; any other key is other noise."""
  like, draw = jnp.zeros((4, 3, D)), jax.jit(path_noise, static_argnums=3)
  noise = draw(row_keys(4), 5, like, 0.1)
  for row in range(4):
    alone = draw(row_keys(4)[row : row + 1], 5, like[:1], 0.1)
    np.testing.assert_array_equal(alone[0], noise[row])
  others = [
    draw(row_keys(4), 6, like, 0.1),
    draw(row_keys(4, seed=4), 5, like, 0.1),
    noise[::-1],
  ]
  for other in others:
    assert (np.asarray(other) != noise).all()


def test_noise_needs_keys_and_none_needs_none():
  assert path_noise(None, 0, jnp.zeros((2, 3, D)), 0.0) == 0.0
  with pytest.raises(ValueError, match='^keys must be given for noise = 0.1'):
    path_noise(None, 0, jnp.zeros((2, 3, D)), 0.1)
