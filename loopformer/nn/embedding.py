"""Embeddings of tokens or numbers, with learned or sinusoidal positions."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from loopformer.nn.linear import Linear
from loopformer.nn.position import sinusoid
from loopformer.nn.variables import Param, named

# Token ids, or I real numbers at every position.
Inputs = Int[Array, 'B T'] | Float[Array, 'B T I']


class Embedding(nnx.Module):
  """e = scale E[x] + position, entries of E drawn with unit variance / D.

  With `features` = I, x is I real numbers and W x + b stands for scale E[x],
  the read-in of in-context learning (arXiv:2208.01066), without a vocabulary.
  """

  def __init__(
    self,
    vocab_size: int,
    width: int,
    *,
    features: int = 0,
    seq_len: int = 0,
    positions: str = 'none',
    scale: float | None = None,
    rngs: nnx.Rngs,
  ):
    self.positions = positions
    self.scale = width**0.5 if scale is None else scale
    init = nnx.initializers.normal(width**-0.5)
    self.features = features
    if features:
      self.numbers = Linear(
        features, width, None, 'embed', bias=True, rngs=rngs
      )
    else:
      draw = named(init, 'vocab', 'embed')
      self.tokens = nnx.Embed(vocab_size, width, embedding_init=draw, rngs=rngs)
    if positions == 'learned':
      table = named(init, None, 'embed')(rngs.params(), (seq_len, width))
      self.position_table = Param(table)

  def __call__(
    self,
    inputs_BT: Inputs,
    positions_BT: Int[Array, 'B T'] | None = None,
  ) -> Float[Array, 'B T D']:
    """Embeds inputs, which stand at 0 .. T - 1 for None; float32."""
    length = inputs_BT.shape[1]
    place = jnp.arange(length) if positions_BT is None else positions_BT
    if self.features:
      e_BTD = self.numbers(inputs_BT)
    else:
      e_BTD = self.scale * self.tokens(inputs_BT)
    if self.positions == 'learned':
      table = self.position_table[...]
      if positions_BT is None and length > table.shape[0]:
        raise ValueError(
          f'inputs must have at most seq_len = {table.shape[0]} tokens, got '
          f'{length}.'
        )
      e_BTD = e_BTD + self.scale * table[place]
    if self.positions == 'sinusoidal':
      e_BTD = e_BTD + sinusoid(place, e_BTD.shape[-1])
    return e_BTD

  def attend(self, x_BTD: Float[Array, 'B T D']) -> Float[Array, 'B T V']:
    """Tied head: x E^T."""
    return self.tokens.attend(x_BTD)
