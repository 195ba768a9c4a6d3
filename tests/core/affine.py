"""The house oracle: the map h' = A h + b, of which every number is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def step(state_BD, aux, args, info):
  """h <- A h + b; args are (A, b) with b per row."""
  del info
  matrix_DD, offset_BD = args
  return state_BD @ matrix_DD.T + offset_BD, aux


def scale(state_BD, aux, args, info):
  """h <- c h + b entry by entry: the same bits in any batch."""
  del info
  rate_BD, offset_BD = args
  return rate_BD * state_BD + offset_BD, aux


def contraction(seed, dim, radius=0.8, rows=3):
  """(A, b) of a random map whose spectral norm is `radius`, in NumPy."""
  rng = np.random.default_rng(seed)
  matrix_DD = rng.normal(size=(dim, dim))
  matrix_DD *= radius / np.linalg.norm(matrix_DD, 2)
  return matrix_DD, rng.normal(size=(rows, dim))


def symmetric(seed, dim, radius, rows=3):
  """(A, b) with orthogonal modes that decay at rates from 0 to `radius`."""
  rng = np.random.default_rng(seed)
  modes = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
  matrix_DD = modes * np.linspace(0, radius, dim) @ modes.T
  return matrix_DD, rng.normal(size=(rows, dim))


def limit(args):
  """(I - A)^-1 b."""
  matrix_DD, offset_BD = args
  return np.linalg.solve(np.eye(len(matrix_DD)) - matrix_DD, offset_BD.T).T


def scalar_count(rate, rtol):
  """Steps of h <- c h + b from 0 until |h_t - h_{t-1}| <= rtol |h_t|.

  h_t = b (1 - c^t) / (1 - c), so the ratio is c^(t-1) (1 - c) / (1 - c^t).
  """
  bound = rtol / (1 - rate + rtol * rate)
  return 1 + math.ceil(math.log(bound) / math.log(rate))


def rates(values):
  """A batch [B, 1] of scalar maps with b = 1 and the given c."""
  rate_BD = jnp.asarray(values)[:, None]
  return rate_BD, jnp.ones_like(rate_BD)


def keys(rows, seed=0):
  """One typed key per row."""
  return jax.random.split(jax.random.key(seed), rows)


def equal(a, b):
  """Asserts that two trees are the same bit for bit."""
  first, second = jax.tree.flatten(a), jax.tree.flatten(b)
  assert first[1] == second[1]
  for x, y in zip(first[0], second[0], strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
