"""The disk cache: built once, whole or not at all, rebuilt when damaged."""

import numpy as np
import pytest

from loopformer.tasks import cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv('LOOPFORMER_CACHE', str(tmp_path))
  return tmp_path


def counting_build(calls):
  def build():
    calls.append(1)
    return {'a': np.arange(3)}

  return build


def test_second_call_reads(folder):
  calls = []
  for _ in range(3):
    found = cache.cached('key', ('a',), counting_build(calls))
    np.testing.assert_array_equal(found['a'], [0, 1, 2])
  assert len(calls) == 1
  assert [file.name for file in folder.iterdir()] == ['key.npz']


@pytest.mark.parametrize('spoil', ['empty', 'cut', 'noise', 'name', 'objects'])
def test_damaged_file_is_rebuilt(folder, spoil):
  calls, path = [], folder / 'key.npz'
  cache.cached('key', ('a',), counting_build(calls))
  whole = path.read_bytes()
  if spoil == 'name':
    np.savez(path, b=np.arange(3))
  elif spoil == 'objects':
    np.savez(path, a=np.array([{}], object))
  else:
    path.write_bytes(
      {
        'empty': b'',
        'cut': whole[: len(whole) // 2],
        'noise': whole[:60] + bytes(40) + whole[100:],
      }[spoil]
    )
  found = cache.cached('key', ('a',), counting_build(calls))
  np.testing.assert_array_equal(found['a'], [0, 1, 2])
  assert len(calls) == 2


def test_unwritable_folder_only_costs_time(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('in the way')
  monkeypatch.setenv('LOOPFORMER_CACHE', str(tmp_path / 'file' / 'below'))
  found = cache.cached('key', ('a',), counting_build([]))
  np.testing.assert_array_equal(found['a'], [0, 1, 2])


def test_failing_build_leaves_nothing(folder):
  def fail():
    raise RuntimeError('no')

  with pytest.raises(RuntimeError):
    cache.cached('key', ('a',), fail)
  assert not list(folder.iterdir())


def test_directory_follows_the_environment(monkeypatch):
  monkeypatch.delenv('LOOPFORMER_CACHE')
  monkeypatch.setenv('XDG_CACHE_HOME', '/x')
  assert str(cache.directory()) == '/x/loopformer'
  monkeypatch.delenv('XDG_CACHE_HOME')
  assert cache.directory().name == 'loopformer'
