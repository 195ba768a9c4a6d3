"""loopformer-demo: trains one looped block on 4x4 Sudoku and shows it think."""

import logging
import pathlib
import shutil

from absl import flags

from loopformer.bin import cli, host
from loopformer.train.demo import run_demo
from loopformer.train.experiment import from_dict

NAME = 'loopformer-demo'


def main() -> None:
  """Entry point."""
  cli.launch(NAME, _define, _run)


def _define():
  flags.DEFINE_string('out', 'report', 'Folder of the report and of its runs.')


def _run():
  out = pathlib.Path(flags.FLAGS.out)
  # A demo starts from nothing, not from where the last one ended.
  shutil.rmtree(out / 'runs', ignore_errors=True)
  looped = from_dict(cli.load_config('universal', 'sudoku4'))
  baselines = {
    'feedforward, same parameters': ('feedforward', 'same_parameters'),
    'feedforward, same compute': ('feedforward', 'same_compute'),
  }
  others = {
    name: from_dict(cli.load_config(*where))
    for name, where in baselines.items()
  }
  host.spread_over_cores(looped.train)
  page = run_demo(looped, others, out)
  logging.getLogger('loopformer').info('Report: %s', page)


if __name__ == '__main__':
  main()
