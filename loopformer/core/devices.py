"""What devices can hold."""

import math
import os
from collections.abc import Sequence
from typing import Any


def memory(devices: Sequence[Any]) -> float:
  """Bytes that devices have together; infinite where they do not say.

  CPU devices share the machine's, whose own limit for a process is not known
  here.
  """
  if devices[0].platform != 'cpu':
    said = [device.memory_stats() or {} for device in devices]
    return sum(one.get('bytes_limit', math.inf) for one in said)
  if not hasattr(os, 'sysconf'):
    return math.inf
  return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def check_memory(what: str, needed: int, devices: Sequence[Any]) -> None:
  """Raises `ValueError` if devices have less memory than something needs."""
  if needed > (held := memory(devices)):
    raise ValueError(
      f'{what} must fit {held / 2**30:.1f} GiB of memory, got '
      f'{needed / 2**30:.1f} GiB.'
    )
