"""Golden files are met; a file that cannot be replayed is said why."""

import json

import numpy as np
import pytest

from loopformer.interop.replay import main, replay
from tests.interop import sample

# Of other sizes or options of a family whose published file is replayed too.
FURTHER = ('trm_mlp', 'fprm_conv1d', 'parcae_options', 'hrm_text_prefix')
GOLDENS = pytest.mark.parametrize(
  'name, family',
  [
    pytest.param(*item, marks=[pytest.mark.slow] * (item[0] in FURTHER))
    for item in sample.FILES.items()
  ],
)
HEAD = 'weights/inner.lm_head.weight'


@GOLDENS
def test_the_published_outputs_and_gradients_are_met(name, family):
  result = replay(family, sample.path(name))
  assert result['worst_out'] <= 1e-4
  assert result['worst_grad'] <= 1e-3
  assert result['ok']
  for kind in ('out', 'grad'):
    wanted = {f'{kind}/{key}' for key in sample.read(name, f'{kind}/')}
    found = {key for key in result if key.startswith(f'{kind}/')}
    assert wanted - {*result['left_out']} == found
  assert bool(result['left_out']) == name.endswith('_padded')


def changed(name, change, folder):
  """The first outputs of a golden, with some arrays changed or left out."""
  arrays = {
    key: value
    for key, value in sample.read(name).items()
    if not key.startswith(('out/', 'grad/')) or key.startswith('out/seg0')
  }
  arrays |= change
  path = folder / 'x.npz'
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  return str(path)


def test_the_line_is_json_and_a_difference_is_status_1(tmp_path, capsys):
  logits = sample.read('eqr_attn')['out/seg0/logits']
  path = changed('eqr_attn', {'out/seg0/logits': logits + 0.5}, tmp_path)
  assert main(['--family=eqr', path]) == 1
  captured = capsys.readouterr()
  result = json.loads(captured.out)
  assert captured.err == ''
  assert not result['ok']
  assert result['out/seg0/logits'] == pytest.approx(0.5, abs=1e-4)
  assert result['out/seg0/z_H'] < 1e-4


def test_what_is_not_finite_is_null_and_status_1(tmp_path, capsys):
  wanted = sample.read('eqr_attn')
  logits = wanted['out/seg0/logits'].copy()
  state = wanted['out/seg0/z_H'].copy()
  logits[0, 0, 0], state[0, 0, 0] = np.nan, np.inf
  change = {'out/seg0/logits': logits, 'out/seg0/z_H': state}
  assert main(['--family=eqr', changed('eqr_attn', change, tmp_path)]) == 1
  result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
  for name in ('worst_out', *change):
    assert result[name] is None
  assert result['out/seg0/z_L'] < 1e-4


@pytest.mark.parametrize('wrong', [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_past_any_tolerance(tmp_path, wrong):
  name = 'grad/stablemax_cross_entropy/inner.q_head.bias'
  last = 'grad/stablemax_cross_entropy/inner.lm_head.weight'
  change = {name: np.array([0.0, wrong]), last: sample.read('urm')[last]}
  result = replay('urm', changed('urm', change, tmp_path))
  assert result[name] == result['worst_grad'] == np.inf
  assert result[last] < 1e-3
  assert not result['ok']


def test_the_first_tokens_of_a_causal_golden_stand_alone(tmp_path):
  whole = sample.read('fprm_conv1d')
  names = ('in/inputs', 'in/labels', 'in/y0', 'out/iter1/y', 'out/iter1/logits')
  # Four of nine are left out, behind all tokens of the prefix.
  cut = {name: whole[name][:, :-4] for name in names}
  result = replay('fprm', changed('fprm_conv1d', cut, tmp_path))
  assert result['ok']
  assert {name for name in result if name.startswith('out/')} == {*names[3:]}


def test_what_is_tied_to_its_tokens_reads_no_fewer(tmp_path, capsys):
  short = {'in/inputs': np.zeros((2, 8), int)}
  path = changed('trm_mlp', short, tmp_path)
  assert 'must have shape (2, 9), got (2, 8)' in said('trm', path, capsys)


def said(family, path, capsys):
  """The one line on stderr of a file that is refused."""
  assert main([f'--family={family}', str(path)]) == 2
  captured = capsys.readouterr()
  assert captured.out == ''
  assert captured.err.startswith('replay: ')
  assert captured.err.count('\n') == 1
  return captured.err


def config(name, **fields):
  return np.array(json.dumps({**sample.config(name), **fields}))


NESTED = '[' * 100_000 + ']' * 100_000
LONG = np.zeros((2, 10), np.int64)
GRID = np.zeros((2, 9), np.int64)
CHANGES = {
  'missing tensor': ({HEAD: None}, HEAD[8:]),
  'extra tensor': ({'weights/inner.more': np.ones(2)}, 'inner.more'),
  'misshaped tensor': ({HEAD: np.ones((3, 32), np.float32)}, HEAD[8:]),
  'unknown field': (
    {'config_json': config('eqr_attn', colour=1)},
    "fields that are not known: ['colour']",
  ),
  'not JSON': ({'config_json': np.array('{')}, 'config_json must be JSON'),
  'deep JSON': ({'config_json': np.array(NESTED)}, 'config_json must be JSON'),
  'deep field': (
    {'config_json': np.array('{"arch": ' + NESTED + '}')},
    'config_json must be JSON',
  ),
  'huge table': (
    {'config_json': config('eqr_attn', vocab_size=2**31 - 1)},
    'must have shape (2147483647, 32)',
  ),
  'huge layer': (
    {'config_json': config('eqr_attn', expansion=1e7)},
    'must have shape (426667008, 32), got (512, 32)',
  ),
  'huge number': (
    {'config_json': config('eqr_attn', vocab_size=10**12)},
    'vocab_size must be <= 2147483647',
  ),
  'no object': ({'config_json': np.array('[]')}, 'config_json must be an obj'),
  'no config': ({'config_json': None}, 'must hold config_json'),
  'no inputs': ({'in/inputs': None}, 'in/inputs must be given'),
  'long inputs': ({'in/inputs': LONG}, 'in/inputs must have shape (2, 9)'),
  'high token': ({'in/inputs': GRID + 11}, 'ids from 0 to 10, got 11'),
  'high label': ({'in/labels': GRID - 1}, 'in/labels must be ids from -100'),
  'no start': ({'in/z_H': None}, "initial states ['high', 'low']"),
  'short start': ({'in/z_L': np.ones((2, 9, 3))}, 'in/z_L must have shape'),
  'unknown output': ({'out/seg0/y': np.ones(2)}, 'out/seg0/y is not'),
  'misshaped output': ({'out/seg0/z_H': np.ones(2)}, 'out/seg0/z_H must have'),
}


@pytest.mark.parametrize('what', CHANGES)
def test_what_is_wrong_is_said_in_one_line(tmp_path, capsys, what):
  change, message = CHANGES[what]
  path = changed('eqr_attn', change, tmp_path)
  assert message in said('eqr', path, capsys)


def test_a_gradient_must_be_of_a_weight_and_a_loss(tmp_path, capsys):
  loss = {'grad/hinge/inner.lm_head.weight': np.ones((11, 32))}
  path = changed('eqr_attn', loss, tmp_path)
  assert 'loss must be one of' in said('eqr', path, capsys)


def test_a_gradient_must_have_the_shape_of_its_weight(tmp_path, capsys):
  name = 'grad/softmax_cross_entropy/inner.q_head.bias'
  path = changed('eqr_attn', {name: np.ones(3)}, tmp_path)
  assert f'{name} must have shape (2,), got (3,)' in said('eqr', path, capsys)


def test_nothing_to_compare_is_refused(tmp_path, capsys):
  outputs = dict.fromkeys(sample.read('eqr_attn', 'out/'))
  change = {f'out/{name}': None for name in outputs}
  path = changed('eqr_attn', change, tmp_path)
  assert 'must hold out/*' in said('eqr', path, capsys)


@pytest.mark.parametrize('family', ['hrm', 'trm', 'urm', 'eqr', 'fprm'])
def test_another_family_is_refused(capsys, family):
  for name, own in sample.FILES.items():
    if family != own:
      said(family, sample.path(name), capsys)


def test_a_cut_file_is_named(tmp_path, capsys):
  whole = sample.path('urm').read_bytes()
  path = tmp_path / 'half.npz'
  path.write_bytes(whole[: len(whole) // 2])
  assert f'file {path} cannot be read' in said('urm', path, capsys)


def test_a_missing_file_is_named(tmp_path, capsys):
  assert 'gone.npz' in said('urm', tmp_path / 'gone.npz', capsys)
