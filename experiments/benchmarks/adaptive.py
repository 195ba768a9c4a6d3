"""Adaptive evaluation: halting at a fixed point against running to the cap.

Both on the same held-out boards in one process, for a trained run (by default
the one that `make demo` leaves). Time is given for masked batches, which last
as long as their slowest row, and for a queue whose slots are refilled.
Command: python -m experiments.benchmarks.adaptive [WORKDIR]
"""

import sys

from loopformer.evaluate.measure import halting_comparison
from loopformer.train.restore import restore_run

from . import common

RULES = (
  {'name': 'fixed_point', 'rtol': 0.1},
  {'name': 'argmax', 'patience': 2},
)


def main() -> None:
  """Prints one JSON line."""
  workdir = sys.argv[1] if len(sys.argv) > 1 else 'report/runs/universal'
  run = restore_run(workdir)
  batch = run.task.heldout(5120)
  figures = {}
  for cap in (16, 64):
    always, *rules = halting_comparison(
      run.subject,
      run.task,
      batch,
      specs=RULES,
      cap=cap,
      batch_size=256,
      repeats=3,
    )
    figures[f'cap_{cap}'] = {
      'always': always,
      **{rule['name']: rule for rule in rules},
    }
  common.report('adaptive', figures)


if __name__ == '__main__':
  main()
