"""Norms by hand, masks and keys per row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.core import rows
from tests.core import affine

OLD = jnp.array([[[0.0, 0.0], [0.0, 2.0]]])
NEW = jnp.array([[[3.0, 4.0], [0.0, 1.0]]])
TOKEN_L2 = (5 / 5, 1 / 1)


@pytest.mark.parametrize(
  'name,ratio',
  [
    ('l2', np.sqrt(26) / np.sqrt(26)),
    ('inf', 4 / 4),
    ('token_l2', max(TOKEN_L2)),
    ('token_inf', max(4 / 4, 1 / 1)),
    ('token_max', max(4 / 4, 1 / 1)),
    ('token_l2_mean', np.mean(TOKEN_L2)),
  ],
)
def test_every_norm_against_a_hand_computed_ratio(name, ratio):
  measured = rows.norm_of(name).ratio(NEW, OLD, 1)
  np.testing.assert_allclose(measured, [ratio], 1e-6)


@pytest.mark.parametrize(
  'name,ratio',
  [
    ('l2', np.sqrt(26) / (1 + 0.5 * np.sqrt(26))),
    ('inf', 4 / (1 + 0.5 * 4)),
    ('token_l2', 5 / (1 + 0.5 * 5)),
    ('token_inf', 4 / (1 + 0.5 * 4)),
    ('token_max', 4 / (1 + 0.5 * 4)),
    ('token_l2_mean', (5 / 3.5 + 1 / 1.5) / 2),
  ],
)
def test_both_tolerances_share_one_bound(name, ratio):
  norm = rows.norm_of(name)
  measured = norm.ratio(NEW, OLD, 1, rtol=0.5, atol=1.0)
  np.testing.assert_allclose(measured, [ratio], 1e-6)


def test_a_norm_spans_the_arrays_of_a_tree_but_not_its_integers():
  new = {'a': jnp.full((1, 2), 3.0), 'b': jnp.full((1, 1), 4.0)}
  old = jax.tree.map(jnp.zeros_like, new)
  counters = {'n': jnp.full((1,), 7)}, {'n': jnp.zeros((1,), jnp.int32)}
  ratio = rows.norm_of('l2').ratio((new, counters[0]), (old, counters[1]), 1)
  np.testing.assert_allclose(ratio, [1.0])
  size = rows.norm_of('l2').size(new, 1)
  np.testing.assert_allclose(size, [np.sqrt(34)], 1e-6)
  np.testing.assert_allclose(rows.norm_of('inf').size(new, 1), [4.0])


def test_norms_are_taken_in_float32_or_wider():
  ones = jnp.ones((1, 300), jnp.bfloat16)
  size = rows.norm_of('l2').size(ones, 1)
  assert size.dtype == jnp.float32
  np.testing.assert_allclose(size, [np.sqrt(300)], 1e-6)


def test_a_still_row_has_ratio_zero_and_one_falling_to_zero_infinity():
  new = jnp.zeros((2, 2))
  old = jnp.array([[0.0, 0.0], [1.0, 0.0]])
  affine.equal(rows.norm_of('l2').ratio(new, old, 1), jnp.array([0, jnp.inf]))


def test_token_max_is_finite_where_a_token_falls_to_zero():
  """Tokens: 3e-8 / (2e-8 + 1e-8) = 1 of one, 4e-8 / 1e-8 of the other."""
  new = jnp.array([[[2e-8, 0.0], [0.0, 0.0]]])
  old = jnp.array([[[-1e-8, 0.0], [4e-8, -2e-8]]])
  norm = rows.norm_of('token_max')
  np.testing.assert_allclose(norm.ratio(new, old, 1), [4.0], 1e-5)
  np.testing.assert_allclose(norm.ratio(new[:, :1], old[:, :1], 1), [1], 1e-5)
  np.testing.assert_array_equal(norm.ratio(new, new, 1), 0)


def test_the_square_root_has_a_finite_gradient_at_zero():
  assert jax.grad(rows.safe_sqrt)(0.0) == 0
  assert jax.grad(rows.safe_sqrt)(4.0) == 0.25


def test_an_unknown_norm_is_named():
  with pytest.raises(ValueError, match="norm must be one of .*, got 'l3'."):
    rows.norm_of('l3')


def test_select_is_bit_exact_and_keeps_nan_out():
  new = {'x': jnp.array([[1.0], [jnp.nan]]), 'n': jnp.array([1, 2])}
  old = {'x': jnp.array([[3.0], [4.0]]), 'n': jnp.array([8, 9])}
  picked = rows.select(jnp.array([True, False]), new, old)
  affine.equal(picked, {'x': jnp.array([[1.0], [4.0]]), 'n': jnp.array([1, 9])})


def test_finiteness_is_a_property_of_the_row():
  tree = (jnp.array([[1.0, 2.0], [jnp.inf, 0.0]]), jnp.array([1, 2]))
  affine.equal(rows.is_finite(tree, 1), jnp.array([True, False]))


def test_arrays_without_common_rows_are_refused():
  for tree in ((), (jnp.ones((2, 1)), jnp.ones((3, 1))), (jnp.ones(2), 1.0)):
    with pytest.raises(ValueError, match='row axes'):
      rows.row_shape(tree, 1)


def test_row_keys_follow_the_sample_not_the_slot():
  key = jax.random.key(3)
  data = lambda ids: jax.random.key_data(rows.row_keys(key, jnp.array(ids)))
  together = data([7, 2, 9])
  affine.equal(data([9]), together[2:])
  affine.equal(data([2, 7]), together[jnp.array([1, 0])])
  assert len(np.unique(together, axis=0)) == 3


def test_keys_fold_over_any_row_axes():
  keys, steps = affine.keys(6), jnp.arange(6)
  flat = rows.fold_rows(keys, steps)
  grid = rows.fold_rows(keys.reshape(2, 3), steps.reshape(2, 3))
  affine.equal(*map(jax.random.key_data, (grid.ravel(), flat)))


def test_noise_is_keyed_by_row_and_position_apart_from_steps():
  keys = affine.keys(3)
  noise = rows.keyed_normal(keys, (5, 2))
  affine.equal(rows.keyed_normal(keys[1:2], (3, 2)), noise[1:2, :3])
  assert len(np.unique(noise)) == noise.size
  steps = jax.vmap(jax.random.fold_in, (None, 0))(keys[0], jnp.arange(5))
  draws = jax.vmap(lambda key: jax.random.normal(key, (2,)))(steps)
  assert not np.intersect1d(noise, draws).size


def test_noise_can_be_cut():
  cut = rows.keyed_normal(affine.keys(2), (100, 2), truncate=1.0)
  assert 0.9 < np.abs(cut).max() <= 1
