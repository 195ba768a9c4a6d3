"""A model's layers shared between devices: some heads, some hidden units each.

    y = W2 act(W1 x) = sum_i W2_i act(W1_i x)

and the same for attention with its heads (Megatron-LM, arXiv:1909.08053 sec.
3): two sums over the devices per layer, whatever else a model is made of being
whole on each. A device reads only its share of a layer's weights, which is what
the time of a token goes into.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from loopformer.nn.attention import Attention
from loopformer.nn.mlp import MLP, is_gated
from loopformer.nn.value_embedding import ValueEmbedding
from loopformer.nn.variables import Param


def check_shares(model: nnx.Module, count: int) -> None:
  """Raises `ValueError` unless every layer divides into so many shares."""
  for module in _layers(model):
    if isinstance(module, Attention):
      name, size = 'kv_heads', module.cfg.groups
    else:
      name, size = 'hidden', module.down.kernel[...].shape[-2]
      if module.taps:
        raise ValueError(
          'devices must be one for an MLP with a convolution, whose units are '
          f'not shared, got {count}.'
        )
    if size % count:
      raise ValueError(
        f'devices must divide {name} = {size} to share it, got {count}.'
      )


def are_shared(model: nnx.Module, count: int) -> bool:
  """Whether every layer divides into so many shares."""
  try:
    check_shares(model, count)
  except ValueError:
    return False
  return True


def layer_bytes(model: nnx.Module) -> int:
  """Bytes of an attention and an MLP, on average over the model's; 0 for none.

  Layers in a stack count one by one.
  """
  total, layers = 0, 0
  for module in _layers(model):
    total += sum(x.nbytes for x in jax.tree.leaves(module))
    if isinstance(module, Attention):
      layers += module.out.kernel[...].size // math.prod(
        module.out.kernel[...].shape[-2:]
      )
  return total // max(layers, 1)


def share(
  model: nnx.Module, index: int, count: int, *, axis: str
) -> nnx.Module:
  """Share `index` of `count` of a model, whose sums go over a mesh axis."""
  model = nnx.clone(model)
  part = _Part(index, count)
  for module in list(_layers(model)):
    if isinstance(module, Attention):
      _share_attention(module, part, axis)
    else:
      _share_mlp(module, part, axis)
  for _, node in list(nnx.iter_graph(model)):
    if isinstance(node, ValueEmbedding):
      _share_values(node, part)
  return model


@dataclasses.dataclass(frozen=True)
class _Part:
  """One of `count` equal parts of an axis."""

  index: int
  count: int

  def rows(self, x: Float[Array, '*batch I O']) -> Array:
    """Of the last axis but one."""
    return self.columns(x.swapaxes(-1, -2)).swapaxes(-1, -2)

  def columns(self, x: Array, sections: Sequence[int] = ()) -> Array:
    """Of every section of the last axis."""
    ends = [sum(sections[: i + 1]) for i in range(len(sections) - 1)]
    parts = [
      jnp.split(section, self.count, -1)[self.index]
      for section in jnp.split(x, ends, -1)
    ]
    return jnp.concatenate(parts, -1)


def _layers(model: nnx.Module) -> Iterator[Any]:
  for _, node in nnx.iter_graph(model):
    if isinstance(node, Attention | MLP):
      yield node


def _share_attention(layer: Attention, part: _Part, axis: str) -> None:
  cfg = layer.cfg
  inner, kv = cfg.heads * cfg.head_width, cfg.groups * cfg.head_width
  sections = (inner, kv, kv) + ((inner,) if cfg.gated else ())
  _share_in(layer.qkv, part, sections)
  _share_out(layer.out, part, axis)
  if cfg.qk_bias:
    layer.qk_bias = Param(part.rows(layer.qk_bias[...]))
  layer.cfg = dataclasses.replace(
    cfg,
    heads=cfg.heads // part.count,
    kv_heads=cfg.groups // part.count,
    head_size=cfg.head_width,
  )


def _share_mlp(layer: MLP, part: _Part, axis: str) -> None:
  hidden = layer.down.kernel[...].shape[-2]
  _share_in(layer.up, part, (hidden,) * (2 if is_gated(layer.kind) else 1))
  _share_out(layer.down, part, axis)


def _share_in(linear: Any, part: _Part, sections: Sequence[int]) -> None:
  """Some outputs of a linear layer."""
  linear.kernel = Param(part.columns(linear.kernel[...], sections))
  if linear.bias is not None:
    linear.bias = Param(part.columns(linear.bias[...], sections))


def _share_out(linear: Any, part: _Part, axis: str) -> None:
  """Some inputs of a linear layer, whose outputs are summed."""
  linear.kernel = Param(part.rows(linear.kernel[...]))
  linear.axis = axis


def _share_values(values: ValueEmbedding, part: _Part) -> None:
  """Some key and value heads of the layers that use theirs."""
  for layer in values.tables:
    if layer in values.gates:
      for kept in (values.tables, values.gates):
        kept[layer] = Param(part.columns(kept[layer][...]))
  values.groups = tuple((i, size // part.count) for i, size in values.groups)
