"""The published files of Huginn: `RavenConfig`, and names of its state dict.

The published code hard-codes its norms, its MLP and its injection, and gives
the mixing map a bias only; its config names classes that are never read.
"""

from typing import Any

from loopformer.interop.entries import (
  HUGGING_FACE_FIELDS,
  Entries,
  linear,
  norm,
  untied_head,
)
from loopformer.interop.fields import Fields
from loopformer.interop.layout import Entry, Layout
from loopformer.zoo import FAMILIES, huginn

# How it is trained and stored, and names of classes that its code leaves alone.
IGNORED = (
  'activation_checkpoint_impl',
  'architecture_class_name',
  'block_class_name',
  'norm_class_name',
  'mlp_class_name',
  'nonlin_name',
  'init_strategy',
  'init_orthogonal',
  'init_values',
  'state_init',
  'injection_type',
  'n_layers',
  'sampling_scheme',
  'mean_backprop_depth',
  'padding_multiple',
  'test_time_noise_type',
  'effective_expected_depth',
  'num_attention_heads',
  'num_key_value_heads',
  'padded_vocab_size',
  'head_dim',
  'tie_word_embeddings',
)


def huginn_config(fields: Fields) -> Any:
  """Our config of a published `RavenConfig`; random noise is refused."""
  block = huginn.published_block(
    width=fields.size('n_embd', 5280),
    heads=fields.size('n_heads', 55),
    hidden=fields.size('intermediate_size', 17920),
    epsilon=fields.number('norm_eps', 1e-6),
    rotary_theta=fields.number('rope_base', 5e4),
    qk_bias=fields.flag('qk_bias', True),
  )
  made = FAMILIES['huginn'].config(
    vocab_size=fields.size('vocab_size', 65536),
    seq_len=fields.size('block_size', 4096),
    block=block,
    prelude=fields.size('n_layers_in_prelude', 2),
    core=fields.size('n_layers_in_recurrent_block', 4),
    coda=fields.size('n_layers_in_coda', 2),
    bias=fields.flag('bias', False),
    tied=fields.flag('tie_embeddings', True),
    init_recurrences=fields.size('mean_recurrence', 32),
  )
  fields.only('test_time_noise', 0)
  fields.ignore(IGNORED + HUGGING_FACE_FIELDS)
  return made


def huginn_layout(cfg: Any) -> Layout:
  """Every published name of a model of this config."""
  names = {
    'transformer.wte.weight': Entry('embedding.tokens.embedding'),
    **linear('transformer.adapter', 'injection.mix', bias=cfg.bias),
    **norm('transformer.ln_f', 'final_norm', cfg.block),
    **untied_head(cfg.tied),
  }
  for theirs, ours in PARTS.items():
    for layer in range(getattr(cfg, ours)):
      names |= _layer(f'transformer.{theirs}.{layer}', ours, cfg.block, layer)
  return names


PARTS = {'prelude': 'prelude', 'core_block': 'core', 'coda': 'coda'}
NORMS = {
  'norm_1': 'attention.norm',
  'norm_2': 'attention.norm_out',
  'norm_3': 'mlp.norm',
  'norm_4': 'mlp.norm_out',
}
MAPS = {
  'attn.Wqkv': 'attention.layer.qkv',
  'attn.proj': 'attention.layer.out',
  'mlp.fc': 'mlp.layer.up',
  'mlp.proj': 'mlp.layer.down',
}


def _layer(at, part, block, layer) -> Entries:
  names: Entries = {}
  for theirs, ours in NORMS.items():
    names |= norm(f'{at}.{theirs}', f'{part}.layers.{ours}', block, layer)
  for theirs, ours in MAPS.items():
    names |= linear(f'{at}.{theirs}', f'{part}.layers.{ours}', layer=layer)
  if block.qk_bias:
    path = f'{part}.layers.attention.layer.qk_bias'
    names[f'{at}.attn.qk_bias'] = Entry(path, layer, 'heads')
  return names
