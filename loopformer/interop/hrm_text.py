"""The published files of HRM-Text: `HrmTextConfig`, names of its state dict."""

from typing import Any

from loopformer.interop.entries import (
  HUGGING_FACE_FIELDS,
  decoder_layer,
  rotary_theta,
  untied_head,
)
from loopformer.interop.fields import Fields
from loopformer.interop.layout import Entry, Layout
from loopformer.zoo import FAMILIES, hrm_text

MLPS = {
  'silu': 'swiglu',
  'swish': 'swiglu',
  'gelu': 'gated_gelu_exact',
  'gelu_new': 'gated_gelu',
  'gelu_pytorch_tanh': 'gated_gelu',
  'relu': 'gated_relu',
}
# How it is run; the code makes as many key and value heads as query heads.
IGNORED = ('num_key_value_heads', 'attention_dropout', 'prefix_lm')


def hrm_text_config(fields: Fields) -> Any:
  """Our config of a published `HrmTextConfig`."""
  layers = fields.size('num_hidden_layers', 16)
  block = hrm_text.published_block(
    width=fields.size('hidden_size', 1536),
    heads=fields.size('num_attention_heads', 12),
    head_size=fields.size('head_dim', 128),
    hidden=fields.size('intermediate_size', 4096),
    mlp=fields.choice('hidden_act', MLPS, 'silu'),
    epsilon=fields.number('rms_norm_eps', 1e-6),
    rotary_theta=rotary_theta(fields, 1e4),
    attention_bias=fields.flag('attention_bias', False),
    mlp_bias=fields.flag('mlp_bias', False),
  )
  made = FAMILIES['hrm_text'].config(
    vocab_size=fields.size('vocab_size', 151808),
    seq_len=fields.size('max_position_embeddings', 2048),
    block=block,
    # A saved config counts every cached layer, and names those of a stack.
    layers=fields.size('num_layers_per_stack', layers),
    high_cycles=fields.size('H_cycles', 2),
    low_cycles=fields.size('L_cycles', 3),
    low_gradients=_low_gradients(fields),
    embed_scale=fields.optional('embedding_scale'),
    init_std=fields.number('initializer_range', 0.02),
    tied=fields.flag('tie_word_embeddings', False),
  )
  fields.ignore(IGNORED + HUGGING_FACE_FIELDS)
  return made


def _low_gradients(fields):
  given = fields.take('L_bp_cycles', None)
  given = [2] if given is None else given
  if not isinstance(given, list) or not all(type(n) is int for n in given):
    raise ValueError(
      f'config.L_bp_cycles must be a list of whole numbers, got {given!r}.'
    )
  return tuple(given)


def hrm_text_layout(cfg: Any) -> Layout:
  """Every published name of a model of this config."""
  names = {
    'model.embed_tokens.weight': Entry('embedding.tokens.embedding'),
    'model.z_L_init': Entry('low_start'),
    **untied_head(cfg.tied),
  }
  for theirs, ours in {'L_module': 'low', 'H_module': 'high'}.items():
    for layer in range(cfg.layers):
      at = f'model.{theirs}.layers.{layer}'
      names |= decoder_layer(at, f'{ours}.layers', cfg.block, layer)
  return names
