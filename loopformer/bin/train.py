"""loopformer-train: trains an experiment; the same command resumes it."""

import logging

from absl import flags

from loopformer.bin import cli, host
from loopformer.train.experiment import from_dict
from loopformer.train.loop import train

NAME = 'loopformer-train'


def main() -> None:
  """Entry point."""
  cli.launch(NAME, _define, _run)


def _define():
  cli.define_config()
  flags.DEFINE_string(
    'workdir', None, 'Where the run lives; by default runs/FAMILY-TASK.'
  )


def _run():
  experiment = from_dict(cli.required('config').to_dict())
  host.spread_over_cores(experiment.train)
  default = f'runs/{experiment.family}-{experiment.task_name}'
  workdir = flags.FLAGS.workdir or default
  outcome = train(experiment, workdir)
  logger = logging.getLogger('loopformer')
  if outcome.interrupted:
    logger.info('Stopped by a signal; the same command goes on.')
    return cli.INTERRUPTED
  logger.info('Measure it: loopformer-eval --workdir=%s', workdir)
  return 0


if __name__ == '__main__':
  main()
