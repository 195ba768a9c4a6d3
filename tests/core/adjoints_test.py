"""Gradients of the loop against closed forms and hand-made unrolls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core import Cause
from tests.core import affine

DIM, ROWS = 3, 4


@pytest.fixture(autouse=True)
def double_precision():
  with jax.enable_x64(True):
    yield


def tanh_step(state, aux, args, info):
  del info
  weight_DD, input_BD = args
  return jnp.tanh(state @ weight_DD.T + input_BD), aux


def problem(radius=0.6):
  return jax.tree.map(jnp.asarray, affine.contraction(0, DIM, radius, ROWS))


def gradient(adjoint, *, step=tanh_step, args=None, state=None, jit=True, **kw):
  """d sum(cos(z + row)) of the result, for the arguments and the start."""
  args = problem() if args is None else args
  state = 0.3 * jnp.ones_like(args[1]) if state is None else state
  kw = {'halt': core.fixed_steps(), 'max_steps': 7, **kw}

  def loss(args, state):
    result = core.iterate(step, state, args, adjoint=adjoint, **kw)
    return objective(result.state), result

  grad = jax.grad(loss, (0, 1), has_aux=True)
  return (jax.jit(grad) if jit else grad)(args, state)


def objective(state):
  shift = jnp.arange(float(len(state)))[:, None]
  return jnp.sum(jnp.cos(state + shift))


def unrolled(free_B, grad_B, args, state):
  """n detached and then k differentiated steps of each row, by hand."""

  def loss(args, state):
    total = 0.0
    for i, (n, k) in enumerate(zip(free_B, grad_B, strict=True)):
      z, mine = state[i : i + 1], (args[0], args[1][i : i + 1])
      for _ in range(n):
        z = jax.lax.stop_gradient(tanh_step(z, (), mine, None)[0])
      for _ in range(k):
        z = tanh_step(z, (), mine, None)[0]
      total += jnp.sum(jnp.cos(z + i))
    return total

  return jax.jit(jax.grad(loss, (0, 1)))(args, state)


def close(a, b, tolerance=1e-10):
  for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def test_full_gradient_in_closed_form():
  """z_n = c^n z_0 + b (1 - c^n) / (1 - c), differentiated by hand."""
  c, b, z, n = 0.7, 0.4, 0.2, 5
  args = jnp.full((1, 1), c), jnp.full((1, 1), b)
  state = jnp.full((1, 1), z)
  (by_c, by_b), by_z = gradient(
    core.full(), step=affine.scale, args=args, state=state, max_steps=n
  )[0]
  outer = -np.sin(c**n * z + b * (1 - c**n) / (1 - c))
  geometric = (1 - c**n) / (1 - c)
  slope = (geometric - n * c ** (n - 1)) / (1 - c)
  close(by_b, [[outer * geometric]])
  close(by_z, [[outer * c**n]])
  close(by_c, [[outer * (n * c ** (n - 1) * z + b * slope)]])


@functools.cache
def full_gradient():
  with jax.enable_x64(True):
    return gradient(core.full())[0]


@pytest.mark.parametrize('remat', [1, 3])
def test_remat_leaves_the_gradient_alone(remat):
  close(gradient(core.full(remat=remat))[0], full_gradient(), 1e-13)


def test_remat_stores_less():
  """Compiled temporary memory of a step with wide insides."""

  def wide(state, aux, args, info):
    for _ in range(6):
      state = jnp.tanh(state @ args[0])
    return state, aux

  args = 0.1 * jnp.ones((64, 64)), jnp.zeros((32, 64))

  def size(remat):
    def loss(args):
      loop = core.iterate(
        wide,
        args[1],
        args,
        halt=core.fixed_steps(),
        max_steps=16,
        adjoint=core.full(remat=remat),
      )
      return loop.state.sum()

    compiled = jax.jit(jax.grad(loss)).lower(args).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  stored = size(0)
  assert size(1) < 0.6 * stored
  assert size(4) < 0.8 * stored


def test_last_k_equals_a_hand_made_unroll():
  args, state = problem(), 0.3 * jnp.ones((ROWS, DIM))
  by_hand = unrolled([5] * ROWS, [2] * ROWS, args, state)
  close(gradient(core.last_k(2))[0], by_hand)
  close(gradient(core.last_k(2, remat=1))[0], by_hand)
  assert not np.any(by_hand[1])


def test_last_k_beyond_the_depth_is_full():
  close(gradient(core.last_k(9))[0], full_gradient(), 1e-13)


def test_one_step_is_the_last_recurrence():
  by_hand = unrolled(
    [6] * ROWS, [1] * ROWS, problem(), 0.3 * jnp.ones((ROWS, DIM))
  )
  close(gradient(core.one_step())[0], by_hand)


def test_last_k_under_a_dynamic_rule_is_the_truth_of_each_row():
  kw = {'halt': core.fixed_point(0.05), 'max_steps': 20}
  grads, result = gradient(core.last_k(3), **kw)
  steps = [int(n) for n in result.steps_B]
  assert len(set(steps)) > 1 and min(steps) > 2
  assert np.all(result.cause_B == Cause.CONVERGED)
  args, state = problem(), 0.3 * jnp.ones((ROWS, DIM))
  free = [n - 3 for n in steps]
  close(grads, unrolled(free, [3] * ROWS, args, state))
  plain = gradient(core.full(), **kw)[1]
  close(result.state, plain.state, 1e-14)
  affine.equal(result.steps_B, plain.steps_B)


def test_sampled_depths_give_every_row_the_gradient_of_its_solo_run():
  """n = 0 rows reach the initial state; k_i < max k rows are not padded."""
  depth = core.sampling.window(jnp.array([1, 3, 5, 6]), 3)
  np.testing.assert_array_equal(depth.free_B, [0, 0, 2, 3])
  np.testing.assert_array_equal(depth.grad_B, [1, 3, 3, 3])
  adjoint = core.last_k(3, free_steps=depth.free_B)
  halt = core.fixed_steps(depth.free_B + depth.grad_B)
  grads, result = gradient(adjoint, halt=halt, max_steps=100)
  args, state = problem(), 0.3 * jnp.ones((ROWS, DIM))
  close(grads, unrolled([0, 0, 2, 3], [1, 3, 3, 3], args, state))
  by_state = np.abs(grads[1]).sum(-1)
  assert np.all(by_state[:2] > 0) and not np.any(by_state[2:])
  np.testing.assert_array_equal(result.steps_B, [1, 3, 5, 6])
  window = gradient(core.last_k(3), halt=halt, max_steps=100)[0]
  close(window, grads, 1e-14)


def test_a_row_falling_to_zero_does_not_poison_gradients():
  """|f(z) - z| / |f(z)| is infinite there; its gradient must not enter."""

  def step(state, aux, args, info):
    alive = (jnp.arange(ROWS) > 0)[:, None]
    return jnp.where(alive, tanh_step(state, aux, args, info)[0], 0.0), aux

  grads, result = gradient(core.full(), step=step, max_steps=2)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
  np.testing.assert_array_equal(result.state[0], 0)


def solved(args):
  """z*, the cotangent v and u = (I - J)^-T v of tanh(W z + x)."""
  z = jnp.zeros_like(args[1])
  for _ in range(300):
    z = tanh_step(z, (), args, None)[0]
  v = jax.grad(objective)(z)
  jacobian = (1 - z**2)[..., None] * args[0][None]
  return z, v, jacobian


def test_implicit_in_closed_form_on_an_affine_map():
  """dL/db = (I - A)^-T v and dL/dA = sum_b u z*^T, to 1e-10."""
  args = problem(0.7)
  loop = {'halt': core.fixed_point(1e-14), 'max_steps': 300}
  adjoint = core.implicit(max_steps=300)
  (by_a, by_b), by_z = gradient(adjoint, step=affine.step, args=args, **loop)[0]
  limit = affine.limit(args)
  v = np.asarray(jax.grad(objective)(jnp.asarray(limit)))
  u = np.linalg.solve(np.eye(DIM) - np.asarray(args[0]).T, v.T).T
  close(by_b, u, 1e-10)
  close(by_a, u.T @ limit, 1e-10)
  np.testing.assert_array_equal(by_z, 0)


IMPLICIT = {'halt': core.fixed_point(1e-13), 'max_steps': 200}


@functools.cache
def long_full():
  with jax.enable_x64(True):
    return gradient(core.full(), max_steps=100)[0][0]


@pytest.mark.parametrize('solver,remat', [('picard', 0), ('anderson', 1)])
def test_implicit_equals_a_long_full(solver, remat):
  """The solver goes both ways; Anderson may return its best iterate."""
  solver = getattr(core, solver)()
  adjoint = core.implicit(max_steps=200, solver=solver, remat=remat)
  grads, result = gradient(adjoint, solver=solver, **IMPLICIT)
  close(grads[0], long_full(), 1e-6)
  assert np.all(result.steps_B < 60)


@pytest.mark.parametrize('adjoint', [core.implicit(), core.phantom(60, 1.0)])
def test_the_best_iterate_of_anderson_has_a_gradient(adjoint):
  """Run on past convergence, the best iterate is not the last one."""
  grads, result = gradient(adjoint, solver=core.anderson(3), max_steps=25)
  close(grads[0], long_full(), 1e-6)


def test_phantom_is_a_neumann_sum_and_tends_to_implicit():
  """k steps with tau = 1 from z* give u = sum_{i<k} (J^T)^i v: k terms."""
  args = problem()
  z, v, jacobian = solved(args)
  for k in (1, 3):
    term, u = v, jnp.zeros_like(v)
    for _ in range(k):
      u = u + term
      term = jnp.einsum('bij,bi->bj', jacobian, term)
    gain = u * (1 - z**2)
    grads, _ = gradient(core.phantom(k, 1.0), **IMPLICIT)
    close(grads[0], (gain.T @ z, gain), 1e-9)
    np.testing.assert_array_equal(grads[1], 0)
  far, _ = gradient(core.phantom(120, 0.5), **IMPLICIT)
  close(far[0], long_full(), 1e-6)


def test_phantom_steps_are_not_counted_and_leave_the_carry():
  result = gradient(core.phantom(4, 1.0), max_steps=3)[1]
  plain = gradient(core.full(), max_steps=3)[1]
  np.testing.assert_array_equal(result.steps_B, 3)
  close(result.carry.state, plain.state, 1e-15)
  close(result.state, gradient(core.full(), max_steps=7)[1].state, 1e-14)


def scans(jaxpr):
  """Lengths of all scans in a jaxpr, nested ones included."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'scan':
      yield eqn.params['length']
    for value in jax.tree.leaves(list(eqn.params.values())):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from scans(inner)


def implicit_loss(max_steps, adjoint=None):
  def loss(args):
    adjoint_ = core.implicit() if adjoint is None else adjoint
    result = core.iterate(
      tanh_step,
      jnp.zeros_like(args[1]),
      args,
      halt=core.fixed_steps(),
      max_steps=max_steps,
      adjoint=adjoint_,
    )
    return objective(result.state)

  return loss


def test_implicit_holds_no_scan_over_forward_iterations():
  jaxpr = jax.make_jaxpr(jax.grad(implicit_loss(64)))(problem())
  assert not list(scans(jaxpr.jaxpr))
  full = jax.make_jaxpr(jax.grad(implicit_loss(64, core.full())))(problem())
  assert 64 in list(scans(full.jaxpr))


def test_implicit_memory_does_not_grow_with_recurrences():
  def size(steps):
    lowered = jax.jit(jax.grad(implicit_loss(steps))).lower(problem())
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert size(256) == size(4)


def test_implicit_inside_vmap_and_an_outer_scan():
  args = problem()
  grad = jax.grad(implicit_loss(150))
  pair = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), args)
  mapped = jax.jit(jax.vmap(grad))(pair)
  outer = lambda pair: jax.lax.scan(
    lambda total, a: (total + implicit_loss(150)(a), None), 0.0, pair
  )[0]
  scanned = jax.jit(jax.grad(outer))(pair)
  close(mapped, scanned, 1e-12)
  close(jax.tree.map(lambda x: x[0], mapped), jax.jit(grad)(args), 1e-12)


def test_implicit_with_keys_aux_counters_and_a_narrower_step():
  """State integers, typed keys and aux have no cotangent and no say."""

  def step(state, aux, args, info):
    assert info.keys_B is not None
    z, _ = tanh_step(state['z'], (), args, info)
    return {'z': z.astype(jnp.float64), 'n': state['n'] + 1}, aux + 1

  def loss(args):
    state = {'z': jnp.zeros_like(args[1]), 'n': jnp.zeros(ROWS, jnp.int32)}
    result = core.iterate(
      step,
      state,
      args,
      adjoint=core.implicit(),
      aux=jnp.int32(0),
      keys=affine.keys(ROWS),
      **IMPLICIT,
    )
    return objective(result.state['z'])

  close(jax.jit(jax.grad(loss))(problem()), long_full(), 1e-6)


def test_one_step_has_a_positive_product_with_the_true_gradient():
  """Jacobian-free back-propagation descends where |J| < 1."""
  short = jax.tree.leaves(gradient(core.one_step(), max_steps=60)[0][0])
  true = jax.tree.leaves(long_full())
  assert (
    sum(float(jnp.vdot(a, b)) for a, b in zip(short, true, strict=True)) > 0
  )


@pytest.mark.parametrize(
  'field,call',
  [
    ('k', lambda: core.last_k(0)),
    ('k', lambda: core.phantom(0, 1.0)),
    ('tau', lambda: core.phantom(1, 0.0)),
    ('remat', lambda: core.full(remat=-1)),
    ('max_steps', lambda: gradient(core.full(), max_steps=jnp.int32(3))),
    (
      'halt',
      lambda: gradient(
        core.implicit(), halt=core.act(lambda z, a: jnp.full(len(z), 0.4))
      ),
    ),
  ],
)
def test_bad_adjoints_are_refused_by_name(field, call):
  with pytest.raises(ValueError, match=f'^{field} '):
    call()


def test_last_k_of_fewer_steps_ends_at_a_cap():
  args = affine.rates([0.2, 0.5, 0.7])
  result = core.iterate(
    affine.scale,
    jnp.zeros_like(args[1]),
    args,
    halt=core.fixed_point(1e-3),
    max_steps=60,
    adjoint=core.last_k(2, free_steps=1),
  )
  np.testing.assert_array_equal(result.steps_B, [3, 3, 3])
  np.testing.assert_array_equal(result.cause_B, [Cause.CAP] * 3)
