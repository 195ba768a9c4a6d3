"""How the next iterate is made of f(z): Picard, damped, Anderson."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from loopformer.core.rows import (
  expand,
  float_leaves,
  row_shape,
  select,
  with_float_leaves,
)
from loopformer.core.types import Solver


def picard() -> Solver:
  """z <- f(z)."""
  return Solver(
    lambda state, row_ndim: (), lambda s, old, mapped, r: (s, mapped)
  )


def damped(beta: float) -> Solver:
  """z <- (1 - beta) z + beta f(z): the fixed points do not depend on beta.

  Raises:
    ValueError: if beta is not in (0, 1].
  """
  if not 0 < beta <= 1:
    raise ValueError(f'beta must be in (0, 1], got {beta}.')

  def update(solver_state, old, mapped, residual_B):
    rate_B = jnp.full(residual_B.shape, beta, residual_B.dtype)
    return solver_state, blend(rate_B, mapped, old)

  return Solver(lambda state, row_ndim: (), update)


class PatienceState(NamedTuple):
  """Step size, best residual and remaining patience of each row."""

  rate_B: Float[Array, '*rows']
  best_B: Float[Array, '*rows']
  patience_B: Int[Array, '*rows']


def patience_damped(
  *,
  decay: float = 0.9,
  patience: int = 5,
  threshold: float = 0.1,
  rate: float = 1.0,
) -> Solver:
  """Damped iteration whose step size shrinks while a row makes no progress.

  z <- s f(z) + (1 - s) z, and only then s. Whenever the residual has not fallen
  below its best for `patience` recurrences and is still >= `threshold`,
  s <- decay s (FPRM, arXiv:2606.18206, with the residual of the undamped map).
  """
  if not 0 < decay <= 1:
    raise ValueError(f'decay must be in (0, 1], got {decay}.')
  if patience < 0:
    raise ValueError(f'patience must be >= 0, got {patience}.')
  if not 0 < rate <= 1:
    raise ValueError(f'rate must be in (0, 1], got {rate}.')

  def init(state, row_ndim):
    rows = row_shape(state, row_ndim)
    return PatienceState(
      jnp.full(rows, rate),
      jnp.full(rows, jnp.inf),
      jnp.full(rows, patience, jnp.int32),
    )

  def update(s, old, mapped, residual_B):
    new = blend(s.rate_B, mapped, old)
    better_B = residual_B < s.best_B
    left_B = jnp.where(better_B, patience, s.patience_B - 1)
    shrink_B = (left_B <= 0) & (residual_B >= threshold)
    return PatienceState(
      jnp.where(shrink_B, s.rate_B * decay, s.rate_B),
      jnp.where(better_B, residual_B, s.best_B).astype(s.best_B.dtype),
      jnp.where(shrink_B, patience, left_B).astype(jnp.int32),
    ), new

  return Solver(init, update)


def blend(rate_B: Float[Array, '*rows'], new: Any, old: Any) -> Any:
  """rate new + (1 - rate) old, per row, in the dtype of `new`.

  Rate 1 gives `new` bit for bit; the mixing is done in float32 or wider.
  """

  def mix(n, o):
    if not jnp.issubdtype(n.dtype, jnp.inexact):
      return n
    rate = expand(rate_B, n)
    return (rate * n + (1 - rate) * o).astype(n.dtype)

  return jax.tree.map(mix, new, old)


class AndersonState(NamedTuple):
  """The last m pairs (z, f(z)) of each row, flattened, and the best iterate."""

  z_BmN: Float[Array, '*rows m N']
  f_BmN: Float[Array, '*rows m N']
  count_B: Int[Array, '*rows']
  best: Any
  best_residual_B: Float[Array, '*rows']


def anderson(
  history: int = 5, *, ridge: float = 1e-8, beta: float = 1.0
) -> Solver:
  """Anderson acceleration (Walker and Ni 2011; as in DEQ, arXiv:1909.01377).

  With G = F - Z over the last m pairs, weights a minimise |G^T a|^2 subject to
  sum a = 1, from the bordered system [[0, 1^T], [1, G G^T + ridge tr I]]; then
  z <- beta sum_i a_i f_i + (1 - beta) sum_i a_i z_i. The ridge is relative to
  the mean diagonal of G G^T, so it keeps its meaning as residuals shrink. A
  row whose system is singular takes a plain Picard step. The lowest-residual
  iterate is returned, the initial state being the first candidate.

  Args:
    history: m, the number of pairs kept; d + 1 solves a d-dimensional affine
      map in d + 1 recurrences if the ridge is zero.
    ridge: relative regularisation, >= 0.
    beta: mixing of f and z, in (0, 1].
  """
  if history < 1:
    raise ValueError(f'history must be >= 1, got {history}.')
  if ridge < 0:
    raise ValueError(f'ridge must be >= 0, got {ridge}.')
  if not 0 < beta <= 1:
    raise ValueError(f'beta must be in (0, 1], got {beta}.')

  def init(state, row_ndim):
    rows = row_shape(state, row_ndim)
    flat = flatten_rows(state, row_ndim)
    empty = jnp.zeros(rows + (history, flat.shape[-1]), flat.dtype)
    infinite = jnp.full(rows, jnp.inf, flat.dtype)
    return AndersonState(
      empty, empty, jnp.zeros(rows, jnp.int32), state, infinite
    )

  def update(s, old, mapped, residual_B):
    row_ndim = residual_B.ndim
    slot_B = s.count_B % history
    here_Bm = jax.nn.one_hot(slot_B, history, dtype=bool)
    z_BmN = _put(here_Bm, flatten_rows(old, row_ndim), s.z_BmN)
    f_BmN = _put(here_Bm, flatten_rows(mapped, row_ndim), s.f_BmN)
    seen_B = jnp.minimum(s.count_B + 1, history)
    filled_Bm = jnp.tri(history, dtype=bool)[seen_B - 1]
    weight_Bm, ok_B = anderson_weights(f_BmN - z_BmN, filled_Bm, ridge)
    mixed_BmN = beta * f_BmN + (1 - beta) * z_BmN
    new_BN = _product('...m,...mn->...n', weight_Bm, mixed_BmN)
    new = select(ok_B, unflatten_rows(new_BN, mapped, row_ndim), mapped)
    better_B = residual_B < s.best_residual_B
    best_B = jnp.where(better_B, residual_B, s.best_residual_B)
    return AndersonState(
      z_BmN,
      f_BmN,
      s.count_B + 1,
      select(better_B, old, s.best),
      best_B.astype(s.best_residual_B.dtype),
    ), new

  return Solver(init, update, best=lambda s: (s.best, s.best_residual_B))


def anderson_weights(
  g_BmN: Float[Array, '*rows m N'], filled_Bm: Array, ridge: float
) -> tuple[Float[Array, '*rows m'], Array]:
  """Weights of the constrained least-squares problem, and where it was solved.

  Empty history slots get weight zero. Where the bordered system is singular
  the second result is False and the gradient zero.
  """
  m = g_BmN.shape[-2]
  used = filled_Bm[..., :, None] & filled_Bm[..., None, :]
  gram = jnp.where(used, _product('...in,...jn->...ij', g_BmN, g_BmN), 0.0)
  diagonal = jnp.trace(gram, axis1=-2, axis2=-1) / filled_Bm.sum(-1)
  scale = jnp.where(diagonal > 0, diagonal, 1.0)[..., None, None]
  extra_Bm = jnp.where(filled_Bm, ridge, 1.0).astype(gram.dtype)
  eye = jnp.broadcast_to(jnp.eye(m, dtype=gram.dtype), gram.shape)
  gram = gram / scale + extra_Bm[..., None] * eye
  ones_Bm = filled_Bm.astype(gram.dtype)
  corner = jnp.zeros(ones_Bm.shape[:-1] + (1, 1), gram.dtype)
  bordered = jnp.concatenate(
    [
      jnp.concatenate([corner, ones_Bm[..., None, :]], -1),
      jnp.concatenate([ones_Bm[..., :, None], gram], -1),
    ],
    -2,
  )
  solution, solved_B = _first_column(bordered)
  return solution[..., 1:], solved_B


def _first_column(matrix):
  """x of matrix x = (1, 0, ..) and where it is one; zero elsewhere.

  A constant inverse with one step of refinement, which carries the gradient:
  the inverse of a singular matrix would send NaN into that of its batch mates.
  """
  fixed = jax.lax.stop_gradient(matrix)
  inverse = jnp.linalg.inv(fixed)

  def off(matrix, x):
    error = _product('...ij,...j->...i', matrix, x)
    return error.at[..., 0].add(-1.0)

  x = inverse[..., :, 0]
  solved = jnp.all(jnp.abs(off(fixed, x)) < 1e-3, -1)
  solved &= jnp.all(jnp.isfinite(inverse), (-2, -1))
  inverse = jnp.where(solved[..., None, None], inverse, 0.0)
  x = jnp.where(solved[..., None], x, 0.0)
  return x - _product('...ij,...j->...i', inverse, off(matrix, x)), solved


def _product(subscripts, *arrays):
  """An einsum in full precision, which accelerators do not use unasked."""
  return jnp.einsum(subscripts, *arrays, precision=jax.lax.Precision.HIGHEST)


def _put(here_Bm, new_BN, old_BmN):
  return jnp.where(here_Bm[..., None], new_BN[..., None, :], old_BmN)


def flatten_rows(tree: Any, row_ndim: int) -> Float[Array, '*rows N']:
  """The floating-point numbers of each row in a vector, float32 or wider."""
  parts = []
  for leaf in float_leaves(tree):
    wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    parts.append(wide.reshape(leaf.shape[:row_ndim] + (-1,)))
  return jnp.concatenate(parts, -1)


def unflatten_rows(
  flat_BN: Float[Array, '*rows N'], like: Any, row_ndim: int
) -> Any:
  """Inverse of `flatten_rows`; `like` has the dtypes and all that is left."""
  parts, start = [], 0
  for leaf in float_leaves(like):
    size = math.prod(leaf.shape[row_ndim:])
    part = flat_BN[..., start : start + size]
    parts.append(part.reshape(leaf.shape).astype(leaf.dtype))
    start += size
  return with_float_leaves(like, parts)
