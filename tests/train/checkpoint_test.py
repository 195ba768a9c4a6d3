"""Checkpoints: bit-exact; damage is found, passed over and said."""

import dataclasses
import os
import shutil
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging
from flax import nnx

from loopformer.train import checkpoint
from loopformer.train.checkpoint import Checkpointer, CheckpointError, restore


@pytest.fixture
def said(monkeypatch):
  """The warnings that were logged."""
  lines = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *a: lines.append(text % a)
  )
  return lines


@pytest.fixture(scope='module')
def two_steps(tmp_path_factory):
  """A directory with steps 10 and 20; the state of step s is s everywhere."""
  directory = tmp_path_factory.mktemp('two_steps')
  with Checkpointer(directory) as checkpointer:
    for step in (10, 20):
      checkpointer.save(step, state_of(step), {'position': step})
  return directory


def state_of(step):
  noise = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
  return {'w': jnp.asarray(noise + step), 'step': jnp.int32(step)}


def assert_is(restored, step):
  assert restored.step == step
  jax.tree.map(np.testing.assert_array_equal, restored.state, state_of(step))


def bits(leaf):
  if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
    return bits(jax.random.key_data(leaf)), jax.random.key_impl(leaf)
  array = np.asarray(leaf)
  return array.dtype, array.shape, array.tobytes()


class Pair(NamedTuple):
  left: Any
  right: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Carry:
  state: Any
  keys: Any


def test_round_trip_of_everything_is_bit_exact(tmp_path):
  model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
  state = Pair(
    left={
      'model': model,
      'optimizer': optax.adamw(1e-3).init(nnx.state(model)),
      'carry': Carry(jnp.ones((2, 3), jnp.bfloat16) / 3, jax.random.key(3)),
      'keys': jax.random.split(jax.random.key(0, impl='rbg'), (2, 3)),
      'no rows': (jnp.zeros((0, 4)), jax.random.split(jax.random.key(0), 0)),
      'a/b.c ü/..': [jnp.arange(5, dtype=jnp.uint8), jnp.array([True, False])],
    },
    right=(7, 1.1, True, None, np.float64(0.1), np.arange(3)[::-1], ()),
  )
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(5, state, {'config': {'width': 3}, 'list': [1, 'two']})
    restored = checkpointer.restore(state)
  assert restored.step == 5
  assert restored.meta == {'config': {'width': 3}, 'list': [1, 'two']}
  assert jax.tree.structure(restored.state) == jax.tree.structure(state)
  for before, after in zip(
    jax.tree.leaves(state), jax.tree.leaves(restored.state), strict=True
  ):
    assert type(before) is type(after)
    assert bits(before) == bits(after)


def test_the_class_of_a_node_is_not_stored(tmp_path):
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, Pair(jnp.ones(2), {'x': jnp.zeros(1)}), {})
    like = {'left': jax.ShapeDtypeStruct((2,), 'float32'), 'right': Pair}
    like['right'] = {'x': np.zeros(1, np.float32)}
    np.testing.assert_array_equal(checkpointer.restore(like).state['left'], 1)


@pytest.mark.parametrize('state', (jnp.arange(3), {}, jnp.zeros((0,))))
def test_smallest_trees(tmp_path, state):
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(0, state, {})
    restored = checkpointer.restore(state).state
  assert jax.tree.map(bits, restored) == jax.tree.map(bits, state)


def test_keys_continue_their_stream(tmp_path):
  key = jax.random.key(7)
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, {'key': key}, {})
    like = jax.eval_shape(lambda: {'key': jax.random.key(0)})
    after = checkpointer.restore(like).state['key']
  np.testing.assert_array_equal(
    jax.random.normal(jax.random.fold_in(after, 3), (4,)),
    jax.random.normal(jax.random.fold_in(key, 3), (4,)),
  )


def test_buffers_may_be_donated_at_once(tmp_path, monkeypatch):
  go, write = threading.Event(), checkpoint._write_arrays

  def late(path, arrays):
    assert go.wait(20)
    write(path, arrays)

  monkeypatch.setattr(checkpoint, '_write_arrays', late)
  double = jax.jit(lambda x: x * 2, donate_argnums=0)
  x, numpy = jnp.arange(100_000.0), np.ones(3)
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, (x, numpy), {})
    y = double(x).block_until_ready()
    numpy[:] = 2
    assert x.is_deleted() and checkpointer.steps() == []
    go.set()
    after, after_numpy = checkpointer.restore((y, numpy)).state
  np.testing.assert_array_equal(after, np.arange(100_000.0))
  np.testing.assert_array_equal(after_numpy, 1)


def damage(path, how):
  content = bytearray(path.read_bytes())
  middle = len(content) // 2
  if how == 'remove':
    path.unlink()
  elif how == 'truncate':
    path.write_bytes(content[:middle])
  elif how == 'zero':
    path.write_bytes(bytes(len(content)))
  else:
    content[middle] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('how', ('flip', 'truncate', 'zero', 'remove'))
def test_damage_to_any_file_falls_back_and_says_so(
  two_steps, tmp_path, said, how
):
  newest = two_steps / 'step_00000020'
  names = [p.relative_to(newest) for p in newest.rglob('*') if p.is_file()]
  assert len(names) > 5
  for name in names:
    if how != 'remove' and not (newest / name).stat().st_size:
      continue  # An empty file has no bit to flip.
    directory = tmp_path / str(name).replace('/', '-')
    shutil.copytree(two_steps, directory)
    damage(directory / newest.name / name, how)
    said.clear()
    assert_is(restore(directory, state_of(0)), 10)
    (line,) = said
    assert line.startswith(f'step 20 is damaged: {name} '), line
    assert checkpoint.verify_directory(directory)[0].startswith(
      f'step_00000020/{name} '
    )
    with pytest.raises(CheckpointError, match='step 20 is damaged'):
      restore(directory, state_of(0), step=20)
  assert checkpoint.verify_directory(two_steps) == []


def test_a_sealed_step_that_does_not_load_is_passed_over(
  two_steps, monkeypatch, said
):
  read = checkpoint._read_arrays

  def fail(path, flat):
    if '20' in path.parent.name:
      raise RuntimeError('bad block\nand a long story')
    return read(path, flat)

  monkeypatch.setattr(checkpoint, '_read_arrays', fail)
  assert_is(restore(two_steps, state_of(0)), 10)
  assert said == [
    'step 20 cannot be read: RuntimeError: bad block; trying the step before.'
  ]


def test_no_intact_step_is_an_error_and_no_step_is_none(two_steps, tmp_path):
  assert restore(tmp_path / 'nowhere', state_of(0)) is None
  assert checkpoint.verify_directory(tmp_path) == [
    f'{tmp_path} holds no steps.'
  ]
  shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
  for path in tmp_path.glob('step_*/manifest.json'):
    path.unlink()
  with pytest.raises(CheckpointError, match=r'no step of \[10, 20\]'):
    restore(tmp_path, state_of(0))


def test_explicit_step(two_steps):
  assert_is(restore(two_steps, state_of(0), step=10), 10)
  assert restore(two_steps, state_of(0), step=10).meta == {'position': 10}
  with pytest.raises(ValueError, match=r'one of \[10, 20\], got 15'):
    restore(two_steps, state_of(0), step=15)


def test_another_configuration_is_a_diff_and_no_fallback(two_steps, said):
  like = {'w': jnp.ones((4, 5)), 'deep': {'bias': jnp.ones(2)}}
  with pytest.raises(ValueError) as caught:
    restore(two_steps, like)
  assert str(caught.value) == (
    'step 20 was saved by another configuration, its leaves do not fit: '
    '1 missing (deep/bias float32[2]); 1 unexpected (step int32[]); '
    '1 different (w is float32[4,3], should be float32[4,5]).'
  )
  assert not said


def test_a_long_diff_is_cut(two_steps):
  like = state_of(0) | {f'x{i}': jnp.ones(()) for i in range(9)}
  with pytest.raises(ValueError, match=r'9 missing \(x0 .* 5 more\)'):
    restore(two_steps, like)


def test_nonfinite_state_is_refused_unless_forced(tmp_path):
  bad = {'p': {'w': jnp.array([1.0, jnp.nan, jnp.inf], jnp.bfloat16)}}
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(1, {'p': {'w': jnp.ones(3, jnp.bfloat16)}}, {})
    checkpointer.save(2, bad, {})
    with pytest.raises(ValueError, match=r'step 2 .*p/w \(2 of 3\)'):
      checkpointer.restore(bad)
    forced = checkpointer.restore(bad, allow_nonfinite=True).state
  assert bits(forced['p']['w']) == bits(bad['p']['w'])


def test_schema_of_the_future_is_refused(two_steps, monkeypatch):
  monkeypatch.setattr(checkpoint, 'SCHEMA', 0)
  with pytest.raises(ValueError, match='schema of step 20 must be 0, got 1'):
    restore(two_steps, state_of(0))


def test_failed_write_surfaces_once_and_training_can_go_on(
  tmp_path, monkeypatch
):
  write = checkpoint._write_arrays

  def full(path, arrays):
    path.mkdir()
    raise OSError(28, 'No space left on device')

  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(10, state_of(10), {})
    checkpointer.wait()
    monkeypatch.setattr(checkpoint, '_write_arrays', full)
    checkpointer.save(20, state_of(20), {})
    with pytest.raises(CheckpointError) as caught:
      checkpointer.save(30, state_of(30), {})
    assert str(caught.value) == (
      'step 20 could not be saved: OSError: [Errno 28] No space left on device'
    )
    assert os.listdir(tmp_path) == ['step_00000010']
    monkeypatch.setattr(checkpoint, '_write_arrays', write)
    checkpointer.save(20, state_of(20), {})
    assert_is(checkpointer.restore(state_of(0)), 20)


def test_close_surfaces_the_error_too(tmp_path):
  with pytest.raises(CheckpointError, match='step 1 .*FileNotFoundError'):
    with Checkpointer(tmp_path / 'gone') as checkpointer:
      shutil.rmtree(tmp_path / 'gone')
      checkpointer.save(1, state_of(1), {})


def test_retention(tmp_path):
  with Checkpointer(tmp_path, keep=2, keep_every=20) as checkpointer:
    for step in range(0, 70, 10):
      checkpointer.save(step, state_of(step), {})
    checkpointer.wait()
    assert checkpointer.steps() == [0, 20, 40, 50, 60]
    checkpointer.save(50, state_of(1), {})  # A run that went back to 40.
    checkpointer.wait()
    assert checkpointer.steps() == [0, 20, 40, 50, 60]
    assert int(checkpointer.restore(state_of(0), step=50).state['step']) == 1
  assert all(p.name.startswith('step_000000') for p in tmp_path.iterdir())


def test_leftovers_go_and_everything_else_stays(two_steps, tmp_path):
  shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
  (tmp_path / 'step_00000030.tmp' / 'state').mkdir(parents=True)
  (tmp_path / 'step_00000010.old').mkdir()
  (tmp_path / 'step_00000020').rename(tmp_path / 'step_00000020.old')
  (tmp_path / 'mine.tmp').touch()
  assert checkpoint.steps(tmp_path) == [10]
  with Checkpointer(tmp_path) as checkpointer:
    # Killed while 20 was replaced, before the new 20 had its name.
    assert checkpointer.steps() == [10, 20]
    assert_is(checkpointer.restore(state_of(0)), 20)
  assert sorted(os.listdir(tmp_path)) == [
    'mine.tmp',
    'step_00000010',
    'step_00000020',
  ]


@pytest.mark.parametrize(
  'arguments, message',
  (
    ({'keep': 0}, 'keep must be >= 1, got 0'),
    ({'keep_every': 0}, 'keep_every must be >= 1 or None, got 0'),
    ({'directory': 'gs://bucket/run'}, 'local or mounted path, got gs://'),
  ),
)
def test_bad_arguments(tmp_path, arguments, message):
  with pytest.raises(ValueError, match=message):
    Checkpointer(**({'directory': tmp_path} | arguments))


@pytest.mark.parametrize(
  'step, state, meta, message',
  (
    (-1, {}, {}, 'step must be >= 0, got -1'),
    (1, {'name': 'text'}, {}, 'leaf name must be an array or a number'),
    (1, {'o': np.array([{}])}, {}, 'leaf o must be an array or a number'),
    (1, {'a/b': 1, 'a': {'b': 2}}, {}, 'got a/b twice'),
    (1, {}, {'x': float('nan')}, 'meta must be JSON'),
    (1, {}, {'x': object()}, 'meta must be JSON'),
  ),
)
def test_bad_saves_are_refused_at_once(tmp_path, step, state, meta, message):
  with Checkpointer(tmp_path) as checkpointer:
    with pytest.raises(ValueError, match=message):
      checkpointer.save(step, state, meta)
