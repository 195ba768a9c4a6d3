"""Array trees with rows in front: masks, norms and keys per row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

PyTree = Any


def row_shape(tree: PyTree, row_ndim: int) -> tuple[int, ...]:
  """Shape of the row axes, the same for every array of the tree.

  Raises:
    ValueError: if the tree is empty or its arrays disagree.
  """
  shapes = {jnp.shape(leaf)[:row_ndim] for leaf in jax.tree.leaves(tree)}
  if len(shapes) != 1 or len(next(iter(shapes))) != row_ndim:
    raise ValueError(
      f'state must have the same {row_ndim} row axes in front of every '
      f'array, got {sorted(shapes)}.'
    )
  return shapes.pop()


def parts_of(rows: int, most: int) -> int:
  """The most equal parts, at most `most` and at least one, of so many rows."""
  return next(n for n in range(max(1, most), 0, -1) if rows % n == 0)


def expand(rows: Array, like: Array) -> Array:
  """Appends axes to a per-row array so that it broadcasts over `like`."""
  return rows.reshape(rows.shape + (1,) * (like.ndim - rows.ndim))


def select(mask_B: Bool[Array, '*rows'], new: PyTree, old: PyTree) -> PyTree:
  """`new` where the row's mask is true, else `old`, bit for bit."""
  return jax.tree.map(
    lambda n, o: jnp.where(expand(mask_B, n), n, o.astype(n.dtype)), new, old
  )


def float_leaves(tree: PyTree) -> list[Array]:
  """The floating-point arrays of a tree."""
  return [
    leaf
    for leaf in jax.tree.leaves(tree)
    if jnp.issubdtype(leaf.dtype, jnp.inexact)
  ]


def with_float_leaves(tree: PyTree, leaves: list[Array]) -> PyTree:
  """The tree with its floating-point arrays replaced, in their order."""
  fresh = iter(leaves)
  return jax.tree.map(
    lambda x: next(fresh) if jnp.issubdtype(x.dtype, jnp.inexact) else x, tree
  )


def is_finite(tree: PyTree, row_ndim: int) -> Bool[Array, '*rows']:
  """Whether every number of a row is finite."""
  rows = row_shape(tree, row_ndim)
  finite_B = jnp.ones(rows, bool)
  for leaf in float_leaves(tree):
    axes = tuple(range(row_ndim, leaf.ndim))
    finite_B &= jnp.all(jnp.isfinite(leaf), axis=axes)
  return finite_B


def _largest(ratio, counted, axes):
  del counted  # What is left out has a ratio of zero.
  return jnp.max(ratio, axis=axes)


def _mean(ratio, counted, axes):
  count = jnp.sum(counted, axis=axes)
  return jnp.sum(ratio, axis=axes) / jnp.maximum(count, 1)


class Norm(NamedTuple):
  """A size of a row, or of each of its tokens, and how tokens are combined.

  Attributes:
    order: 2 (Euclidean) or inf (largest entry).
    per_token: measured for each entry of the second axis, T, which makes no
      difference where tokens are rows.
    combine: how the per-token ratios become one number of the row; told which
      tokens count: all but those that are and were zero, as padding is held.
    epsilon: added to the size that a difference is divided by.
  """

  order: float
  per_token: bool
  combine: Callable[[Array, Array, tuple[int, ...]], Array] = _largest
  epsilon: float = 0.0

  def size(self, tree: PyTree, row_ndim: int) -> Array:
    """||x|| per row (or per row and token), at least in float32."""
    leaves = float_leaves(tree)
    keep = max(row_ndim, 1 + self.per_token)
    parts = []
    for leaf in leaves:
      x = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
      axes = tuple(range(keep, x.ndim))
      if self.order == 2:
        parts.append(jnp.sum(jnp.square(x), axis=axes))
      else:
        parts.append(jnp.max(jnp.abs(x), axis=axes))
    if self.order == 2:
      return safe_sqrt(sum(parts[1:], parts[0]))
    return jnp.stack(jnp.broadcast_arrays(*parts)).max(0)

  def ratio(
    self,
    new: PyTree,
    old: PyTree,
    row_ndim: int,
    *,
    rtol: float = 1.0,
    atol: float = 0.0,
  ) -> Float[Array, '*rows']:
    """||new - old|| / (atol + rtol (||new|| + epsilon)), zero at rest.

    Counters and other integers in the trees are not part of any norm.
    """
    new, old = float_leaves(new), float_leaves(old)
    top = self.size(jax.tree.map(_difference, new, old), row_ndim)
    size = self.size(new, row_ndim)
    still = top == 0
    ratio = top / jnp.where(still, 1.0, atol + rtol * (size + self.epsilon))
    ratio = jnp.where(still, 0.0, ratio)
    axes = tuple(range(row_ndim, ratio.ndim))
    return self.combine(ratio, ~still | (size > 0), axes)


def _difference(new: Array, old: Array) -> Array:
  wide = jnp.promote_types(new.dtype, jnp.float32)
  return new.astype(wide) - old.astype(wide)


def safe_sqrt(x: Array) -> Array:
  """sqrt(x) whose gradient at 0 is 0, not infinite."""
  positive = x > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


NORMS = {
  'l2': Norm(2, per_token=False),
  'inf': Norm(jnp.inf, per_token=False),
  'token_l2_mean': Norm(2, per_token=True, combine=_mean),
  'token_l2': Norm(2, per_token=True),
  'token_inf': Norm(jnp.inf, per_token=True),
  'token_max': Norm(jnp.inf, per_token=True, epsilon=1e-8),
}


def norm_of(name: str) -> Norm:
  """Looks up a norm by name.

  `l2` and `inf` measure a whole row; `token_l2`, `token_inf` take the worst
  token; `token_l2_mean` averages over tokens that are not zero (the latent
  difference of Huginn, arXiv:2502.05171). `token_max` is the residual of FPRM
  (arXiv:2606.18206), max over tokens of |f(z) - z|_inf / (|f(z)|_inf + 1e-8):
  `token_inf` that stays finite where f(z) = 0.
  """
  if name not in NORMS:
    raise ValueError(f'norm must be one of {sorted(NORMS)}, got {name!r}.')
  return NORMS[name]


def row_keys(key: Any, ids_B: Integer[Array, ' B']) -> Any:
  """One key per row, folded from the run's key and the sample's stable id."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, ids_B)


def fold_rows(keys_B: Any, data_B: Int[Array, '*rows']) -> Any:
  """Folds one number into the key of each row."""
  folded = jax.vmap(jax.random.fold_in)(keys_B.ravel(), data_B.ravel())
  return folded.reshape(data_B.shape)


def keyed_normal(
  keys_B: Any,
  shape: tuple[int, int],
  *,
  truncate: float | None = None,
  positions_BT: Int[Array, 'B T'] | None = None,
) -> Float[Array, 'B T D']:
  """Standard normal noise keyed by (row, position).

  Entry [b, p] depends on the row's key and on p alone, so it is the same in
  any batch and for any number of positions. Positions are folded in from the
  top of uint32, steps from zero: the two never meet in one row's key.

  Args:
    keys_B: one key per row.
    shape: (T, D), positions and width.
    truncate: cut the normal at this many standard deviations.
    positions_BT: position of each entry; 0 .. T - 1 in every row for None.
  """
  length, width = shape
  if positions_BT is None:
    row_T = jnp.arange(length)
    positions_BT = jnp.broadcast_to(row_T, (keys_B.shape[0], length))

  def draw(key, position):
    key = jax.random.fold_in(key, ~position)
    if truncate is None:
      return jax.random.normal(key, (width,))
    return jax.random.truncated_normal(key, -truncate, truncate, (width,))

  over_positions = jax.vmap(draw, (None, 0))
  return jax.vmap(over_positions)(keys_B, positions_BT)
