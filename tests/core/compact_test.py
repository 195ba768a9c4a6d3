"""A queue through slots equals every row alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core import Cause, compact, ponder
from tests.core import affine

N, CAP = 23, 40
RATES = np.random.default_rng(0).uniform(0.1, 0.9, size=(N, 1))
QUEUE = (jnp.asarray(RATES, jnp.float32), jnp.arange(1.0, N + 1)[:, None])


def begin(params, queue):
  return jnp.zeros_like(queue[1]), queue


def step(state, aux, args, info):
  params, context = args
  return params * affine.scale(state, aux, context, info)[0], aux


def finish(params, state, context):
  return {'out': state * 2, 'rate': context[0]}


def noisy(state, aux, args, info):
  noise = jax.vmap(lambda k: jax.random.uniform(k, (1,)))(info.keys_B)
  return step(state, aux, args, info)[0] * (0.9 + 0.1 * noise), aux


def bent(state, aux, args, info):
  return jnp.log1p(step(state, aux, args, info)[0]), aux


BASE = compact.Program(
  begin, step, finish, halt=core.fixed_point(1e-3), cap=CAP
)
HAZARD = ponder.ponder(lambda z, a: a[1][0][:, 0] * 0.5, sample=True)
PROGRAMS = {
  'fixed_point': BASE,
  'cap': BASE._replace(cap=5),
  'keys': BASE._replace(step=noisy, cap=12),
  'anderson': BASE._replace(step=bent, solver=core.anderson(2), cap=20),
  'sampling': BASE._replace(halt=HAZARD),
  'act': BASE._replace(halt=core.act(lambda z, a: 0.3 * a[1][0][:, 0])),
}
KEYED = ('keys', 'sampling')
PARAMS = jnp.float32(1.0)


@functools.cache
def masked(name):
  """Every row of the queue at once, without compaction."""
  program = PROGRAMS[name]

  def loop():
    state, context = begin(PARAMS, QUEUE)
    result = core.iterate(
      program.step,
      state,
      (PARAMS, context),
      max_steps=program.cap,
      halt=program.halt,
      adjoint=core.none(),
      solver=program.solver,
      keys=affine.keys(N) if name in KEYED else None,
    )
    final = result.state if result.mixed is None else result.mixed
    return finish(PARAMS, final, context), result

  return jax.jit(loop)()


def drain(name, **kw):
  keys_N = affine.keys(N) if name in KEYED else None
  run = lambda: compact.drain(
    PROGRAMS[name], PARAMS, QUEUE, keys_N=keys_N, **kw
  )
  return jax.jit(run)()


def check(name, drained):
  outputs, result = masked(name)
  for mine, theirs in zip(
    *map(jax.tree.leaves, (drained.outputs, outputs)), strict=True
  ):
    np.testing.assert_allclose(mine, theirs, 1e-6)
  np.testing.assert_array_equal(drained.steps_N, result.steps_B)
  np.testing.assert_array_equal(drained.cause_N, result.cause_B)
  np.testing.assert_allclose(
    drained.residual_N, result.residual_B, rtol=1e-3, atol=1e-7
  )


@pytest.mark.parametrize('name', list(PROGRAMS))
def test_drain_equals_iterate_row_by_row(name):
  drained = drain(name, slots=4, smallest=2)
  check(name, drained)
  assert len(np.unique(drained.steps_N)) > 1 or name == 'cap'


@pytest.mark.parametrize(
  'kw',
  [
    {'slots': 64},
    {'slots': 16, 'smallest': 1, 'every': 3},
    {'slots': 1},
    {'slots': 5, 'every': 100},
  ],
)
def test_any_number_of_slots_and_any_rhythm(kw):
  check('fixed_point', drain('fixed_point', **kw))


def test_a_cap_is_the_cause_it_is():
  drained = drain('cap', slots=4, smallest=2)
  assert set(np.asarray(drained.cause_N)) == {Cause.CONVERGED, Cause.CAP}
  assert drained.steps_N.max() == 5


def test_slots_cost_less_than_the_slowest_row():
  """Masking alone computes batch x maximum; the queue nearer the sum."""
  drained = drain('fixed_point', slots=4, smallest=2)
  steps = np.asarray(drained.steps_N)
  assert steps.sum() <= drained.slot_steps
  assert drained.slot_steps < 1.25 * steps.sum() < 0.75 * N * steps.max()


def test_a_non_finite_row_gives_its_slot_away():
  queue = (QUEUE[0].at[3].set(jnp.nan), QUEUE[1])
  run = jax.jit(lambda q: compact.drain(BASE, PARAMS, q, slots=4, smallest=2))
  drained = run(queue)
  assert drained.cause_N[3] == Cause.NON_FINITE
  others = np.arange(N) != 3
  theirs = masked('fixed_point')[1].steps_B
  np.testing.assert_array_equal(drained.steps_N[others], theirs[others])


def test_rows_of_no_steps_are_refused():
  for field, kw in (
    ('slots', {'slots': 0}),
    ('every', {'slots': 1, 'every': 0}),
  ):
    with pytest.raises(ValueError, match=f'{field} must be >= 1, got 0.'):
      compact.drain(BASE, PARAMS, QUEUE, **kw)
  with pytest.raises(ValueError, match='cap must be >= 1, got 0.'):
    compact.drain(BASE._replace(cap=0), PARAMS, QUEUE, slots=1)
