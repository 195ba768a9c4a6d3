"""Reading and writing named tensors."""

import ml_dtypes
import numpy as np
import pytest

from loopformer.interop.tensors import read_tensors, write_tensors

TENSORS = {
  'a.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'a.bias': np.zeros(0, np.float16),
  'b': np.array(3, np.int64),
}
KINDS = pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])


@KINDS
def test_what_is_written_is_read(tmp_path, suffix):
  path = tmp_path / f'x{suffix}'
  write_tensors(path, TENSORS)
  found = dict(read_tensors(path))
  assert found.keys() == TENSORS.keys()
  for name, tensor in TENSORS.items():
    assert found[name].shape == tensor.shape
    np.testing.assert_array_equal(found[name], tensor)
  assert [file.name for file in tmp_path.iterdir()] == [path.name]


@KINDS
def test_a_prefix_is_asked_for_and_stripped(tmp_path, suffix):
  path = tmp_path / f'x{suffix}'
  write_tensors(path, TENSORS)
  assert sorted(name for name, _ in read_tensors(path, prefix='a.')) == [
    'bias',
    'weight',
  ]


def test_bfloat16_is_read(tmp_path):
  path = tmp_path / 'x.safetensors'
  write_tensors(path, {'x': np.array([1.5, -2.0], ml_dtypes.bfloat16)})
  ((_, found),) = read_tensors(path)
  np.testing.assert_array_equal(found.astype(np.float32), [1.5, -2.0])


def test_a_transposed_array_is_written_as_it_reads(tmp_path):
  path = tmp_path / 'x.safetensors'
  write_tensors(path, {'x': TENSORS['a.weight'].T})
  ((_, found),) = read_tensors(path)
  np.testing.assert_array_equal(found, TENSORS['a.weight'].T)


@KINDS
@pytest.mark.parametrize('part', [0.0, 0.5, 0.95])
def test_a_cut_file_is_named(tmp_path, suffix, part):
  path = tmp_path / f'x{suffix}'
  write_tensors(path, {'x': np.ones(1000, np.float32)})
  whole = path.read_bytes()
  path.write_bytes(whole[: int(part * len(whole))])
  with pytest.raises(ValueError, match=f'file .*x{suffix} cannot') as error:
    list(read_tensors(path))
  assert '\n' not in str(error.value)


def test_a_flipped_byte_is_found_and_its_tensor_named(tmp_path):
  path = tmp_path / 'x.npz'
  np.savez_compressed(path, good=np.ones(9), bad=np.arange(900.0))
  whole = bytearray(path.read_bytes())
  at = whole.index(b'bad.npy') + 200
  whole[at] ^= 255
  path.write_bytes(whole)
  with pytest.raises(ValueError, match='cannot be read: tensor bad'):
    list(read_tensors(path))


def test_objects_are_not_unpickled(tmp_path):
  path = tmp_path / 'x.npz'
  np.savez(path, x=np.array([{}]))
  with pytest.raises(ValueError, match='tensor x: .*pickle'):
    list(read_tensors(path))


@pytest.mark.parametrize('name', ['x.pt', 'x.bin', 'x'])
def test_a_pickle_is_refused(name):
  with pytest.raises(ValueError, match='may run code'):
    list(read_tensors(name))


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='gone.npz does not exist'):
    list(read_tensors(tmp_path / 'gone.npz'))


def test_another_suffix_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'must end in one of .*x\.csv'):
    write_tensors(tmp_path / 'x.csv', TENSORS)
