"""Directions, decay, clipping and schedules, against numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.train.optimizers import (
  OPTIMIZERS,
  OptimizerConfig,
  make_optimizer,
  make_schedule,
  scale_by_adam_atan2,
)

# One parameter of every kind, and what its axes are called.
NAMES = {
  'embedding': ('vocab', 'embed'),
  'gains': ('layers', None),
  'head': (None, None),
  'kernel': ('embed', 'mlp'),
  'positions': (None, 'embed'),
  'stack': ('layers', 'embed', 'heads'),
  'vector': (None,),
}
SHAPES = {
  'embedding': (5, 4),
  'gains': (2, 4),
  'head': (4, 5),
  'kernel': (4, 6),
  'positions': (3, 4),
  'stack': (2, 4, 6),
  'vector': (4,),
}
MATRICES = {'embedding', 'head', 'kernel', 'positions', 'stack'}


def arrays(seed):
  rng = np.random.default_rng(seed)
  return {
    name: jnp.asarray(rng.normal(size=shape), jnp.float32)
    for name, shape in SHAPES.items()
  }


def one_update(grads, params, **fields):
  optimizer = make_optimizer(OptimizerConfig(**fields), 10, NAMES)
  update = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])
  return update(grads, params)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_lowers_a_quadratic(name):
  """f(p) = |p - 1|^2 / 2 over all parameters, 30 steps."""
  cfg = OptimizerConfig(name=name, learning_rate=0.05, clip=0.0)
  optimizer = make_optimizer(cfg, 30, NAMES)
  loss = lambda p: sum(jnp.sum((x - 1) ** 2) / 2 for x in p.values())

  @jax.jit
  def run(params):
    def step(carry, _):
      params, state = carry
      value, grads = jax.value_and_grad(loss)(params)
      updates, state = optimizer.update(grads, state, params)
      params = jax.tree.map(jnp.add, params, updates)
      return (params, state), value

    return jax.lax.scan(step, (params, optimizer.init(params)), length=30)

  (params, _), values = run(arrays(0))
  assert loss(params) < 0.8 * values[0]
  assert values[1] < values[0]
  for name, old in arrays(0).items():
    assert not np.array_equal(params[name], old)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_decay_is_rate_times_matrix_and_spares_vectors(name):
  """p <- p - rate (u + decay p): the decay adds -rate decay p, or nothing.

  Stacked gains [L, D] are vectors although they have two axes.
  """
  grads, params = arrays(1), arrays(2)
  common = {'name': name, 'learning_rate': 0.1, 'clip': 0.0}
  plain = one_update(grads, params, **common)
  decayed = one_update(grads, params, **common, weight_decay=0.5)
  for key, param in params.items():
    expected = -0.1 * 0.5 * param if key in MATRICES else 0 * param
    change = decayed[key] - plain[key]
    np.testing.assert_allclose(change, expected, atol=2e-6)
    if key not in MATRICES:
      np.testing.assert_array_equal(decayed[key], plain[key])


def test_muon_takes_matrices_of_the_body_and_adam_the_rest():
  """Muon's update is orthogonal up to its scale.

  Adam's first, with Nesterov momentum, is +-(1 + b1 / (1 + b1)).
  """
  grads = arrays(3)
  updates = one_update(
    grads, arrays(4), name='muon', learning_rate=1.0, clip=0.0
  )
  for name in ('embedding', 'gains', 'head', 'positions', 'vector'):
    first = -(1 + 0.9 / 1.9) * jnp.sign(grads[name])
    np.testing.assert_allclose(updates[name], first, rtol=1e-4)
  # Newton-Schulz leaves singular values near one, times 0.2 sqrt(max(m, n)).
  for matrix in (updates['kernel'], *updates['stack']):
    values = jnp.linalg.svd(matrix, compute_uv=False) / (0.2 * 6**0.5)
    assert np.all((0.6 < values) & (values < 1.3)), values


def test_muon_treats_every_layer_of_a_stack_alone():
  grads, params = arrays(3), arrays(4)
  scaled = dict(grads, stack=grads['stack'].at[1].multiply(100.0))
  fields = {'name': 'muon', 'clip': 0.0}
  one = one_update(grads, params, **fields)['stack']
  two = one_update(scaled, params, **fields)['stack']
  np.testing.assert_array_equal(one[0], two[0])
  np.testing.assert_allclose(one[1], two[1], rtol=1e-3, atol=1e-6)


def test_adam_atan2_starts_with_nearly_the_sign():
  """atan2(0.1 c, |c|) / 0.1 = 0.99669 sign(c): the mean is corrected outside.

  The textbook form atan2(m / 0.1, sqrt(v / 0.05)) would give pi / 4. Nothing
  is left where the gradient is zero: atan2(0, 0) = 0.
  """
  sizes = {'vector': jnp.array([3.0, -3.0, 1e-6, -1e6, 0.0, -0.0])}
  optimizer = make_optimizer(
    OptimizerConfig(name='adam_atan2', learning_rate=0.2, clip=0.0),
    10,
    {'vector': (None,)},
  )
  updates, _ = optimizer.update(sizes, optimizer.init(sizes), sizes)
  first = -0.2 * 0.99669 * np.sign(sizes['vector'])
  np.testing.assert_allclose(updates['vector'], first, rtol=1e-5)


@pytest.mark.parametrize('weight_decay', [0.0, 0.7])
def test_adam_atan2_against_a_plain_loop(weight_decay):
  """The published kernel in float64: decay first, then the arc tangent."""
  optimizer = make_optimizer(
    OptimizerConfig(
      name='adam_atan2',
      learning_rate=0.1,
      weight_decay=weight_decay,
      clip=0.0,
    ),
    10,
    {'w': ('embed', 'mlp')},
  )
  rng = np.random.default_rng(0)
  w = rng.normal(size=(3, 4))
  m, v = np.zeros_like(w), np.zeros_like(w)
  params = {'w': jnp.float32(w)}
  state = optimizer.init(params)
  for t in range(1, 8):
    g = rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-4, 4)
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
    w = w * (1 - 0.1 * weight_decay)
    angle = np.arctan2(m, np.sqrt(v) / np.sqrt(1 - 0.95**t))
    w = w - 0.1 / (1 - 0.9**t) * angle
    updates, state = optimizer.update({'w': jnp.float32(g)}, state, params)
    params = jax.tree.map(jnp.add, params, updates)
    np.testing.assert_allclose(params['w'], w, rtol=1e-5, atol=2e-6)


def test_adam_atan2_does_not_depend_on_the_scale_of_gradients():
  """No epsilon: a power of two changes no bit."""
  grads = arrays(3)
  scaled = jax.tree.map(lambda g: g * 2.0**-40, grads)
  small = scale_by_adam_atan2()
  for g, h in zip(
    jax.tree.leaves(small.update(grads, small.init(grads))[0]),
    jax.tree.leaves(small.update(scaled, small.init(grads))[0]),
    strict=True,
  ):
    np.testing.assert_array_equal(g, h)


def test_sgd_by_hand():
  """Two steps of momentum 0.5 at rate 0.1: -0.1 g, then -0.1 (1 + 0.5) g."""
  cfg = OptimizerConfig(name='sgd', learning_rate=0.1, b1=0.5, clip=0.0)
  optimizer = make_optimizer(cfg, 10, NAMES)
  grads = params = arrays(5)
  first, state = optimizer.update(grads, optimizer.init(params), params)
  second, _ = optimizer.update(grads, state, params)
  np.testing.assert_allclose(first['vector'], -0.1 * grads['vector'], rtol=1e-6)
  np.testing.assert_allclose(
    second['vector'], -0.15 * grads['vector'], rtol=1e-6
  )


@pytest.mark.parametrize(('size', 'kept'), [(4.0, 0.5), (0.5, 1.0)])
def test_clipping_is_of_the_global_norm(size, kept):
  """Norm 4 is scaled to 2; norm 0.5 is left alone; 0 never clips."""
  grads = arrays(6)
  norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads.values()))
  grads = {k: g * size / norm for k, g in grads.items()}
  fields = {'name': 'sgd', 'learning_rate': 1.0, 'b1': 0.0}
  clipped = one_update(grads, grads, **fields, clip=2.0)
  free = one_update(grads, grads, **fields, clip=0.0)
  for name, grad in grads.items():
    np.testing.assert_allclose(clipped[name], -kept * grad, rtol=1e-5)
    np.testing.assert_allclose(free[name], -grad, rtol=1e-6)


def rates(steps, at, **fields):
  schedule = make_schedule(OptimizerConfig(learning_rate=1.0, **fields), steps)
  return [float(schedule(jnp.int32(step))) for step in at]


@pytest.mark.parametrize(
  ('fields', 'at', 'expected'),
  [
    ({}, (0, 99), (1, 1)),
    # Warm-up over 4 steps starts at a quarter, not at zero.
    ({'warmup': 4}, (0, 1, 2, 3, 4, 50), (0.25, 0.5, 0.75, 1, 1, 1)),
    ({'schedule': 'linear'}, (0, 25, 50, 100), (1, 0.75, 0.5, 0)),
    ({'schedule': 'linear', 'floor': 0.2}, (0, 50, 100), (1, 0.6, 0.2)),
    ({'schedule': 'cosine'}, (0, 50, 100), (1, 0.5, 0)),
    ({'schedule': 'cosine', 'floor': 0.1}, (0, 50, 100), (1, 0.55, 0.1)),
    # After 20 steps of warm-up the cosine has 80 steps: its middle is 60.
    (
      {'schedule': 'cosine', 'warmup': 20},
      (0, 19, 20, 60, 100),
      (0.05, 1, 1, 0.5, 0),
    ),
    # Flat until 80, then down over the last fifth.
    ({'schedule': 'trapezoid'}, (0, 80, 85, 90, 100), (1, 1, 0.75, 0.5, 0)),
    (
      {'schedule': 'trapezoid', 'floor': 0.5, 'cooldown': 0.5},
      (50, 75, 100),
      (1, 0.75, 0.5),
    ),
    (
      {'schedule': 'trapezoid', 'warmup': 20, 'cooldown': 0.25},
      (9, 19, 80, 90, 100),
      (0.5, 1, 1, 0.5, 0),
    ),
  ],
)
def test_schedules_by_hand(fields, at, expected):
  np.testing.assert_allclose(rates(100, at, **fields), expected, atol=1e-6)


@pytest.mark.parametrize(
  'after', [{}, {'schedule': 'cosine', 'floor': 1.0}], ids=str
)
def test_the_warm_up_of_the_puzzle_reasoners(after):
  """The t-th update, from 1, has rate t / W up to W, and 1 from there on.

  Optax counts from 0, so the t-th update reads the schedule at t - 1.
  """
  counted = np.arange(1, 31)
  expected = np.minimum(counted / 20, 1)
  found = rates(60, counted - 1, warmup=20, **after)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_optimiser_follows_its_schedule():
  """Plain gradient descent on g = 1: the updates are minus the rates."""
  cfg = OptimizerConfig(
    name='sgd', learning_rate=1.0, b1=0.0, clip=0.0, warmup=2, schedule='linear'
  )
  names, one = {'w': (None,)}, {'w': jnp.ones(1)}
  optimizer = make_optimizer(cfg, 6, names)
  state, seen = optimizer.init(one), []
  for _ in range(7):
    updates, state = optimizer.update(one, state, one)
    seen.append(-float(updates['w'][0]))
  np.testing.assert_allclose(seen, [0.5, 1, 1, 0.75, 0.5, 0.25, 0], atol=1e-6)


@pytest.mark.parametrize(
  ('fields', 'says'),
  [
    ({'name': 'adamw2'}, "name must be one of .*, got 'adamw2'"),
    ({'schedule': 'cos'}, "schedule must be one of .*, got 'cos'"),
    ({'learning_rate': float('nan')}, 'learning_rate must be > 0, got nan'),
    ({'warmup': -1}, 'warmup must be >= 0, got -1'),
    ({'clip': -1.0}, 'clip must be >= 0, got -1.0'),
    ({'b1': 1.0}, r'b1 must be in \[0, 1\), got 1.0'),
    ({'b2': 1.5}, r'b2 must be in \[0, 1\), got 1.5'),
    ({'floor': 1.5}, r'floor must be in \[0, 1\], got 1.5'),
    ({'epsilon': 0.0}, 'epsilon must be > 0, got 0.0'),
  ],
)
def test_what_is_refused(fields, says):
  with pytest.raises(ValueError, match=says):
    OptimizerConfig(**fields)
