"""Bytes of activations that a layer keeps for its backward pass: an estimate.

Counted are the arrays that the gradients of `loopformer.nn.kernels` ask for:
normalised inputs, inputs of products, queries, keys, values, probabilities,
head outputs and the hidden vectors of the MLP. What a recurrence adds to the
memory of float32 programs on CPU is met within 6 %. Not counted are temporaries
of the pass itself, masks, and what a compiler adds or spares; a fused attention
keeps no probabilities.
"""

from loopformer.nn.config import BlockConfig
from loopformer.nn.mlp import GATED

FLOAT = 4  # bytes of the residual stream
# Arrays of the hidden width that an MLP keeps, the input of W2 among them.
HIDDEN = {
  'swiglu': 3.0,
  'gelu': 6.0,
  'gelu_exact': 4.0,
  'relu': 1.25,
  'silu': 4.0,
  'relu2': 2.25,
  'half_relu2': 2.25,
}
PRODUCT = 2  # more under a gate: both factors
CONVOLVED = 3  # more with a convolution behind the activation, besides its taps


def attention_saved(block: BlockConfig, tokens: int, keys: int) -> int:
  """What attention keeps: its own arrays and those of its branch."""
  inner, shared = block.heads * block.head_width, 2 * block.groups
  shared *= block.head_width
  # Head outputs are kept head by head and, as the input of W_o, joined.
  width = inner + shared + 2 * inner + block.heads * keys
  if block.gated:
    width += 3 * inner
  if block.qk_norm:
    width += inner + shared // 2 + block.heads + block.groups
  first = block.style == 'post' and not _copied(block)
  stream = _branch_saved(block) + first * FLOAT * block.width
  return tokens * (_size(block) * width + stream)


def mlp_saved(block: BlockConfig, tokens: int, *, taps: int = 0) -> int:
  """What an MLP keeps: its hidden vectors and the arrays of its branch."""
  gated = block.mlp.startswith(GATED)
  arrays = HIDDEN[block.mlp.removeprefix(GATED)] + PRODUCT * gated
  arrays += CONVOLVED + taps if taps else 0
  hidden = int(arrays * block.hidden_width)
  return tokens * (_size(block) * hidden + _branch_saved(block))


def scale_saved(width: int, tokens: int) -> int:
  """What a sum a x + b f of learned a and b keeps: x and f."""
  return 2 * FLOAT * width * tokens


def convolution_saved(width: int, taps: int, tokens: int) -> int:
  """What a depthwise convolution and its sum keep: a copy for every tap."""
  return FLOAT * width * (taps + 1) * tokens


def _branch_saved(block):
  """Per token: normalised vectors, their norms, and the input of a product."""
  norms = 2 if block.style.startswith('sandwich') else 1
  arrays, rates = (1, 1) if block.norm == 'rms' else (3, 2)
  kept = norms * FLOAT * (arrays * block.width + rates)
  return kept + _copied(block) * _size(block) * block.width


def _copied(block):
  """Whether what enters a product is not the normalised vector itself."""
  return block.norm_gain or block.norm == 'layer' or block.dtype != 'float32'


def _size(block):
  return block.compute_dtype.itemsize
