"""Checkpoints across processes: kill -9, other devices, several hosts."""

import os
import pathlib
import socket
import subprocess
import sys
import textwrap
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.train.checkpoint import Checkpointer, restore

ROOT = pathlib.Path(__file__).parents[2]


def start(code, *arguments, **environment):
  """A Python process that runs `code` at the root of the repository."""
  return subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(code), *map(str, arguments)],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'} | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


KILLED = """
    import os, signal, sys, time
    import numpy as np
    from loopformer.train import checkpoint

    def run(directory, when):
      die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
      state = lambda step: {'w': np.random.default_rng(step).normal(size=10**6)}
      checkpointer = checkpoint.Checkpointer(directory)
      checkpointer.save(10, state(10), {})
      checkpointer.wait()
      new = state(20)
      module, name = when.split('.')
      if module != '0':
        setattr(vars(checkpoint).get(module, checkpoint), name, die)
      checkpointer.save(20, new, {})
      time.sleep(float(when) if module == '0' else 60)
      die()

    # One import for all: a child starts JAX, and so its threads, by itself.
    for when in sys.argv[2:]:
      child = os.fork()
      if not child:
        run(os.path.join(sys.argv[1], when), when)
      _, status = os.waitpid(child, 0)
      assert os.WTERMSIG(status) == signal.SIGKILL, (when, status)
"""


def test_kill_in_the_middle_of_a_save(tmp_path):
  """At delays after `save` returned, and exactly before named calls."""
  whens = ('0.0', '0.02', '0.08', '0.3')
  whens += ('manifest.write', 'checkpoint._swap_in', 'checkpoint._fsync')
  run = start(KILLED, tmp_path, *whens)
  output, _ = run.communicate(timeout=60)
  assert run.returncode == 0, output
  w = {s: np.random.default_rng(s).normal(size=10**6) for s in (10, 20)}
  for when in whens:
    restored = restore(tmp_path / when, {'w': w[10]})
    assert restored.step == 10 or when[0] == '0'
    np.testing.assert_array_equal(restored.state['w'], w[restored.step])
    with Checkpointer(tmp_path / when) as checkpointer:
      checkpointer.save(20, {'w': w[20]}, {})
      again = checkpointer.restore({'w': w[10]})
    assert again.step == 20
    np.testing.assert_array_equal(again.state['w'], w[20])
    assert sorted(os.listdir(tmp_path / when)) == [
      'step_00000010',
      'step_00000020',
    ]


FOUR_DEVICES = """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from loopformer.train.checkpoint import Checkpointer
    mesh = jax.make_mesh(
        (4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    place = lambda *spec: jax.NamedSharding(mesh, jax.P(*spec))
    like = {
        'step': jnp.int32(0),  # Not committed to any device.
        'w': jax.ShapeDtypeStruct((4, 3), 'float32', sharding=place('data')),
    }
    with Checkpointer(sys.argv[1]) as checkpointer:
      state = checkpointer.restore(like).state
      assert state['w'].sharding == place('data') and state['w'].committed
      assert not state['step'].committed
      state = jax.jit(lambda s: jax.tree.map(lambda x: x + 10, s))(state)
      state['key'] = jax.device_put(
          jax.random.split(jax.random.key(1), 8), place('data'))
      checkpointer.save(30, state, {})
      after = checkpointer.restore(state).state
      assert after['key'].sharding == state['key'].sharding
      assert jnp.all(after['key'] == state['key'])
"""


def test_devices_may_change(tmp_path):
  """One device, then four, then one again; nobody warns."""
  w = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
  like = {'w': jnp.asarray(w), 'step': jnp.int32(20)}
  with Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(20, like, {})
  flags = '--xla_force_host_platform_device_count=4'
  run = start(FOUR_DEVICES, tmp_path, XLA_FLAGS=flags)
  output, _ = run.communicate(timeout=60)
  assert (run.returncode, output) == (0, '')
  like['key'] = jax.random.split(jax.random.key(0), 8)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    state = restore(tmp_path, like).state
  np.testing.assert_array_equal(state['w'], w + 10)
  assert int(state['step']) == 30
  assert jnp.all(state['key'] == jax.random.split(jax.random.key(1), 8))


TWO_PROCESSES = """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.experimental import multihost_utils
    from loopformer.train.checkpoint import Checkpointer
    directory, rank, port = sys.argv[1:]
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(f'localhost:{port}', 2, int(rank))
    mesh = jax.make_mesh(
        (2,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    place = lambda *spec: jax.NamedSharding(mesh, jax.P(*spec))
    make = lambda f, *spec: jax.jit(f, out_shardings=place(*spec))()
    state = {
        'w': make(lambda: jnp.arange(8.0), 'data'),
        'keys': make(lambda: jax.random.split(jax.random.key(0), 4), 'data'),
        'step': make(lambda: jnp.int32(3)),
    }
    with Checkpointer(directory) as checkpointer:
      checkpointer.save(1, state, {})
      checkpointer.wait()
      multihost_utils.sync_global_devices('written')
      after = checkpointer.restore(state).state
    for name in state:
      assert after[name].sharding == state[name].sharding, name
      assert jax.jit(lambda a, b: jnp.all(a == b))(after[name], state[name])
    multihost_utils.sync_global_devices('done')
"""


@pytest.mark.slow
def test_two_processes_save_what_lies_on_both(tmp_path):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  runs = [start(TWO_PROCESSES, tmp_path, rank, port) for rank in (0, 1)]
  for run in runs:
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
  like = {
    'w': np.zeros(8, np.float32),
    'keys': jax.random.split(jax.random.key(1), 4),
    'step': np.int32(0),
  }
  state = restore(tmp_path, like).state
  np.testing.assert_array_equal(state['w'], np.arange(8.0))
  assert jnp.all(state['keys'] == jax.random.split(jax.random.key(0), 4))
