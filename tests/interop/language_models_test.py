"""Published configs of the language models: what they give, what is refused."""

import numpy as np
import pytest

from loopformer.interop.layout import check_covers
from loopformer.interop.published import config_of, layout_of, tensors_of
from loopformer.nn.variables import count_parameters
from loopformer.zoo import FAMILIES
from tests.interop import sample

HUGINN = {'n_embd': 5280, 'n_heads': 55, 'tie_embeddings': True}
PARCAE = {
  **sample.config('parcae'),
  'vocab_size': 32768,
  'n_embd': 768,
  'num_attention_heads': 6,
  'num_key_value_heads': 6,
  'intermediate_size': 3072,
  'recurrent_embedding_dimension': 768,
  'recurrent_intermediation_embedding_dimension': 3072,
}


@pytest.mark.parametrize(
  'family, published, count',
  [
    ('huginn', HUGINN, 3_564_976_800),
    ('parcae', PARCAE, 144_323_136),
    ('ouro', {}, 1_434_652_673),
    ('ouro', {'num_hidden_layers': 48}, 2_667_974_657),
  ],
)
def test_the_published_parameter_counts(family, published, count):
  cfg = config_of(family, published)
  assert count_parameters(FAMILIES[family].abstract(cfg)) == count


# Options of the published code that no golden file has.
OPTIONS = [
  ('huginn', {'bias': True}),
  ('huginn', {'n_layers_in_recurrent_block': 0, 'tie_embeddings': False}),
  ('parcae', {'bias': True, 'injection_type': 'linear'}),
  ('parcae', {'mlp_class_name': 'GatedMLP', 'qk_bias': True}),
  ('parcae', {'norm_class_name': 'LayerNorm', 'prelude_norm': False}),
  ('parcae_odd', {'num_key_value_heads': 1, 'injection_type': 'add'}),
  ('ouro_gqa', {'tie_word_embeddings': True, 'head_dim': 6}),
  ('hrm_text', {'attention_bias': True, 'mlp_bias': True}),
  ('hrm_text', {'tie_word_embeddings': True, 'L_cycles': 0}),
]


@pytest.mark.parametrize('name, change', OPTIONS)
def test_every_array_has_a_published_name(name, change):
  family = sample.FILES[name]
  cfg = config_of(family, sample.config(name) | change)
  check_covers(FAMILIES[family].abstract(cfg), layout_of(family, cfg))


def test_names_of_biases_and_of_padded_tables():
  change = {'bias': True, 'injection_type': 'linear', 'padding_multiple': 64}
  cfg = config_of('parcae', sample.config('parcae') | change)
  names = layout_of('parcae', cfg)
  assert cfg.vocab_size == 128
  assert {
    'transformer.C.bias',
    'transformer.adapter.adapter.bias',
    'transformer.coda.1.attn.c_v.bias',
    'transformer.core_block.0.mlp.fc.bias',
  } <= names.keys()
  assert 'transformer.coda.1.attn.ve_gate.bias' not in names


def test_a_saved_hrm_text_config_counts_its_layers_twice():
  """Transformers inflates num_hidden_layers and keeps the number of a stack."""
  saved = {'num_hidden_layers': 16, 'num_layers_per_stack': 2}
  cfg = config_of('hrm_text', sample.config('hrm_text') | saved)
  assert cfg.layers == 2


def test_scales_follow_the_initialisation():
  published = sample.config('parcae') | {'init_strategy': 'takase-scaled'}
  cfg = config_of('parcae', published)
  assert cfg.embed_scale == 8
  assert cfg.logit_scale == pytest.approx(0.4**0.5 / 8)


def test_a_tied_head_must_equal_the_embedding():
  table = np.arange(6.0).reshape(2, 3)
  cfg = config_of('ouro', {'tie_word_embeddings': True})
  pairs = [('model.embed_tokens.weight', table), ('lm_head.weight', table)]
  assert list(dict(tensors_of('ouro', cfg, pairs))) == [pairs[0][0]]
  pairs[1] = ('lm_head.weight', table + 1)
  with pytest.raises(ValueError, match='lm_head.weight must equal') as error:
    dict(tensors_of('ouro', cfg, pairs))
  assert '\n' not in str(error.value)


RUN_ALONE = [
  ('parcae', {'_class_name': 'ParcaeConfig', 'name': 'x', 'lockstep_k': True}),
  ('parcae', {'hf_config': {'repo': 'x'}, 'strategy': 'x', 'simple_ops': 1}),
  ('huginn', {'tie_word_embeddings': False, 'id2label': {'0': 'x'}}),
  ('ouro_gqa', {'rope_scaling': {'rope_type': 'default'}, 'chunk_size': 1}),
  ('hrm_text', {'L_bp_cycles': None, 'is_encoder_decoder': False}),
]


@pytest.mark.parametrize('name, fields', RUN_ALONE)
def test_what_changes_no_output_is_left_alone(name, fields):
  family, published = sample.FILES[name], sample.config(name)
  for field in fields:
    published.pop(field, None)
  plain = config_of(family, published)
  assert config_of(family, published | fields) == plain


def test_the_rotary_base_of_a_group_of_parameters():
  published = sample.config('ouro_gqa')
  rope = {'rope_type': 'default', 'rope_theta': 123.0}
  cfg = config_of('ouro', published | {'rope_parameters': rope})
  assert cfg.block.rotary_theta == 123.0


@pytest.mark.parametrize(
  'name, field, ours',
  [
    ('huginn', 'mean_recurrence', 'init_recurrences'),
    ('parcae', 'mean_recurrence', 'recurrences'),
    ('ouro_gqa', 'total_ut_steps', 'recurrences'),
  ],
)
def test_the_depth_of_the_published_model_is_kept(name, field, ours):
  published = sample.config(name) | {field: 7}
  assert getattr(config_of(sample.FILES[name], published), ours) == 7


@pytest.mark.parametrize(
  'kind, start, deviation',
  [
    ('like-init', 'normal', None),
    ('zero', 'zero', None),
    ('normal', 'normal', 1.0),
    ('embed', 'normal', 0.125),
  ],
)
def test_the_start_of_parcae(kind, start, deviation):
  cfg = config_of('parcae', sample.config('parcae') | {'state_init': kind})
  assert cfg.start == start and cfg.block.width == 64
  assert deviation is None or cfg.start_deviation == deviation


REFUSED = [
  ('huginn', {'test_time_noise': 0.1}, r'test_time_noise must be one of \[0\]'),
  ('huginn', {'n_embd': 33}, 'width must be a multiple of heads = 4, got 33'),
  ('huginn', {'colour': 1}, r"fields that are not known: \['colour'\]"),
  ('parcae', {'n_layers_in_recurrent_block': 0}, 'block must be >= 1, got 0'),
  ('parcae', {'norm_class_name': 'Identity'}, "must be one of .* 'Identity'"),
  ('parcae', {'nonlin_name': 'Tanh'}, "nonlin_name must be one of .* 'Tanh'"),
  ('parcae', {'init_strategy': 'mine'}, "init_strategy must be .* 'mine'"),
  ('parcae', {'injection_type': 'gate'}, "injection_type must be .* 'gate'"),
  ('parcae', {'mup_model_scaling_factor': 2}, r'must be one of \[1\], got 2'),
  ('parcae', {'clip_qkv': 'x'}, "clip_qkv must be a number, got 'x'"),
  ('parcae', {'rope_settings': [1]}, r'rope_settings must be an object'),
  (
    'parcae',
    {'rope_settings': {'scale': 1}},
    r"config.rope_settings holds fields that are not known: \['scale'\]",
  ),
  (
    'parcae',
    {'injection_type': 'add', 'recurrent_embedding_dimension': 32},
    'recurrent_embedding_dimension must be n_embd = 64 .* got 32',
  ),
  ('ouro_gqa', {'rope_scaling': {'factor': 2}}, 'rope_scaling holds fields'),
  ('ouro_gqa', {'use_sliding_window': True}, 'use_sliding_window must be'),
  ('ouro_gqa', {'hidden_act': 'tanh'}, "hidden_act must be .* got 'tanh'"),
  ('hrm_text', {'L_bp_cycles': 2}, 'L_bp_cycles must be a list .* got 2'),
  ('hrm_text', {'hidden_act': 'tanh'}, "hidden_act must be .* got 'tanh'"),
  (
    'hrm_text',
    {'rope_parameters': {'rope_type': 'yarn'}},
    "config.rope_parameters.rope_type must be one of .* got 'yarn'",
  ),
]


@pytest.mark.parametrize('name, change, message', REFUSED)
def test_what_cannot_be_honoured_is_named(name, change, message):
  published = sample.config(name) | change
  with pytest.raises(ValueError, match=message) as error:
    config_of(sample.FILES[name], published)
  assert '\n' not in str(error.value)
