"""The published files of Ouro: `OuroConfig`, and names of its state dict."""

from typing import Any

from loopformer.interop.entries import (
  HUGGING_FACE_FIELDS,
  decoder_layer,
  linear,
  norm,
  rotary_theta,
  untied_head,
)
from loopformer.interop.fields import Fields
from loopformer.interop.layout import Entry, Layout
from loopformer.zoo import FAMILIES, ouro

# How it is trained and run; replay reads the threshold itself.
IGNORED = (
  'attention_dropout',
  'chunk_size',
  'early_exit_step',
  'early_exit_threshold',
  'layer_types',
  'max_window_layers',
  'sliding_window',
)
# Our norms have the gain of ones named after what they follow there.
NORMS = {
  'input_layernorm': 'attention.norm',
  'input_layernorm_2': 'attention.norm_out',
  'post_attention_layernorm': 'mlp.norm',
  'post_attention_layernorm_2': 'mlp.norm_out',
}


def ouro_config(fields: Fields) -> Any:
  """Our config of a published `OuroConfig`."""
  heads = fields.size('num_attention_heads', 16)
  block = ouro.published_block(
    width=fields.size('hidden_size', 2048),
    heads=heads,
    head_size=fields.size('head_dim', 0),
    kv_heads=fields.size('num_key_value_heads', heads),
    hidden=fields.size('intermediate_size', 5632),
    epsilon=fields.number('rms_norm_eps', 1e-6),
    rotary_theta=rotary_theta(fields, 1e6),
  )
  made = FAMILIES['ouro'].config(
    vocab_size=fields.size('vocab_size', 49152),
    seq_len=fields.size('max_position_embeddings', 65536),
    block=block,
    layers=fields.size('num_hidden_layers', 24),
    recurrences=fields.size('total_ut_steps', 4),
    init_std=fields.number('initializer_range', 0.02),
    tied=fields.flag('tie_word_embeddings', False),
  )
  fields.only('hidden_act', 'silu')
  fields.only('use_sliding_window', False)
  fields.ignore(IGNORED + HUGGING_FACE_FIELDS)
  return made


def ouro_layout(cfg: Any) -> Layout:
  """Every published name of a model of this config."""
  names = {
    'model.embed_tokens.weight': Entry('embedding.tokens.embedding'),
    **norm('model.norm', 'norm', cfg.block),
    **linear('model.early_exit_gate', 'gate', bias=True),
    **untied_head(cfg.tied),
  }
  for layer in range(cfg.layers):
    at = f'model.layers.{layer}'
    names |= decoder_layer(at, 'block.layers', cfg.block, layer)
    for theirs, ours in NORMS.items():
      names |= norm(f'{at}.{theirs}', f'block.layers.{ours}', cfg.block, layer)
  return names
