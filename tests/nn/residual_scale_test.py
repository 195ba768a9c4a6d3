"""Residual scales by hand: how b1 and b2 follow from a1 and a2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.nn.residual_scale import KINDS, ResidualScale, SpectralLinear
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


@pytest.mark.parametrize('kind', ['fixed', 'learned', 'input', 'spectral'])
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


def spectral():
  """|W|_2 = 1, and a second value so close that 50 iterations do not do."""
  layer = random(lambda rngs: SpectralLinear(D, rngs=rngs))
  left, _, right = np.linalg.svd(f64(layer.kernel))
  sizes = np.concatenate([[1.0, 0.99], np.linspace(0.5, 0.1, D - 2)])
  layer.kernel.set_value(jnp.asarray((left * sizes) @ right, jnp.float32))
  return layer


def power_method(kernel, u, times):
  for _ in range(times):
    v = kernel @ u / np.linalg.norm(kernel @ u)
    u = kernel.T @ v / np.linalg.norm(kernel.T @ v)
  return v, u, v @ kernel @ u


def settled(layer):
  _, u, _ = power_method(f64(layer.kernel), f64(layer.u), 5000)
  layer.u.set_value(jnp.asarray(u, jnp.float32))
  return layer


def test_a_spectral_map_by_hand():
  layer, x_BLD = spectral(), normal(2, 3, D)
  kernel = f64(layer.kernel)
  _, _, sigma = power_method(kernel, f64(layer.u), 50)
  assert 0.99 < sigma < 0.9999
  want = f64(layer.scale) / sigma * f64(x_BLD) @ kernel + f64(layer.bias)
  np.testing.assert_allclose(layer(x_BLD), want, atol=1e-5)


def test_a_settled_spectral_map_has_the_norm_of_its_gain():
  layer = settled(spectral())
  whole = layer(jnp.eye(D)[None])[0] - layer.bias[...]
  size = np.linalg.norm(f64(whole), 2)
  np.testing.assert_allclose(size, f64(layer.scale), rtol=1e-5)


def test_a_spectral_map_starts_as_the_plain_one():
  layer = settled(made(lambda rngs: SpectralLinear(D, rngs=rngs)))
  x_BLD = normal(2, 3, D)
  want = f64(x_BLD) @ f64(layer.kernel)
  np.testing.assert_allclose(layer(x_BLD), want, atol=1e-5)
  assert (f64(layer.v) == 1).all()


def sigma_gradient(layer):
  return jax.grad(lambda layer: layer._spectral_norm())(layer)


def test_gradients_flow_through_the_power_method():
  """Against differences of the iterations in float64, far from settled."""
  layer, change = spectral(), f64(normal(D, D, seed=5))
  kernel, u = f64(layer.kernel), f64(layer.u)
  above, below = (
    power_method(kernel + step * change, u, 50)[2] for step in (1e-5, -1e-5)
  )
  slope = np.vdot(f64(sigma_gradient(layer).kernel), change)
  np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-3)
  v, u, _ = power_method(kernel, u, 50)
  assert abs(slope - v @ change @ u) > 0.01 * abs(slope)


def test_once_settled_they_are_those_of_constant_vectors():
  layer = settled(spectral())
  v, u, _ = power_method(f64(layer.kernel), f64(layer.u), 50)
  grads = sigma_gradient(layer)
  np.testing.assert_allclose(grads.kernel[...], np.outer(v, u), atol=1e-4)
  np.testing.assert_allclose(grads.u[...], 0.0, atol=1e-4)


@pytest.mark.parametrize('kind', ['fixed', 'learned', 'input', 'spectral'])
def test_outer_only(kind):
  scale = scale_of(kind, make=random, outer_only=True)
  a1, b1, a2, b2 = map(f64, scale(normal(2, 3, D)))
  assert a1 == b1 == 1
  np.testing.assert_allclose(a2 + b2, 1.0, atol=1e-6)


def test_none_is_the_plain_residual():
  assert all(x == 1 for x in scale_of('none')(normal(2, 3, D)))


@pytest.mark.parametrize(
  'kind, count',
  [
    ('none', 0),
    ('fixed', 0),
    ('learned', D),
    ('input', D * D + D),
    ('spectral', D * D + D + 1),
  ],
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
