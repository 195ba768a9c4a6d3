"""loopformer-verify: checks every file of every checkpoint of a run."""

import pathlib

from absl import flags

from loopformer.bin import cli
from loopformer.train import checkpoint

NAME = 'loopformer-verify'


def main() -> None:
  """Entry point."""
  cli.launch(NAME, _define, _run)


def _define():
  flags.DEFINE_string('workdir', None, 'A run, as loopformer-train wrote it.')


def _run():
  directory = pathlib.Path(cli.required('workdir')) / 'checkpoints'
  if not directory.is_dir():
    raise ValueError(f'workdir must hold checkpoints, got {directory}.')
  problems = checkpoint.verify_directory(directory)
  for line in problems:
    print(line)
  count = len(checkpoint.steps(directory))
  print(f'{count} checkpoints, {len(problems)} problems.')
  return 1 if problems else 0


if __name__ == '__main__':
  main()
