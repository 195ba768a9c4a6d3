"""Depthwise convolutions against the compiler's grouped convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.nn.convolution import Depthwise
from tests.models import f64, made, normal, random

D = 6


def depthwise(kind, taps, make=random, width=D, **fields):
  return make(lambda rngs: Depthwise(kind, width, taps, rngs=rngs, **fields))


def grouped(x, kernel, padding):
  """The same by `lax`: channels last, one group per channel."""
  letters = 'HW'[: kernel.ndim - 2]
  layout = f'N{letters}C', f'{letters}IO', f'N{letters}C'
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (1,) * len(letters),
    padding,
    dimension_numbers=layout,
    feature_group_count=x.shape[-1],
  )


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('taps', [1, 2, 4, 9])
def test_a_line_is_causal(taps, bias):
  """More taps than tokens too."""
  layer, x_BTD = depthwise('line', taps, bias=bias), normal(2, 5, D)
  want = grouped(x_BTD, layer.kernel[...], [(taps - 1, 0)])
  want += layer.bias[...] if bias else 0
  np.testing.assert_allclose(layer(x_BTD), want, atol=1e-5)


@pytest.mark.parametrize('taps', [1, 3, 5])
def test_a_square_is_centred_with_zeros_around(taps):
  layer, x_BTD = depthwise('square', taps), normal(2, 9, D)
  want = grouped(x_BTD.reshape(2, 3, 3, D), layer.kernel[...], 'SAME')
  got = layer(x_BTD).reshape(2, 3, 3, D)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_two_taps_by_hand():
  layer = depthwise('line', 2, width=1)
  layer.kernel.set_value(jnp.array([10.0, 1.0]).reshape(2, 1, 1))
  y_BTD = layer(jnp.array([1.0, 2, 3]).reshape(1, 3, 1))
  np.testing.assert_array_equal(y_BTD.ravel(), [1, 12, 23])


@pytest.mark.parametrize(
  'kind, taps, cells', [('line', 4, 4), ('square', 3, 9)]
)
def test_the_start_is_uniform_within_one_over_the_root_of_the_taps(
  kind, taps, cells
):
  layer = depthwise(kind, taps, made, width=4096, bias=True)
  for array in (f64(layer.kernel), f64(layer.bias)):
    assert np.abs(array).max() <= cells**-0.5
    assert array.std() == pytest.approx((3 * cells) ** -0.5, rel=0.03)


def test_low_precision_stays():
  layer = depthwise('line', 2, bias=True)
  assert layer(normal(1, 3, D).astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_an_even_square_is_refused():
  with pytest.raises(ValueError, match='^conv_taps must be odd .* got 4'):
    depthwise('square', 4)


def test_tokens_must_be_a_square():
  with pytest.raises(ValueError, match='^tokens must be a square .* got 8'):
    depthwise('square', 3)(normal(1, 8, D))
