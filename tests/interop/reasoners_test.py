"""Published configs: the counts they give, and what is refused."""

import pytest

from loopformer.interop.reasoners import config_of, layout_of
from loopformer.nn.variables import count_parameters
from loopformer.zoo import FAMILIES

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


def test_a_spectral_norm_is_refused_where_it_would_be_used():
  published = {**COMMON, **SUDOKU, **FPRM, 'use_spec_norm_linear': True}
  config_of('fprm', published)
  with pytest.raises(ValueError, match='use_spec_norm_linear must be false'):
    config_of('fprm', {**published, 'residual_scale': 'input-dependent'})
