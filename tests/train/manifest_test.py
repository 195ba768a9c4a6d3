"""The manifest notices every change of every file, its own included."""

import pytest

from loopformer.train import manifest


@pytest.fixture
def step(tmp_path):
  """A sealed directory of two files."""
  (tmp_path / 'state').mkdir()
  (tmp_path / 'state' / 'data').write_bytes(b'weights')
  (tmp_path / 'empty').touch()
  manifest.write(tmp_path)
  return tmp_path


def flip(path, bit):
  content = bytearray(path.read_bytes())
  content[bit // 8] ^= 1 << bit % 8
  path.write_bytes(content)


def test_intact(step):
  assert manifest.verify(step) == []
  assert sorted(p.name for p in step.iterdir()) == [
    'empty',
    'manifest.json',
    'state',
  ]


@pytest.mark.parametrize('name', ('state/data', 'manifest.json'))
def test_any_single_bit_counts(step, name):
  path = step / name
  for bit in range(0, 8 * path.stat().st_size, 5):
    flip(path, bit)
    assert manifest.verify(step) == [(name, 'hash')], bit
    flip(path, bit)
  assert manifest.verify(step) == []


def test_kinds(step):
  (step / 'state' / 'data').write_bytes(b'weight')
  (step / 'empty').unlink()
  (step / 'note').write_text('hello')
  (step / 'away').symlink_to('/')
  assert sorted(manifest.verify(step)) == [
    ('away', 'extra'),
    ('empty', 'missing'),
    ('note', 'extra'),
    ('state/data', 'size'),
  ]


def test_link_in_place_of_a_file(step, tmp_path_factory):
  elsewhere = tmp_path_factory.mktemp('elsewhere') / 'data'
  (step / 'state' / 'data').rename(elsewhere)
  (step / 'state' / 'data').symlink_to(elsewhere)
  assert manifest.verify(step) == [('state/data', 'link')]


@pytest.mark.parametrize(
  'content', (b'', b'[]', b'{}', b'\xff', b'{"files":1}')
)
def test_manifest_that_is_none(step, content):
  (step / manifest.NAME).write_bytes(content)
  assert manifest.verify(step) == [(manifest.NAME, 'hash')]


def test_manifest_missing(step):
  (step / manifest.NAME).unlink()
  (problem,) = manifest.verify(step)
  assert str(problem) == 'manifest.json is missing'


def test_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
  path = tmp_path / 'file'
  path.write_bytes(b'old')

  def fail(_):
    raise OSError('No space left on device')

  monkeypatch.setattr(manifest.os, 'fsync', fail)
  with pytest.raises(OSError):
    manifest.write_atomically(path, b'new')
  assert path.read_bytes() == b'old'
