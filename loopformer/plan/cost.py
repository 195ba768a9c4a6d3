"""FLOPs of matrix products: 2 m n k for [m, k] times [k, n].

Nothing else is counted: norms, activations, softmax, rotary, depthwise
convolutions and embedding look-ups are of another order, and they are bound by
memory, not by arithmetic.
"""

import dataclasses

from loopformer.nn.config import BlockConfig
from loopformer.nn.mlp import is_gated
from loopformer.plan.saved import FLOAT, attention_saved, mlp_saved


@dataclasses.dataclass(frozen=True)
class Cost:
  """FLOPs for one row of a batch, and what a gradient of them keeps.

  Attributes:
    weights: products with weights.
    attention: queries with keys and probabilities with values, as they are
      computed: every query with every key.
    unmasked: the share of `attention` that the masks let through, about half of
      it in a causal model.
    saved: bytes of activations kept for the backward pass, an estimate, see
      `loopformer.plan.saved`.
  """

  weights: int = 0
  attention: int = 0
  unmasked: int = 0
  saved: int = 0

  @property
  def total(self) -> int:
    """FLOPs as computed."""
    return self.weights + self.attention

  @property
  def needed(self) -> int:
    """FLOPs without the pairs that the masks hide."""
    return self.weights + self.unmasked

  def __add__(self, other: 'Cost') -> 'Cost':
    mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
    return Cost(*(a + b for a, b in zip(mine, others, strict=True)))

  def __mul__(self, times: int) -> 'Cost':
    return Cost(*(times * a for a in dataclasses.astuple(self)))

  __rmul__ = __mul__


def linear_cost(features_in: int, features_out: int, tokens: int) -> Cost:
  """y = x W at every token; keeps x."""
  return Cost(
    2 * features_in * features_out * tokens,
    saved=FLOAT * features_in * tokens,
  )


def attention_cost(block: BlockConfig, tokens: int, keys: int) -> Cost:
  """Projections, q k^T and p v of the last `tokens` of `keys` positions.

  Groups share keys and values, not products: every head multiplies its own.
  """
  inner, shared = block.heads * block.head_width, 2 * block.groups
  shared *= block.head_width
  projected = (2 + block.gated) * inner + shared
  return Cost(
    2 * block.width * projected * tokens,
    4 * inner * tokens * keys,
    4 * inner * unmasked_pairs(block, tokens, keys),
    attention_saved(block, tokens, keys),
  )


def mlp_cost(block: BlockConfig, tokens: int, *, taps: int = 0) -> Cost:
  """W2 act(W1 x) at every token; W1 is twice as wide under a gate."""
  hidden = (2 + is_gated(block.mlp)) * block.hidden_width
  return Cost(
    2 * block.width * hidden * tokens,
    saved=mlp_saved(block, tokens, taps=taps),
  )


def layer_cost(block: BlockConfig, tokens: int, keys: int) -> Cost:
  """Attention, then MLP."""
  return attention_cost(block, tokens, keys) + mlp_cost(block, tokens)


def unmasked_pairs(block: BlockConfig, tokens: int, keys: int) -> int:
  """(query, key) pairs that a block's mask lets through.

  The queries are the last `tokens` of `keys` positions, as they are behind a
  cache; without one `tokens` equals `keys`.
  """
  if block.mask == 'none':
    return tokens * keys
  reach = block.window if block.mask == 'window' else keys
  earlier = keys - tokens
  pairs = _pairs_before(keys, reach) - _pairs_before(earlier, reach)
  if block.mask == 'prefix':
    inside = min(block.prefix, keys)
    cached = min(block.prefix, earlier)
    # A query of the prefix also reads what lies behind it there.
    pairs += (inside - cached) * (inside - cached - 1) // 2
  return pairs


def _pairs_before(count: int, reach: int) -> int:
  """Sum over t < count of min(t + 1, reach)."""
  full = max(count - reach, 0)
  ramp = count - full
  return ramp * (ramp + 1) // 2 + full * reach
