"""Rotary positions turn pairs; only differences of positions are seen."""

import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.nn.config import BlockConfig
from loopformer.nn.rotary import (
  LAYOUTS,
  rotary_table,
  rotate,
  rotate_by,
  tables_of,
)
from tests.models import f64, normal

K = 8


def turned(x_BTHK, layout, start=0):
  positions_T = jnp.arange(x_BTHK.shape[1]) + start
  return rotate(x_BTHK, rotary_table(positions_T, K), layout=layout)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_equals_complex_multiplication(layout):
  x_BTHK = normal(2, 5, 3, K)
  pairs = (
    np.stack(np.split(f64(x_BTHK), 2, -1), -1)
    if layout == 'half'
    else f64(x_BTHK).reshape(2, 5, 3, K // 2, 2)
  )
  angle = np.arange(5)[:, None, None] * 1e4 ** (-2 * np.arange(K // 2) / K)
  z = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angle)
  want = (
    np.concatenate([z.real, z.imag], -1)
    if layout == 'half'
    else np.stack([z.real, z.imag], -1).reshape(x_BTHK.shape)
  )
  np.testing.assert_allclose(turned(x_BTHK, layout), want, atol=1e-6)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_keeps_norms_and_leaves_position_zero(layout):
  x_BTHK = normal(1, 7, 2, K)
  out_BTHK = turned(x_BTHK, layout)
  norms = [np.linalg.norm(f64(x), axis=-1) for x in (x_BTHK, out_BTHK)]
  np.testing.assert_allclose(*norms, rtol=1e-6)
  np.testing.assert_array_equal(out_BTHK[:, 0], x_BTHK[:, 0])


@pytest.mark.parametrize('layout', LAYOUTS)
def test_products_depend_on_the_difference_of_positions(layout):
  q, k = (normal(1, 1, 1, K, seed=seed) for seed in (1, 2))

  def product(m, n):
    return float(jnp.vdot(turned(q, layout, m), turned(k, layout, n)))

  assert product(9, 4) == pytest.approx(product(5, 0), abs=1e-5)
  assert product(2, 30) == pytest.approx(product(0, 28), abs=1e-5)
  assert product(4, 9) != pytest.approx(product(9, 4), abs=1e-3)


def test_the_layouts_differ_by_a_permutation():
  x_BTHK = normal(1, 6, 2, K)
  order = np.concatenate([np.arange(0, K, 2), np.arange(1, K, 2)])
  np.testing.assert_array_equal(
    turned(x_BTHK, 'interleaved')[..., order],
    turned(x_BTHK[..., order], 'half'),
  )


def test_positions_may_differ_by_row():
  x_BTHK = normal(2, 3, 1, K)
  positions_BT = jnp.array([[0, 1, 2], [5, 6, 7]])
  out_BTHK = rotate(x_BTHK, rotary_table(positions_BT, K))
  np.testing.assert_array_equal(out_BTHK[1:], turned(x_BTHK[1:], 'half', 5))


def block(**fields):
  return BlockConfig(width=4 * K, heads=2, hidden=8, **fields)


def test_a_board_turns_by_row_and_by_column():
  x_BTHK = normal(1, 6, 1, 2 * K)
  cfg = block(rotary='grid', rotary_columns=3)
  found = rotate_by(x_BTHK, tables_of(cfg, jnp.arange(6)), layout='grid')
  rows, cells = (jnp.array(x) for x in ([0, 0, 0, 1, 1, 1], [0, 1, 2] * 2))
  for half, place_T in (np.s_[..., :K], rows), (np.s_[..., K:], cells):
    wanted = rotate(x_BTHK[half], rotary_table(place_T, K))
    np.testing.assert_allclose(found[half], wanted, atol=1e-6)
  for columns, message in (0, 'a square'), (4, 'rows of 4'):
    with pytest.raises(ValueError, match=f'must be {message} .* got 6'):
      tables_of(block(rotary='grid', rotary_columns=columns), jnp.arange(6))


def test_positions_are_condensed_and_may_be_absent():
  x_BTHK = normal(1, 3, 1, 2 * K)
  wanted = rotate(x_BTHK, rotary_table(jnp.arange(3) / 4, 2 * K, theta=50.0))
  cfg = block(rotary_theta=50.0, rotary_condense=4.0)
  found = rotate_by(x_BTHK, tables_of(cfg, jnp.arange(3)), layout='half')
  np.testing.assert_array_equal(found, wanted)
  assert not tables_of(block(rotary='none'), jnp.arange(3))
  assert rotate_by(x_BTHK, (), layout='none') is x_BTHK


def test_bad_arguments_are_refused():
  with pytest.raises(ValueError, match='head_width must be even .* got 3'):
    rotary_table(jnp.arange(2), 3)
  with pytest.raises(ValueError, match="layout must be one of .* got 'pairs'"):
    rotate(normal(1, 2, 1, K), rotary_table(jnp.arange(2), K), layout='pairs')
