"""Sign descent on the rows of a table that a batch has read."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def sign_sgd(
  table_NE: Float[Array, 'N E'],
  ids_B: Int[Array, ' B'],
  grads_BE: Float[Array, 'B E'],
  rate: Float[Array, ''] | float,
  *,
  weight_decay: float = 0.0,
  axes: tuple[str, ...] = (),
) -> Float[Array, 'N E']:
  """w <- (1 - rate decay) w - rate sign(sum of the row's gradients).

  For id embeddings (HRM, arXiv:2506.21734, and its successors): the gathered
  rows are differentiated, not the table. Rows with one id are added before the
  sign is taken; a row that was read decays even where its gradient is zero;
  all others keep their bits. Ids outside [0, N) are ignored.

  Args:
    table_NE: one vector per id.
    ids_B: which row each sample has read.
    grads_BE: gradient of the loss by what it has read.
    rate: learning rate.
    weight_decay: decoupled decay.
    axes: mesh axes over which the batch is split, major first, inside a
      `shard_map`; every device returns the same table.
  """
  if axes:
    ids_B, grads_BE = jax.tree.map(
      lambda x: jax.lax.all_gather(x, axes, axis=0, tiled=True),
      (ids_B, grads_BE),
    )
  none = table_NE.shape[0]
  ids_B = jnp.where((ids_B < 0) | (ids_B >= none), none, ids_B)
  touched_B, slot_B = jnp.unique(
    ids_B, size=ids_B.shape[0], fill_value=none, return_inverse=True
  )
  sums_BE = jnp.zeros_like(grads_BE).at[slot_B].add(grads_BE)
  old_BE = table_NE.at[touched_B].get(mode='fill', fill_value=0)
  new_BE = (1 - rate * weight_decay) * old_BE - rate * jnp.sign(sums_BE)
  return table_NE.at[touched_B].set(new_BE.astype(table_NE.dtype), mode='drop')
