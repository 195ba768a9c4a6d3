"""The published files of HRM, TRM, URM, EqR and FPRM.

Configs are the constructors' arguments of the authors' repositories (see the
families' files), or those of a whole run with the arguments under `arch`; names
are those of their state dicts without the prefix `_orig_mod.model.` or
`model.`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from loopformer.interop.fields import LARGEST, Fields
from loopformer.interop.layout import Entry, Layout
from loopformer.nn.puzzle_embedding import prefix_tokens
from loopformer.nn.reasoner import ReasonerConfig, published_block
from loopformer.zoo import FAMILIES

PREFIXES = ('_orig_mod.model.', '_orig_mod.', 'model.')
# Buffers that are rebuilt, or all ones: drop-connect masks, batch buffers.
DERIVED = (
  '.mask',
  '.local_weights',
  '.local_ids',
  '.cos_cached',
  '.sin_cached',
)


def rounded(expansion: float, width: int) -> int:
  """F = 256 ceil(round(2 e D / 3) / 256), as published.

  Raises:
    ValueError: if e D is beyond an int32.
  """
  if expansion * width > LARGEST:
    raise ValueError(
      f'config.expansion must be <= {LARGEST} / {width}, got {expansion}.'
    )
  return -(-round(expansion * width * 2 / 3) // 256) * 256


def config_of(family: str, published: Mapping[str, Any]) -> ReasonerConfig:
  """Our config of a published one.

  Raises:
    ValueError: naming a field that is missing, unknown or not supported.
  """
  fields = Fields(model_part(published))
  made = CONFIGS[family](fields)
  fields.done()
  return made


# What a run reads off its data; it may stand beside `arch`.
DATA_FIELDS = ('vocab_size', 'seq_len', 'num_puzzle_identifiers')


def model_part(published: Mapping[str, Any]) -> Mapping[str, Any]:
  """The constructor's arguments, of those or of a run's whole config.

  Raises:
    ValueError: if `arch` is there and no object.
  """
  arch = published.get('arch', published)
  if not isinstance(arch, Mapping):
    raise ValueError(f'config.arch must be an object, got {arch!r}.')
  sizes = {name: published[name] for name in DATA_FIELDS if name in published}
  return {**sizes, **arch}


# What a published `pos_encodings` means for the rotary layout.
ROTARY = {'rope': 'half', 'learned': 'none', 'none': 'none', None: 'none'}
# Of every config: how the model is called, trained, halted and evaluated.
RUN_FIELDS = (
  'batch_size',
  'forward_dtype',
  'halt_exploration_prob',
  'halt_max_steps',
  'loss',
  'name',
  'no_ACT_continue',
  'short_name',
)


def _common(
  fields: Fields,
  *,
  rotary: Mapping[Any, str] = ROTARY,
  prefix: int = 0,
  **block: Any,
) -> dict[str, Any]:
  """What all five share: sizes, positions, puzzle table.

  Args:
    fields: what is left of the config.
    rotary: the layout of each way to encode positions.
    prefix: P as given; 0 for as many tokens as a puzzle's vector fills.
    **block: fields of the block that are the family's own.
  """
  width, expansion = fields.size('hidden_size'), fields.number('expansion')
  learned = fields.left.get('pos_encodings') == 'learned'
  puzzle_width = fields.size('puzzle_emb_ndim', 0)
  fields.ignore(RUN_FIELDS)
  return {
    'vocab_size': fields.size('vocab_size'),
    'seq_len': fields.size('seq_len'),
    'positions': 'learned' if learned else 'none',
    'puzzle_width': puzzle_width,
    'puzzles': max(fields.size('num_puzzle_identifiers', 1), 1),
    'prefix': prefix if puzzle_width else 0,
    'block': published_block(
      width=width,
      heads=fields.size('num_heads'),
      hidden=rounded(expansion, width),
      rotary=fields.choice('pos_encodings', rotary, None),
      epsilon=fields.number('rms_norm_eps', 1e-5),
      rotary_theta=fields.number('rope_theta', 1e4),
      **block,
    ),
  }


def _mixed(fields, **common):
  """The same for those that may mix tokens by an MLP across them."""
  expansion = fields.number('expansion')
  fields.left['expansion'] = expansion
  across = fields.flag('mlp_t', False)
  values = _common(fields, **common)
  if not across:
    return values
  prefix = prefix_tokens(
    values['puzzle_width'], values['block'].width, values['prefix']
  )
  length = prefix + values['seq_len']
  hidden = rounded(expansion, length)
  return {**values, 'mixer': 'mlp', 'mixer_hidden': hidden}


def _cycles(fields):
  return {
    'high_cycles': fields.size('H_cycles'),
    'low_cycles': fields.size('L_cycles'),
  }


def _hrm(fields):
  own = {'layers': fields.size('L_layers'), **_cycles(fields)}
  own['high_layers'] = fields.size('H_layers')
  if not own['high_layers']:
    raise ValueError('config.H_layers must be >= 1 for hrm, got 0.')
  fields.only('causal', False)
  return FAMILIES['hrm'].config(**own, **_common(fields))


def _trm(fields):
  own = {'layers': fields.size('L_layers'), **_cycles(fields)}
  prefix = fields.size('puzzle_emb_len', 16)
  fields.only('causal', False)
  fields.ignore(['H_layers'])
  return FAMILIES['trm'].config(**own, **_mixed(fields, prefix=prefix))


def _eqr(fields):
  std = fields.number('H_init_std', 1.0)
  own = {
    'layers': fields.size('L_layers'),
    **_cycles(fields),
    'damping': fields.number('lambda_', 0.95),
    'noise': fields.number('noise_scale', 0.01),
    'start_std': std,
    'low_start_std': fields.number('L_init_std', 1.0),
  }
  rows, columns = (fields.size(f'board_{x}', 0) for x in ('height', 'width'))
  columns = columns if rows else 0
  fields.only('causal', False)
  fields.ignore(['H_layers', 'num_puzzle_identifiers', 'puzzle_emb_ndim'])
  rotary = {'rope': 'half', 'rope2d': 'grid', 'none': 'none', None: 'none'}
  common: dict[str, Any] = _mixed(fields, rotary=rotary, rotary_columns=columns)
  is_grid = common['block'].rotary == 'grid'
  if is_grid and columns and rows * columns != common['seq_len']:
    raise ValueError(
      f'config.board_height must be seq_len / board_width = '
      f'{common["seq_len"]} / {columns}, got {rows}.'
    )
  return FAMILIES['eqr'].config(**own, **common)


def _urm(fields):
  own = {'layers': fields.size('num_layers'), **_cycles(fields)}
  fields.only('causal', False)
  # Rotary whatever the config says.
  fields.left['pos_encodings'] = 'rope'
  fields.ignore(('loops', 'attn_dropout', 'mlp_dropout'))
  return FAMILIES['urm'].config(**own, **_common(fields))


STYLES = {
  'pre-norm': 'pre',
  'post-norm': 'post',
  'peri-norm': 'sandwich_branch',
}
SCALES = {
  None: 'none',
  'none': 'none',
  'None': 'none',
  'fixed': 'fixed',
  'input-independent': 'learned',
  'input-dependent': 'input',
}
CONVOLUTIONS = {'none': 'none', 'conv1d': 'line', 'conv2d': 'square'}
PLACES = {place: place for place in ('none', 'input', 'output')}
# Of FPRM's config: how it is solved, which replay reads itself, and trained.
SOLVER_FIELDS = (
  'stepsize',
  'stepsize_decay_train',
  'stepsize_decay_eval',
  'decay_patience',
  'fp_thresh',
  'n_backwards_L',
)
TRAINING_FIELDS = (
  'H_cycles',
  'L_cycles',
  'H_layers',
  'halting_mechanism',
  'max_iter',
  'max_iter_eval',
  'max_iter_dist',
  'gamma_alpha',
  'gamma_scale',
  'expon_scale',
  'outlier_quantile',
  'variational_dropout',
  'weight_dropout',
  'jacobian_reg',
  'n_jacobian_samples',
  'jacobian_eps',
  'n_decode_steps',
  'q_logit_from_puzzle_emb',
  'q_logit_detach_model',
)


def _fprm(fields):
  scale = fields.choice('residual_scale', SCALES, None)
  # The spectral norm is that of the layers behind `input` scales alone.
  spectral = fields.flag('use_spec_norm_linear', False)
  block = {
    'style': fields.choice('norm_type', STYLES, 'post-norm'),
    'temperature': fields.number('softmax_temp', 1.0),
    'mask': 'causal' if fields.flag('causal', False) else 'none',
  }
  own = {
    'layers': fields.size('L_layers'),
    'start': 'stored' if fields.flag('fixed_init', False) else 'normal',
    'start_std': fields.number('init_std', 1.0),
    'conv': fields.choice('conv_type', CONVOLUTIONS, 'none'),
    'conv_taps': fields.size('conv_kernel_size', 4),
    'conv_bias': fields.flag('conv_bias', False),
    'residual_scale': 'spectral' if spectral and scale == 'input' else scale,
    'alpha_inner': fields.number('alpha_1_init', 0.5),
    'alpha_outer': fields.number('alpha_2_init', 0.5),
    'outer_only': fields.flag('outer_only', False),
    'map_norm': fields.choice('norm_placement', PLACES, 'none'),
    'inject_norm': fields.flag('normalize_input_injection', False),
  }
  prefix = fields.size('puzzle_emb_len', 16)
  fields.only('additive_noise_std', 0.0)
  fields.only('eps', 1e-8)
  fields.ignore(SOLVER_FIELDS + TRAINING_FIELDS)
  return FAMILIES['fprm'].config(
    **own, **_mixed(fields, prefix=prefix, **block)
  )


CONFIGS = {'hrm': _hrm, 'trm': _trm, 'urm': _urm, 'eqr': _eqr, 'fprm': _fprm}


def layout_of(family: str, cfg: Any) -> Layout:
  """Every published name of a model of this config."""
  names = {
    'inner.embed_tokens.embedding_weight': Entry('embedding.tokens'),
    'inner.lm_head.weight': Entry('head.kernel', form='linear'),
    'inner.q_head.weight': Entry('q_head.kernel', form='linear'),
    'inner.q_head.bias': Entry('q_head.bias'),
  }
  if cfg.puzzle_width:
    names['inner.puzzle_emb.weights'] = Entry('embedding.puzzles')
  if cfg.positions == 'learned':
    names['inner.embed_pos.embedding_weight'] = Entry('embedding.positions')
  for published, ours, layers in _stacks(family, cfg):
    for layer in range(layers):
      names |= _layer(f'inner.{published}layers.{layer}.', ours, layer, cfg)
  if cfg.start == 'stored':
    for published, ours in STARTS[family].items():
      names[f'inner.{published}'] = Entry(f'start.{ours}')
  return names | (_map(cfg) if family == 'fprm' else {})


STARTS = {
  'hrm': {'H_init': 'high', 'L_init': 'low'},
  'trm': {'H_init': 'high', 'L_init': 'low'},
  'eqr': {'H_init': 'high', 'L_init': 'low'},
  'urm': {'init_hidden': 'hidden'},
  'fprm': {'L_optimizer.init_vec': 'y'},
}


def _stacks(family, cfg):
  """(published prefix, our path, layers) of each stack."""
  if family == 'urm':
    return [('', 'stack', cfg.layers)]
  if family == 'fprm':
    return [('L_level.', 'stack', cfg.layers)]
  stacks = [('L_level.', 'low', cfg.layers)]
  if cfg.high_layers:
    stacks.append(('H_level.', 'high', cfg.high_layers))
  return stacks


def _layer(prefix, stack, layer, cfg):
  """The tensors of one layer."""
  at = f'{stack}.layers.'
  if cfg.mixer == 'mlp':
    names = {
      'mlp_t.gate_up_proj.weight': 'mixer.layer.up.kernel',
      'mlp_t.down_proj.weight': 'mixer.layer.down.kernel',
    }
  else:
    names = {
      'self_attn.qkv_proj.weight': 'mixer.layer.qkv.kernel',
      'self_attn.o_proj.weight': 'mixer.layer.out.kernel',
    }
  names |= {
    'mlp.gate_up_proj.weight': 'mlp.layer.up.kernel',
    'mlp.down_proj.weight': 'mlp.layer.down.kernel',
  }
  entries = {
    prefix + theirs: Entry(at + ours, layer, 'linear')
    for theirs, ours in names.items()
  }
  if cfg.mlp_taps:
    conv = f'{at}mlp.layer.convolution.'
    entries[f'{prefix}mlp.dwconv.weight'] = Entry(
      f'{conv}kernel', layer, 'conv'
    )
    entries[f'{prefix}mlp.dwconv.bias'] = Entry(f'{conv}bias', layer)
  return entries


def _map(cfg):
  """FPRM's convolution and residual scales."""
  names = {}
  at = 'inner.L_level.'
  if cfg.conv != 'none':
    names[f'{at}conv.weight'] = Entry('convolution.kernel', form='conv')
    if cfg.conv_bias:
      names[f'{at}conv.bias'] = Entry('convolution.bias')
  alphas = {'2': 'outer'} if cfg.outer_only else {'1': 'inner', '2': 'outer'}
  for number, ours in alphas.items():
    layer = f'{at}alpha_{number}_layer.'
    if cfg.residual_scale in ('fixed', 'learned'):
      names[f'{at}alpha_{number}_param'] = Entry(f'scale.{ours}')
    if cfg.residual_scale in ('input', 'spectral'):
      names[f'{layer}weight'] = Entry(f'scale.{ours}.kernel', form='linear')
      names[f'{layer}bias'] = Entry(f'scale.{ours}.bias')
    if cfg.residual_scale == 'spectral':
      same = ('scale', 'u', 'v')
      names |= {layer + name: Entry(f'scale.{ours}.{name}') for name in same}
  return names


def published_names(
  tensors: Iterable[tuple[str, Any]],
) -> Iterator[tuple[str, Any]]:
  """Strips the prefix of a saved training wrapper, drops derived buffers."""
  for name, tensor in tensors:
    if name.endswith(DERIVED):
      continue
    for prefix in PREFIXES:
      name = name.removeprefix(prefix)
    yield name, tensor
