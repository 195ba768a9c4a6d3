"""loopformer-eval: depth sweep and halting comparison of a trained run."""

import json
import logging
import pathlib

from absl import flags

from loopformer.bin import cli
from loopformer.evaluate.results import draw, measure_all
from loopformer.train.restore import restore_run

NAME = 'loopformer-eval'


def main() -> None:
  """Entry point."""
  cli.launch(NAME, _define, _run)


def _define():
  flags.DEFINE_string('workdir', None, 'A run, as loopformer-train wrote it.')
  flags.DEFINE_integer(
    'step', None, 'Checkpoint to measure; the newest intact one by default.'
  )
  flags.DEFINE_integer(
    'rows', None, 'Held-out rows; by default as configured.', lower_bound=1
  )
  flags.DEFINE_integer(
    'voters',
    None,
    'Rows that vote where the task is scored by votes; by default all copies '
    'of all tests, 0 for none.',
    lower_bound=0,
  )


def _run():
  workdir = cli.required('workdir')
  run = restore_run(workdir, step=flags.FLAGS.step)
  results = measure_all(
    run.subject,
    run.task,
    run.variations,
    rows=flags.FLAGS.rows or run.eval.rows,
    batch_size=run.eval.batch_size,
    depths=run.eval.depths,
    cap=run.eval.cap,
    rules=run.eval.rules,
    rollouts=run.eval.rollouts,
    voters=flags.FLAGS.voters,
  )
  path = pathlib.Path(workdir) / 'eval.json'
  path.write_text(json.dumps({'step': run.step, **results}, indent=2) + '\n')
  for record in results['halting']:
    print(json.dumps(record))
  if 'votes' in results:
    print(json.dumps(results['votes']))
  files = ', '.join(str(file) for file in [path, *draw(results, workdir)])
  logging.getLogger('loopformer').info('Wrote %s.', files)


if __name__ == '__main__':
  main()
