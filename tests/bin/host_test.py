"""What the command lines ask of their host."""

import pathlib

import pytest

from tests.util import run_python

PROGRAM = """
import os
if not {flags}:
  del os.environ['XLA_FLAGS']
import jax
if {early}:
  jax.devices()
from loopformer.bin import host
from loopformer.train.experiment import MeshConfig, TrainConfig
host._cores = lambda: 3
asked = host.spread_over_cores(TrainConfig(
    batch_size={batch}, accumulate={accumulate}, mesh=MeshConfig(data={data})))
print(asked, jax.device_count())
"""


def _devices(devices=1, **fields):
  """What was asked for, and what JAX then sees."""
  known = {'batch': 48, 'accumulate': 1, 'data': -1}
  known |= {'flags': False, 'early': False}
  program = PROGRAM.format(**{**known, **fields})
  return run_python(program, devices=devices).stdout.split()


@pytest.mark.parametrize(
  ('batch', 'accumulate', 'data', 'devices'),
  [
    (48, 1, -1, 3),  # one per core
    (64, 1, -1, 2),  # 3 does not divide 64
    (16, 2, -1, 1),  # 8 rows at once are enough for one device only
    (16, 1, 4, 4),  # the mesh says so
  ],
)
def test_rows_are_spread_over_the_cores(batch, accumulate, data, devices):
  seen = _devices(batch=batch, accumulate=accumulate, data=data)
  assert seen == [str(devices)] * 2


def test_a_device_count_in_the_environment_stays():
  assert _devices(8, flags=True) == ['0', '8']


def test_devices_in_use_stay():
  assert _devices(early=True) == ['0', '1']


HEAP = """
from loopformer.bin import host
kept = host.keep_memory()
import numpy as np
block = np.ones(64 << 20, np.uint8)
middle = block.ctypes.data + block.nbytes // 2
inside = False
for line in open('/proc/self/smaps'):
  if '-' in line.split()[0] and ':' not in line.split()[0]:
    low, high = (int(x, 16) for x in line.split()[0].split('-'))
    inside = low <= middle < high
  elif inside and line.startswith('VmFlags'):
    print(kept, 'hg' in line.split())
"""


@pytest.mark.skipif(
  not pathlib.Path('/sys/kernel/mm/transparent_hugepage').exists(),
  reason='the system has no large pages to ask for',
)
def test_the_heap_is_kept_in_large_pages():
  kept, large = run_python(HEAP, fresh=True).stdout.split()
  assert large == kept
