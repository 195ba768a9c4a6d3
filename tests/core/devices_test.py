"""Memory of devices: shared by those of one CPU, added up for others."""

import math

import jax
import pytest

from loopformer.core import devices


class Fake:
  platform = 'gpu'

  def __init__(self, stats):
    self.memory_stats = lambda: stats


def test_cpu_devices_share_the_memory_of_the_machine():
  found = jax.devices('cpu')
  assert devices.memory(found * 2) == devices.memory(found) > 2**28


def test_accelerators_have_theirs_each():
  known, unknown = Fake({'bytes_limit': 5}), Fake(None)
  assert devices.memory([known, known]) == 10
  assert devices.memory([known, unknown]) == math.inf


def test_what_does_not_fit_is_refused():
  held = [Fake({'bytes_limit': 2**30})]
  devices.check_memory('it', 2**30, held)
  with pytest.raises(ValueError, match='^it must fit 1.0 GiB .* got 2.5 GiB.$'):
    devices.check_memory('it', 5 * 2**29, held)
