"""What a command line asks of its host before it computes."""

import ctypes
import math
import os
import sys

import jax

from loopformer.core.rows import parts_of
from loopformer.train.experiment import TrainConfig

# glibc's mallopt: parameter numbers of <malloc.h>.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
LARGEST = 2**31 - 1
HUGEPAGE = 14  # MADV_HUGEPAGE of <sys/mman.h>
PAGE, HEAP = 2 << 20, 1536 << 20  # below LARGEST, or it would be trimmed
ROWS_PER_DEVICE = 8  # fewer make the matrix products of a device too thin


def keep_memory() -> bool:
  """Keeps freed memory in the process, in large pages, instead of returning it.

  On CPU, XLA asks the allocator for the temporaries of every train step, and
  glibc maps large blocks anew each time, so that every page faults in again:
  half of the time of a step, measured. With one arena, no mapped blocks and no
  trimming, the second step finds its memory in place. Costs the peak of memory
  for as long as the process lives. Must be called before threads are started.

  Returns:
    Whether the allocator took it: only glibc on Linux does.
  """
  if not sys.platform.startswith('linux'):
    return False
  try:
    libc = ctypes.CDLL(None)
    mallopt = libc.mallopt
  except (OSError, AttributeError):
    return False
  wanted = {
    ARENA_MAX: 1,
    MMAP_MAX: 0,
    TRIM_THRESHOLD: LARGEST,
    TOP_PAD: 64 << 20,
  }
  kept = all([mallopt(key, value) == 1 for key, value in wanted.items()])
  if kept:
    _ask_for_large_pages(libc)
  return kept


def _ask_for_large_pages(libc):
  """Lets the heap grow by HEAP, which takes no memory yet, in pages of 2 MiB.

  A token that is decoded reads tens of megabytes, whose small pages are more
  than the processor keeps track of: a tenth of its time by median, measured.
  """
  for function in (libc.malloc, libc.sbrk):
    function.restype = ctypes.c_void_p
  start = libc.sbrk(ctypes.c_ssize_t(0))
  libc.free(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(HEAP))))
  start = -(-start // PAGE) * PAGE
  size = libc.sbrk(ctypes.c_ssize_t(0)) - start
  if size >= PAGE:
    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), HUGEPAGE)


def spread_over_cores(train: TrainConfig) -> int:
  """Lets JAX see one CPU device per core, so that cores share a batch by rows.

  Cores that split every single product wait for each other at its end; a
  train step over two cores took 1.3 times as long that way, measured. A mesh
  of given sizes gets that many devices. A count asked for in `XLA_FLAGS`
  stays, and so do devices already in use.

  Args:
    train: of the experiment; its batch is divided, at least 8 rows a device.

  Returns:
    The number of devices asked for, or 0 if it was left as it is.
  """
  if 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', ''):
    return 0
  sizes = (train.mesh.data, train.mesh.fsdp, train.mesh.tensor)
  devices = math.prod(sizes)
  if sizes == (-1, 1, 1):
    rows = train.batch_size // train.accumulate
    devices = parts_of(rows, min(_cores(), rows // ROWS_PER_DEVICE))
  if devices < 1:
    return 0
  try:
    jax.config.update('jax_num_cpu_devices', devices)
  except RuntimeError:  # The devices are already in use.
    return 0
  return devices


def _cores():
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
