"""Checkpoints converted to one of our files and back, a few rows at a time."""

import json
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from loopformer.interop import shards
from loopformer.interop.convert import from_published, main, to_published
from loopformer.interop.converted import (
  config_from_json,
  load_converted,
  shapes_of,
)
from loopformer.interop.layout import published_shapes, save
from loopformer.interop.published import config_of, layout_of
from loopformer.interop.tensors import read_tensors, write_tensors
from tests import util
from tests.interop import sample
from tests.models import family_model

SOME = ('parcae_odd', 'huginn', 'hrm_text_prefix', 'ouro_gqa', 'fprm_conv2d')
NORM = 'model.norm.weight'


def source(name, folder, change=None):
  """A golden's weights as one safetensors file, and its config beside it."""
  weights = sample.read(name, 'weights/') | (change or {})
  kept = {name: x for name, x in weights.items() if x is not None}
  write_tensors(folder / 'source.safetensors', kept)
  config = folder / 'config.json'
  config.write_text(json.dumps(sample.config(name)))
  return folder / 'source.safetensors', config


def assert_same(found, wanted):
  assert found.keys() == wanted.keys()
  for name, tensor in wanted.items():
    np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.mark.parametrize('name', SOME)
def test_there_and_back(tmp_path, name):
  family = sample.FILES[name]
  file, config = source(name, tmp_path)
  ours, theirs = tmp_path / 'ours.safetensors', tmp_path / 'theirs.safetensors'
  given = [f'--family={family}', f'--config={config}', str(file), str(ours)]
  assert main(given) == 0
  found, cfg, model = load_converted(ours)
  wanted_cfg, wanted = sample.weights(name, family)
  assert (found, cfg) == (family, wanted_cfg)
  assert_same(save(model, layout_of(family, cfg)), wanted)
  back = [f'--family={family}', '--to-published', str(ours), str(theirs)]
  assert main(back) == 0
  assert_same(dict(read_tensors(theirs)), wanted)


def test_numbers_without_an_axis_go_there_and_back(tmp_path):
  fields = {'residual_scale': 'input-dependent', 'use_spec_norm_linear': True}
  published = sample.config('fprm_conv2d') | fields
  cfg = config_of('fprm', published)
  wanted = save(family_model('fprm', cfg), layout_of('fprm', cfg))
  assert wanted['inner.L_level.alpha_1_layer.scale'].shape == ()
  given, ours, back = (tmp_path / f'{n}.safetensors' for n in 'abc')
  write_tensors(given, wanted)
  from_published('fprm', published, [given], ours)
  to_published('fprm', ours, back)
  assert_same(dict(read_tensors(back)), wanted)


@pytest.fixture
def small_chunks(monkeypatch):
  """A few rows at a time, also of arrays that would fit at once."""
  monkeypatch.setattr(shards, 'CHUNK', 50)


def test_bfloat16_rounds_once_and_is_kept(tmp_path, small_chunks):
  file, _ = source('ouro_gqa', tmp_path)
  out = tmp_path / 'ours.safetensors'
  from_published(
    'ouro', sample.config('ouro_gqa'), [file], out, dtype='bfloat16'
  )
  _, cfg, model = load_converted(out)
  _, weights = sample.weights('ouro_gqa', 'ouro')
  rounded = {name: x.astype(ml_dtypes.bfloat16) for name, x in weights.items()}
  wanted = {name: x.astype(np.float32) for name, x in rounded.items()}
  assert_same(save(model, layout_of('ouro', cfg)), wanted)
  kept = jax.tree.leaves(nnx.state(load_converted(out, dtype=None)[2]))
  assert {leaf.dtype for leaf in kept} == {np.dtype(ml_dtypes.bfloat16)}
  again = tmp_path / 'again.safetensors'
  to_published('ouro', out, again, dtype='bfloat16')
  assert_same(dict(read_tensors(again)), rounded)


def shard(folder, weights):
  """Two files and their index, as Hugging Face writes them."""
  names = sorted(weights)
  parts = {'a.safetensors': names[::2], 'b.safetensors': names[1::2]}
  for file, own in parts.items():
    write_tensors(folder / file, {name: weights[name] for name in own})
  listed = {name: file for file, own in parts.items() for name in own}
  index = folder / 'model.safetensors.index.json'
  index.write_text(json.dumps({'metadata': {}, 'weight_map': listed}))
  return index


@pytest.mark.parametrize('kind', ['files', 'folder', 'index', 'bare folder'])
def test_shards_are_joined(tmp_path, kind):
  _, weights = sample.weights('ouro_gqa', 'ouro')
  folder = tmp_path / 'shards'
  folder.mkdir()
  index = shard(folder, weights)
  if kind == 'bare folder':
    index.unlink()
  files = sorted(folder.glob('*.safetensors'))
  sources = {'files': files, 'index': [index]}.get(kind, [folder])
  out = tmp_path / 'ours.safetensors'
  from_published('ouro', sample.config('ouro_gqa'), sources, out)
  found, cfg, model = load_converted(out)
  assert_same(save(model, layout_of(found, cfg)), weights)


WRONG = {
  'missing': ({NORM: None}, f'got none for 1: {NORM}'),
  'left over': ({'model.more': np.ones(2)}, 'got 1 that are not: model.more'),
  'misshaped': (
    {NORM: np.ones(15, np.float32)},
    f'tensor {NORM} must have shape (16,), got (15,)',
  ),
  'integers': (
    {NORM: np.ones(16, np.int32)},
    f"tensor {NORM} must hold one of ['BF16', 'F16', 'F32', 'F64'], got I32",
  ),
}


def said(folder, given, capsys):
  """The one line of what is refused, after which nothing new lies there."""
  before = sorted(folder.iterdir())
  assert main([*map(str, given), str(folder / 'out.safetensors')]) == 2
  assert sorted(folder.iterdir()) == before
  captured = capsys.readouterr()
  assert captured.err.startswith('convert: ')
  assert captured.err.count('\n') == 1
  return captured.err


@pytest.mark.parametrize('what', WRONG)
def test_a_wrong_tensor_is_named(tmp_path, capsys, what):
  change, message = WRONG[what]
  file, config = source('ouro_gqa', tmp_path, change)
  given = ['--family=ouro', f'--config={config}', file]
  assert message in said(tmp_path, given, capsys)


def test_a_tied_head_must_equal_the_embedding(tmp_path, capsys, small_chunks):
  head = sample.read('huginn')['weights/lm_head.weight']
  file, config = source('huginn', tmp_path, {'lm_head.weight': head + 1})
  given = ['--family=huginn', f'--config={config}', file]
  message = 'lm_head.weight must equal transformer.wte.weight'
  assert message in said(tmp_path, given, capsys)


@pytest.mark.parametrize('part', [0.0, 0.01, 0.5, 0.999])
def test_a_cut_file_is_named(tmp_path, capsys, part):
  file, config = source('ouro_gqa', tmp_path)
  whole = file.read_bytes()
  file.write_bytes(whole[: int(part * len(whole))])
  given = ['--family=ouro', f'--config={config}', file]
  assert f'file {file} cannot be read' in said(tmp_path, given, capsys)


def test_a_tensor_in_two_shards_is_refused(tmp_path, capsys):
  file, config = source('ouro_gqa', tmp_path)
  other = tmp_path / 'other.safetensors'
  write_tensors(other, {NORM: np.ones(16, np.float32)})
  given = ['--family=ouro', f'--config={config}', file, other]
  assert f'tensor {NORM} must be there once' in said(tmp_path, given, capsys)


def test_an_index_must_list_what_its_files_hold(tmp_path, capsys):
  _, weights = sample.weights('ouro_gqa', 'ouro')
  _, config = source('ouro_gqa', tmp_path)
  folder = tmp_path / 'shards'
  folder.mkdir()
  index = shard(folder, weights)
  given = ['--family=ouro', f'--config={config}', index]
  listed = json.loads(index.read_text())
  index.write_text(
    json.dumps({'weight_map': listed['weight_map'] | {'x': 'a.safetensors'}})
  )
  assert "differs for ['x']" in said(tmp_path, given, capsys)
  index.write_text(json.dumps({'weight_map': {NORM: '../x.safetensors'}}))
  assert 'must name files beside it' in said(tmp_path, given, capsys)
  index.write_text(json.dumps({'weight_map': {NORM: 'gone.safetensors'}}))
  assert 'gone.safetensors' in said(tmp_path, given, capsys)
  for text in ('[]', '[' * 100_000):
    index.write_text(text)
    assert 'must map names to files' in said(tmp_path, given, capsys)


def test_what_is_not_ours_is_not_loaded(tmp_path, capsys):
  file, config = source('ouro_gqa', tmp_path)
  with pytest.raises(ValueError, match='must be one that .* wrote'):
    load_converted(file)
  ours = tmp_path / 'ours.safetensors'
  from_published('ouro', sample.config('ouro_gqa'), [file], ours)
  given = ['--family=huginn', '--to-published', ours]
  assert 'family must be ouro' in said(tmp_path, given, capsys)
  given = ['--family=ouro', '--to-published', ours, file]
  assert 'source must be one file' in said(tmp_path, given, capsys)
  assert 'config must be given' in said(
    tmp_path, ['--family=ouro', file], capsys
  )
  given = ['--family=ouro', f'--config={config}', file]
  for text in ('{', '[' * 100_000, '{"arch":' * 100_000):
    config.write_text(text)
    assert f'file {config} must be JSON' in said(tmp_path, given, capsys)


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path, monkeypatch):
  file, _ = source('ouro_gqa', tmp_path)
  before = sorted(tmp_path.iterdir())
  calls = []

  def stop(self, name):
    calls.append(name)
    raise OSError('no room')

  monkeypatch.setattr(shards.Writer, 'map', stop)
  out = tmp_path / 'out.safetensors'
  with pytest.raises(OSError, match='no room'):
    from_published('ouro', sample.config('ouro_gqa'), [file], out)
  assert calls
  assert sorted(tmp_path.iterdir()) == before


BIG = {
  **sample.config('ouro_gqa'),
  'vocab_size': 12000,
  'hidden_size': 512,
  'intermediate_size': 1408,
}
LARGEST = 12000 * 512 * 4  # bytes of the embedding, and of the head


def big(folder):
  """A file of 70 MB."""
  cfg = config_of('ouro', BIG)
  shapes = published_shapes(layout_of('ouro', cfg), shapes_of('ouro', cfg))
  path = folder / 'big.safetensors'
  write_tensors(path, {name: np.ones(s, 'f4') for name, s in shapes.items()})
  return path


def test_no_tensor_is_held_as_a_whole(tmp_path):
  file = big(tmp_path)
  tracemalloc.start()
  from_published('ouro', BIG, [file], tmp_path / 'ours.safetensors')
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < LARGEST / 2


# The first conversion, of a small file, loads all code.
MEASURE = """
import json, resource, sys
from loopformer.interop.convert import main
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = None
for file, config in zip(sys.argv[1::2], sys.argv[2::2]):
  before = peak()
  given = ['--family=ouro', '--config=' + config, file, file + '.safetensors']
  assert main(given) == 0
print(peak() - before)
"""


def test_resident_memory_grows_by_less_than_the_largest_tensor(tmp_path):
  file, config = source('ouro_gqa', tmp_path)
  other = tmp_path / 'big.json'
  other.write_text(json.dumps(BIG))
  given = map(str, (file, config, big(tmp_path), other))
  grown = util.run_python(MEASURE, *given, fresh=True).stdout
  assert int(grown) < LARGEST


@pytest.mark.parametrize('metadata', ['"x"', '[]', 'null', '3'])
def test_metadata_that_is_no_object_is_damage(tmp_path, metadata):
  text = f'{{"__metadata__": {metadata}}}'.encode()
  file = tmp_path / 'odd.safetensors'
  file.write_bytes(len(text).to_bytes(8, 'little') + text)
  with pytest.raises(ValueError, match='its header is damaged'):
    load_converted(file)


@pytest.mark.parametrize('text', ['{', '[]', '[' * 100_000, '{"no": 1}'])
def test_a_config_in_the_metadata_that_is_none_is_refused(text):
  with pytest.raises(ValueError, match='config in the metadata must be one'):
    config_from_json('ouro', text)


def test_nothing_is_left_beside_a_folder_in_the_way(tmp_path, capsys):
  file, config = source('ouro_gqa', tmp_path)
  out = tmp_path / 'out.safetensors'
  out.mkdir()
  before = sorted(tmp_path.iterdir())
  given = ['--family=ouro', f'--config={config}', str(file), str(out)]
  assert main(given) == 2
  assert sorted(tmp_path.iterdir()) == before
