"""The published files of Parcae: its config's many options, its names.

Three of its quirks are reproduced here, by options of our config: delta A is
not bounded (`injection = 'diagonal_free'`); squared ReLU is halved; value
embeddings act only where a layer has a table and a gate, which the code places
by two different counts, so that some of them may lie idle.
"""

import math
from typing import Any

from loopformer.interop.entries import (
  Entries,
  linear,
  norm,
  projections,
  untied_head,
)
from loopformer.interop.fields import Fields
from loopformer.interop.layout import Entry, Layout
from loopformer.nn.value_embedding import alternate
from loopformer.zoo import FAMILIES, parcae

ACTIVATIONS = {
  'ReLU2': 'half_relu2',
  'GELU': 'gelu_exact',
  'ReLU': 'relu',
  'SiLU': 'silu',
}
GATES = {'BaseMLP': '', 'GatedMLP': 'gated_'}
NORMS = {
  'RMSNorm': 'rms',
  'RMSNorm_llama': 'rms',
  'LayerNorm': 'layer',
}
INJECTIONS = {'diagonal': 'diagonal_free', 'linear': 'concat', 'add': 'add'}
# Initialisations, with the powers of sqrt(D) and the numbers by which they also
# multiply the embedding and the logits.
SCALES = {
  **dict.fromkeys(('scaled', 'scaled-zero', 'normal', 'small'), (0, 0, 1.0)),
  'takase': (1, 0, 1.0),
  'takase-scaled': (1, -1, math.sqrt(2 / 5)),
  **dict.fromkeys(
    (
      'deep-scale-full',
      'deep-scale-simple',
      'llama-by-dim-ls',
      'noci-anagnostidis',
      'scaled-and-logit-scale',
      'shaped',
    ),
    (0, -1, 1.0),
  ),
}
# The start of the loop, and the deviation of its noise: 0 for that of the
# embedding. `unit` is normal noise, standardised, and `embed` is noise too.
STARTS = ('like-init', 'normal', 'embed', 'unit', 'zero')
# How the model is trained, run or stored.
RUN_FIELDS = (
  '_class_name',
  'activation_checkpoint_impl',
  'architecture_class_name',
  'attn_impl',
  'block_class_name',
  'center_attention',
  'curriculum_target',
  'debias_attention',
  'hf_config',
  'init_orthogonal',
  'lockstep_k',
  'lockstep_n',
  'model_class_name',
  'name',
  'recurrent_iteration_method',
  'sampling_scheme',
  'simple_ops',
  'skip_initialization',
  'strategy',
  'use_abacus',
  'use_fused_head',
)


def parcae_config(fields: Fields) -> Any:
  """Our config of a published `ParcaeConfig`."""
  width = fields.size('n_embd', 4096)
  state_width = fields.size('recurrent_embedding_dimension', 1024)
  heads = fields.size('num_attention_heads', 32)
  state_heads = fields.size('recurrent_num_attention_heads', heads) or heads
  hidden = fields.size('intermediate_size', 4 * width)
  state_hidden = fields.size(
    'recurrent_intermediation_embedding_dimension', 3520
  )
  common = _common(fields)
  block = parcae.published_block(
    width=width,
    heads=heads,
    kv_heads=fields.size('num_key_value_heads', heads),
    hidden=hidden,
    **common,
  )
  core_block = parcae.published_block(
    width=state_width, heads=state_heads, hidden=state_hidden, **common
  )
  parts = {
    'prelude': fields.size('n_layers_in_prelude', 1),
    'core': fields.size('n_layers_in_recurrent_block', 4),
    'coda': fields.size('n_layers_in_coda', 1),
  }
  recurrences = fields.size('mean_recurrence', 32)
  made = FAMILIES['parcae'].config(
    vocab_size=_padded(fields),
    seq_len=fields.size('block_size', 4096),
    block=block,
    core_block=core_block,
    **parts,
    **_value_layers(fields, recurrences, **parts),
    recurrences=recurrences,
    **_scales(fields, width),
    **_start(fields, width),
    injection=fields.choice('injection_type', INJECTIONS, 'diagonal'),
    prelude_norm=fields.flag('prelude_norm', False),
    softcap=fields.optional('logit_softcap'),
    bias=block.attention_bias,
    tied=fields.flag('tie_embeddings', False),
  )
  _refuse(fields, made)
  return made


def _common(fields):
  """What the layers of all three parts share."""
  rope = fields.group('rope_settings')
  condense = rope.number('rope_condense_ratio', 1)
  theta = rope.number('rope_base', 5e4)
  turned = rope.flag('use_rope', True)
  rope.done()
  gate = fields.choice('mlp_class_name', GATES, 'BaseMLP')
  mlp = gate + fields.choice('nonlin_name', ACTIVATIONS, 'GELU')
  bias = fields.flag('bias', False)
  return {
    'mlp': 'swiglu' if mlp == 'gated_silu' else mlp,
    'norm': fields.choice('norm_class_name', NORMS, 'LayerNorm'),
    'epsilon': fields.number('norm_eps', 1e-5),
    'rotary': 'interleaved' if turned else 'none',
    'rotary_theta': theta,
    'rotary_condense': condense,
    'qk_norm': fields.flag('qk_norm', False),
    'qk_bias': fields.flag('qk_bias', False),
    'clip_qkv': fields.optional('clip_qkv'),
    'attention_bias': bias,
    'mlp_bias': bias,
  }


def _padded(fields):
  """The vocabulary, rounded up as all tables are."""
  size = fields.size('vocab_size', 50254)
  multiple = max(fields.size('padding_multiple', 512), 1)
  rounded = -(-size // multiple) * multiple
  return fields.size('padded_vocab_size', rounded) or rounded


def _scales(fields, width):
  embed, logit, factor = fields.choice('init_strategy', SCALES, 'scaled')
  root = math.sqrt(width)
  return {'embed_scale': root**embed, 'logit_scale': factor * root**logit}


def _start(fields, width):
  kind = fields.choice('state_init', {n: n for n in STARTS}, 'like-init')
  deviations = {'normal': 1.0, 'unit': 1.0, 'embed': width**-0.5}
  return {
    'start': 'zero' if kind == 'zero' else 'normal',
    'start_scale': deviations.get(kind, 0.0),
  }


def _value_layers(fields, recurrences, *, prelude, core, coda):
  """Layers with tables and with gates, numbered in two ways as published."""
  counted = core * fields.size('mean_backprop_depth', 8)
  first = prelude + core * recurrences
  numbers = [*range(prelude + core), *range(first, first + coda)]
  gates = [i for i, n in enumerate(numbers) if n % 2 == (counted - 1) % 2]
  return {
    'value_layers': 'listed',
    'value_tables': alternate(prelude + core + coda),
    'value_gates': tuple(gates),
  }


def _refuse(fields, made):
  """Options that change the model and are not built, or cannot be."""
  fields.only('mup_model_scaling_factor', 1)
  fields.only('randomize_positions_from', None)
  fields.ignore(RUN_FIELDS)
  if made.core < 1:
    raise ValueError(
      f'config.n_layers_in_recurrent_block must be >= 1, got {made.core}.'
    )
  width, state_width = made.block.width, made.loop_block.width
  if made.injection == 'add' and width != state_width:
    raise ValueError(
      f'config.recurrent_embedding_dimension must be n_embd = {width} for '
      f"injection_type = 'add', got {state_width}."
    )


def parcae_layout(cfg: Any) -> Layout:
  """Every published name of a model of this config."""
  names = {
    'transformer.wte.weight': Entry('embedding.tokens.embedding'),
    **linear('transformer.C', 'projection', bias=cfg.bias),
    **norm('transformer.ln_f', 'final_norm', cfg.block),
    **_adapter(cfg),
    **untied_head(cfg.tied),
  }
  if cfg.prelude_norm:
    names |= norm('transformer.ln_prelude', 'prelude_norm', cfg.block)
  for layer in cfg.value_tables:
    path = f'value_embedding.tables.{layer}'
    names[f'value_embeds.{layer}.weight'] = Entry(path)
  return names | _all_layers(cfg)


def _adapter(cfg) -> Entries:
  at = 'transformer.adapter.'
  if cfg.injection == 'concat':
    return linear(f'{at}adapter', 'injection.mix', bias=cfg.bias)
  if cfg.injection == 'add':
    return {}
  return {
    f'{at}A_log': Entry('injection.decay_log'),
    f'{at}dt_bias': Entry('injection.dt_bias'),
    f'{at}B': Entry('injection.gain.kernel', form='linear'),
  }


def _all_layers(cfg) -> Entries:
  parts = {
    'prelude': ('prelude', cfg.block),
    'core_block': ('core', cfg.loop_block),
    'coda': ('coda', cfg.block),
  }
  names: Entries = {}
  number = 0
  for theirs, (ours, block) in parts.items():
    for layer in range(getattr(cfg, ours)):
      at = f'transformer.{theirs}.{layer}'
      names |= _layer(at, f'{ours}.layers', layer, block)
      if number in cfg.value_gates:
        path = f'value_embedding.gates.{number}'
        names[f'{at}.attn.ve_gate.weight'] = Entry(path, form='linear')
      number += 1
  return names


def _layer(at, ours, layer, block) -> Entries:
  attention, mlp = f'{ours}.attention.layer', f'{ours}.mlp.layer'
  names = {
    **norm(f'{at}.norm_1', f'{ours}.attention.norm', block, layer),
    **norm(f'{at}.norm_2', f'{ours}.mlp.norm', block, layer),
  }
  mixed = {'layer': layer, 'bias': block.attention_bias}
  for name, columns in zip('qkv', projections(block), strict=True):
    theirs = f'{at}.attn.c_{name}'
    names |= linear(theirs, f'{attention}.qkv', columns=columns, **mixed)
  names |= linear(f'{at}.attn.c_proj', f'{attention}.out', **mixed)
  wide = {'layer': layer, 'bias': block.mlp_bias}
  names |= linear(f'{at}.mlp.fc', f'{mlp}.up', **wide)
  names |= linear(f'{at}.mlp.proj', f'{mlp}.down', **wide)
  if block.qk_bias:
    path = f'{attention}.qk_bias'
    names[f'{at}.attn.qk_bias'] = Entry(path, layer, 'heads')
  return names
