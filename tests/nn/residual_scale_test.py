"""Residual scales by hand: how b1 and b2 follow from a1 and a2."""

import numpy as np
import pytest

from loopformer.nn.residual_scale import KINDS, ResidualScale
from loopformer.nn.variables import abstract, count_parameters
from tests.models import f64, made, normal, random

D, N = 8, 4


def scale_of(kind, *, make=made, inner=0.75, outer=0.25, outer_only=False):
  return make(
    lambda rngs: ResidualScale(
      kind,
      D,
      N,
      inner=inner,
      outer=outer,
      outer_only=outer_only,
      rngs=rngs,
    )
  )


@pytest.mark.parametrize('kind', ['fixed', 'learned'])
def test_the_published_start(kind):
  """a1^4 = 0.31640625, so a2 a1^4 = 0.0791 and b2 = 0.9209."""
  a1, b1, a2, b2 = map(f64, scale_of(kind)(normal(2, 3, D)))
  for value, want in ((a1, 0.75), (a2, 0.25), (b2, 0.9208984375)):
    np.testing.assert_allclose(value, want, rtol=1e-6)
  np.testing.assert_allclose(b1, 0.9208984375 / 4 / 0.68360375, rtol=1e-6)
  np.testing.assert_allclose(a2 * a1**N, 0.0791015625, rtol=1e-6)


@pytest.mark.parametrize('kind', ['fixed', 'learned', 'input'])
def test_what_the_branches_add_is_what_the_input_weighs(kind):
  """b1 (1 - a1^n) / (1 - a1) = b2 and a2 a1^n + b2 = 1."""
  a1, b1, a2, b2 = map(f64, scale_of(kind, make=random)(normal(2, 3, D)))
  np.testing.assert_allclose(b1 * (1 - a1**N) / (1 - a1), b2, rtol=2e-5)
  np.testing.assert_allclose(a2 * a1**N + b2, 1.0, atol=1e-6)


def test_input_scales_are_sigmoids_of_the_state():
  scale, u_BLD = scale_of('input', make=random), normal(2, 3, D)
  a1, _, a2, _ = scale(u_BLD)
  for value, layer in ((a1, scale.inner), (a2, scale.outer)):
    logits = f64(u_BLD) @ f64(layer.kernel) + f64(layer.bias)
    np.testing.assert_allclose(value, 1 / (1 + np.exp(-logits)), atol=1e-6)


@pytest.mark.parametrize('kind', ['fixed', 'learned', 'input'])
def test_outer_only(kind):
  scale = scale_of(kind, make=random, outer_only=True)
  a1, b1, a2, b2 = map(f64, scale(normal(2, 3, D)))
  assert a1 == b1 == 1
  np.testing.assert_allclose(a2 + b2, 1.0, atol=1e-6)


def test_none_is_the_plain_residual():
  assert all(x == 1 for x in scale_of('none')(normal(2, 3, D)))


@pytest.mark.parametrize(
  'kind, count',
  [('none', 0), ('fixed', 0), ('learned', D), ('input', D * D + D)],
)
def test_parameter_count(kind, count):
  shapes = lambda only: scale_of(kind, make=abstract, outer_only=only)
  assert count_parameters(shapes(False)) == 2 * count
  assert count_parameters(shapes(True)) == count


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'inner': 1.0}, 'alpha_inner must be in (0, 1), got 1.0.'),
    ({'outer': 0.0}, 'alpha_outer must be in (0, 1), got 0.0.'),
    (
      {'kind': 'tied'},
      f"residual_scale must be one of {KINDS}, got 'tied'.",
    ),
  ],
)
def test_errors_name_the_field(fields, message):
  with pytest.raises(ValueError) as error:
    scale_of(**{'kind': 'learned', **fields}, make=abstract)
  assert str(error.value) == message
