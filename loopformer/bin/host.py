"""What a command line asks of its host before it computes."""

import ctypes
import sys

# glibc's mallopt: parameter numbers of <malloc.h>.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
LARGEST = 2**31 - 1


def keep_memory() -> bool:
  """Keeps freed memory in the process instead of returning it.

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
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError):
    return False
  wanted = {
    ARENA_MAX: 1,
    MMAP_MAX: 0,
    TRIM_THRESHOLD: LARGEST,
    TOP_PAD: 64 << 20,
  }
  return all([mallopt(key, value) == 1 for key, value in wanted.items()])
