"""What the command lines share: flags, configs by path, one-line errors."""

import logging
import os
import pathlib
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

import loopformer
from loopformer.bin.host import keep_memory
from loopformer.train.checkpoint import CheckpointError
from loopformer.train.loop import NonFiniteError

# What a user can cause; anything else is a defect and keeps its traceback.
EXPECTED = (ValueError, OSError, NonFiniteError, CheckpointError, flags.Error)
# What the flag library raises for a wrong override, by kind.
MISTYPED = (*EXPECTED, AttributeError, KeyError, TypeError)
OUT_OF_MEMORY = 'out of memory'  # in the errors of XLA that tell of it
BAD_INPUT = 2
INTERRUPTED = 143  # 128 + SIGTERM


def launch(
  name: str, define: Callable[[], None], run: Callable[[], int | None]
) -> None:
  """Parses flags and runs; what a user did wrong is told in one line.

  Args:
    name: of the command.
    define: defines its flags.
    run: does its work; returns the exit status, None for zero.
  """
  keep_memory()
  define()

  def main(argv: Sequence[str]) -> int | None:
    if len(argv) > 1:
      return fail(name, f'{argv[1]!r} is not an argument; see {name} --help.')
    _quiet()
    try:
      return run()
    except EXPECTED as error:
      return fail(name, error)
    except jax.errors.JaxRuntimeError as error:
      if OUT_OF_MEMORY not in str(error).lower():
        raise
      return fail(name, str(error).splitlines()[0])

  app.run(main, flags_parser=lambda argv: _parse(name, argv))


def _parse(name, argv):
  if {'--help', '-help', '-h'} & set(argv):
    print(sys.modules['__main__'].__doc__ or name)
    print(flags.FLAGS.main_module_help() or flags.FLAGS.get_help())
    sys.exit(0)
  try:
    return flags.FLAGS([argv[0], *map(locate_config, argv[1:])])
  except (AttributeError, KeyError) as error:
    sys.exit(fail(name, _named(error, argv)))
  except MISTYPED as error:
    sys.exit(fail(name, error))


def _named(error, argv):
  """An error of the flag library with the override or the file it is about."""
  text = str(error).replace('\\', '')
  missing, *near = re.findall(r'[\'"](\w+)[\'"]', text) or ['']
  for argument, following in zip(argv, [*argv[1:], ''], strict=True):
    flag, equals, value = argument.partition('=')
    if flag.lstrip('-') == 'config' and missing == 'config_config':
      path = value if equals else following
      return f'config must be a file with get_config, got {path!r}.'
    if missing in flag.split('.')[1:]:
      hint = f'; did you mean {near[0]!r}?' if near else '.'
      return f'{argument} names no field of the config{hint}'
  return error


def fail(name: str, error: object) -> int:
  """Prints one line; returns the exit status of bad input."""
  text = str(error.args[0] if isinstance(error, KeyError) else error)
  if 'Traceback' in text:  # The flag library quotes what a config file raised.
    text = text.split('Error: ')[-1]
  text = text.replace('\\n', ' ').replace("\\'", "'")
  print(f'{name}: {" ".join(text.split())}', file=sys.stderr)
  return BAD_INPUT


def required(flag: str) -> Any:
  """The value of a flag that must be given.

  Raises:
    ValueError: if it is not.
  """
  value = flags.FLAGS[flag].value
  if value is None:
    raise ValueError(f'--{flag} must be given, got nothing.')
  return value


def _quiet():
  """Our own lines on stderr; of the libraries below, warnings only."""
  absl_logging.set_verbosity(absl_logging.WARNING)
  logger = logging.getLogger('loopformer')
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter('%(message)s'))
  logger.handlers[:] = [handler]
  logger.propagate = False
  logger.setLevel(logging.INFO)


def define_config() -> None:
  """The `--config` flag, locked: an unknown field is refused."""
  config_flags.DEFINE_config_file(
    'config',
    None,
    'Experiment, such as experiments/universal.py:sudoku4. A config file is '
    'Python and is executed.',
    lock_config=True,
  )


def locate_config(argument: str) -> str:
  """`--config=experiments/x.py` works anywhere: shipped configs are found.

  Raises:
    ValueError: if there is no such file.
  """
  flag, equals, value = argument.partition('=')
  if flag.lstrip('-') != 'config' or not equals:
    return argument
  path, colon, variant = value.partition(':')
  return f'{flag}={find_config(path)}{colon}{variant}'


def find_config(path: str) -> pathlib.Path:
  """A config file, here or among those shipped with the package."""
  here = pathlib.Path(path)
  if here.is_file():
    return here
  package = pathlib.Path(loopformer.__file__).parent
  if here.parent.name in ('', 'experiments'):
    for folder in (package / 'experiments', package.parent / 'experiments'):
      if (folder / here.name).is_file():
        return folder / here.name
  raise ValueError(f'config must be an existing file, got {path!r}.')


def load_config(family: str, variant: str) -> dict[str, Any]:
  """A shipped config as a mapping."""
  module = runpy.run_path(os.fspath(find_config(f'experiments/{family}.py')))
  return module['get_config'](variant).to_dict()
