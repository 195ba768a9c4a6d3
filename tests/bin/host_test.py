"""What the command lines ask of their host."""

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
