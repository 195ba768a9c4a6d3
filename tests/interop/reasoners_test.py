"""Published configs: the counts they give, and what is refused."""

import numpy as np
import pytest

from loopformer.interop.layout import check_covers, load, save
from loopformer.interop.reasoners import config_of, layout_of
from loopformer.nn.variables import count_parameters
from loopformer.zoo import FAMILIES
from tests.models import family_model

SUDOKU = {'vocab_size': 11, 'seq_len': 81}
MAZE = {'vocab_size': 6, 'seq_len': 900}
ARC = {'vocab_size': 12, 'seq_len': 900}
COMMON = {
  'batch_size': 768,
  'num_puzzle_identifiers': 1,
  'puzzle_emb_ndim': 512,
  'hidden_size': 512,
  'num_heads': 8,
  'expansion': 4,
  'pos_encodings': 'rope',
  'halt_max_steps': 16,
  'halt_exploration_prob': 0.1,
  'forward_dtype': 'bfloat16',
  'causal': False,
}
CYCLES = {'H_cycles': 3, 'L_cycles': 6, 'H_layers': 0, 'L_layers': 2}
HRM = {'H_cycles': 2, 'L_cycles': 2, 'H_layers': 4, 'L_layers': 4}
URM = {'H_cycles': 2, 'L_cycles': 6, 'num_layers': 4, 'loops': 16}
ACROSS = {'mlp_t': True, 'pos_encodings': 'none'}
FPRM = {
  **CYCLES,
  'norm_type': 'pre-norm',
  'residual_scale': 'input-independent',
  'conv_type': 'conv2d',
  'conv_kernel_size': 3,
  'max_iter': 64,
}
LINE = {'conv_type': 'conv1d', 'conv_kernel_size': 4}
SMALL = {'L_layers': 1, 'hidden_size': 128, 'num_heads': 4}


@pytest.mark.parametrize(
  'family, task, fields, count',
  [
    ('hrm', SUDOKU, HRM, 27_275_266),
    ('hrm', MAZE, HRM, 27_270_146),
    ('hrm', ARC, HRM, 27_276_290),
    ('trm', SUDOKU, CYCLES, 6_828_034),
    ('trm', MAZE, CYCLES, 6_822_914),
    ('trm', ARC, CYCLES, 6_829_058),
    ('trm', SUDOKU, {**CYCLES, **ACROSS}, 5_028_866),
    ('urm', SUDOKU, URM, 13_662_210),
    ('urm', ARC, URM, 13_663_234),
    ('fprm', SUDOKU, FPRM, 6_833_666),
    ('fprm', MAZE, {**FPRM, **LINE}, 6_825_986),
    ('eqr', SUDOKU, {**CYCLES, **ACROSS}, 4_855_298),
    ('eqr', MAZE, {**CYCLES, **SMALL}, 263_938),
  ],
)
def test_the_published_parameter_counts(family, task, fields, count):
  cfg = config_of(family, {**COMMON, **task, **fields})
  assert count_parameters(FAMILIES[family].abstract(cfg)) == count


def test_a_puzzle_vector_fills_as_many_tokens_as_it_needs():
  published = {**COMMON, **SUDOKU, **HRM, 'puzzle_emb_ndim': 513}
  assert config_of('hrm', published).prefix_len == 2


def test_no_puzzle_vector_means_no_prefix():
  published = {**COMMON, **SUDOKU, **CYCLES, 'puzzle_emb_ndim': 0}
  cfg = config_of('trm', published)
  assert cfg.prefix_len == 0
  assert 'inner.puzzle_emb.weights' not in layout_of('trm', cfg)


def test_urm_turns_whatever_its_config_says():
  published = {**COMMON, **SUDOKU, **URM, 'pos_encodings': 'none'}
  assert config_of('urm', published).block.rotary == 'half'


def test_a_board_need_not_be_a_square():
  board = {'pos_encodings': 'rope2d', 'board_height': 3, 'board_width': 27}
  published = {**COMMON, **SUDOKU, **CYCLES, **board}
  assert config_of('eqr', published).block.rotary_columns == 27
  with pytest.raises(ValueError, match='board_height must be .* 27, got 4'):
    config_of('eqr', {**published, 'board_height': 4})


FIELDS = {'hrm': HRM, 'trm': CYCLES, 'urm': URM, 'eqr': CYCLES, 'fprm': FPRM}


@pytest.mark.parametrize(
  'family, change, message',
  [
    ('hrm', {'dropout': 0.1}, r"fields that are not known: \['dropout'\]"),
    ('trm', {'lambda_': 0.5}, r"fields that are not known: \['lambda_'\]"),
    ('hrm', {'hidden_size': '512'}, "hidden_size must be a whole .* got '512'"),
    ('urm', {'seq_len': 8.5}, 'seq_len must be a whole number >= 0, got 8.5'),
    ('trm', {'expansion': None}, 'expansion must be a number, got None'),
    ('trm', {'mlp_t': 1}, 'mlp_t must be true or false, got 1'),
    ('trm', {'pos_encodings': 'rope2d'}, 'pos_encodings must be one of'),
    ('eqr', {'pos_encodings': ['rope']}, 'pos_encodings must be one of'),
    ('eqr', {'lambda_': 0}, r'damping must be in \(0, 1\], got 0'),
    ('hrm', {'H_layers': 0}, 'H_layers must be >= 1 for hrm, got 0'),
    ('hrm', {'num_heads': 7}, 'width must be a multiple of heads = 7'),
    ('hrm', {'causal': True}, r'causal must be one of \[False\], got True'),
    ('fprm', {'norm_type': 'no'}, "norm_type must be one of .* got 'no'"),
    ('fprm', {'additive_noise_std': 0.1}, 'additive_noise_std must be one of'),
    ('fprm', {'eps': 1e-6}, 'eps must be one of'),
    ('trm', {'vocab_size': 2**31}, 'vocab_size must be <= 2147483647, got'),
    ('trm', {'rope_theta': 10**400}, 'rope_theta must be a number, got 1000'),
    ('trm', {'expansion': 1e308}, 'expansion must be <= .* / 512, got 1e'),
  ],
)
def test_what_cannot_be_honoured_is_named(family, change, message):
  published = {**COMMON, **SUDOKU, **FIELDS[family], **change}
  with pytest.raises(ValueError, match=message):
    config_of(family, published)


@pytest.mark.parametrize('name', ['vocab_size', 'L_cycles', 'num_heads'])
def test_a_missing_field_is_named(name):
  published = {**COMMON, **SUDOKU, **CYCLES}
  del published[name]
  with pytest.raises(ValueError, match=f'config.{name} must be given'):
    config_of('trm', published)


INPUT = {'residual_scale': 'input-dependent'}


def test_a_spectral_norm_is_that_of_input_dependent_scales():
  published = {**COMMON, **SUDOKU, **FPRM, 'use_spec_norm_linear': True}
  assert config_of('fprm', published).residual_scale == 'learned'
  cfg = config_of('fprm', published | INPUT)
  assert cfg.residual_scale == 'spectral'
  model, names = FAMILIES['fprm'].abstract(cfg), layout_of('fprm', cfg)
  check_covers(model, names)
  layer = 'inner.L_level.alpha_1_layer.'
  own = {name for name in names if name.startswith(layer)}
  assert own == {layer + x for x in ('weight', 'bias', 'scale', 'u', 'v')}
  # Besides those of the learned vectors: D^2 + 1 for each of the two.
  assert count_parameters(model) == 6_833_666 + 2 * (512**2 + 1)


def test_a_spectral_model_is_loaded_as_it_was_saved():
  sizes = {'hidden_size': 32, 'num_heads': 4, 'puzzle_emb_ndim': 32}
  published = {**COMMON, **SUDOKU, **FPRM, **INPUT, **sizes}
  cfg = config_of('fprm', published | {'use_spec_norm_linear': True})
  layout = layout_of('fprm', cfg)
  want = save(family_model('fprm', cfg), layout)
  assert want['inner.L_level.alpha_2_layer.scale'].shape == ()
  empty = FAMILIES['fprm'].abstract(cfg)
  again = save(load(empty, layout, want.items()), layout)
  for name, tensor in want.items():
    np.testing.assert_array_equal(again[name], tensor, err_msg=name)


ARCH = {'name': 'a.b@C', 'short_name': 'C', 'loss': {'name': 'losses@Head'}}


@pytest.mark.parametrize('family', FIELDS)
def test_an_arch_block_may_be_whole_and_inside_a_run(family):
  arch = {**COMMON, **FIELDS[family], **ARCH}
  if family == 'fprm':
    arch['n_decode_steps'] = 0
  want = config_of(family, {**COMMON, **SUDOKU, **FIELDS[family]})
  assert config_of(family, {**SUDOKU, **arch}) == want
  run = {**SUDOKU, 'arch': arch, 'lr': 1e-4, 'evaluators': []}
  assert config_of(family, run) == want
  with pytest.raises(ValueError, match='config.arch must be an object, got 3'):
    config_of(family, {**run, 'arch': 3})


def test_no_convolution_needs_no_taps():
  fields = {'conv_type': 'none', 'conv_kernel_size': 0}
  cfg = config_of('fprm', {**COMMON, **SUDOKU, **FPRM, **fields})
  assert cfg.conv == 'none'
