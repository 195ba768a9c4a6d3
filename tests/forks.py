"""Programs run in forks of one process that has imported the package already.

Importing takes seconds, and many tests start a command to see one line of it.
The server imports everything once and starts no backend of JAX; every program
runs in a fork of it, with arguments, environment and output of its own.
"""

import atexit
import functools
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import traceback
from typing import Any, NoReturn

COMMANDS = ('demo', 'evaluate', 'generate', 'plan', 'train', 'verify')


class Server:
  """The process to fork from; one for all tests of a pytest worker."""

  def __init__(self, cwd: str):
    self.process = subprocess.Popen(
      [sys.executable, '-m', __name__],
      cwd=cwd,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    atexit.register(self.process.kill)

  def run(self, request: dict[str, Any], timeout: float) -> int:
    """The exit status of one program; it is killed after `timeout` seconds.

    Raises:
      TimeoutError: if it was killed.
    """
    self.process.stdin.write(json.dumps(request) + '\n')
    self.process.stdin.flush()
    child = int(self.process.stdout.readline())
    ready, _, _ = select.select([self.process.stdout], [], [], timeout)
    if not ready:
      os.kill(child, signal.SIGKILL)
    status = int(self.process.stdout.readline())
    if not ready:
      raise TimeoutError(f'{request["args"]} took over {timeout} seconds.')
    return status


@functools.cache
def server(cwd: str) -> Server:
  """The server of this process, started when it is first wanted."""
  return Server(cwd)


def serve() -> None:
  """Forks once for every request on standard input."""
  for command in COMMANDS:
    importlib.import_module(f'loopformer.bin.{command}')
  for line in sys.stdin:
    child = os.fork()
    if not child:
      become(**json.loads(line))
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)


def become(
  path: str, args: list[str], env: dict[str, str], out: str, err: str
) -> NoReturn:
  """Turns this process into a fresh interpreter's run of a file."""
  import jax

  for stream, file in ((1, out), (2, err)):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  os.environ.clear()
  os.environ.update(env)
  jax.config.update('jax_platforms', env.get('JAX_PLATFORMS'))
  sys.argv = [path, *args]
  status = _status_of(path)
  threading._shutdown()
  atexit._run_exitfuncs()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def _status_of(path):
  try:
    runpy.run_path(path, run_name='__main__')
  except SystemExit as end:
    if end.code is None or isinstance(end.code, int):
      return end.code or 0
    print(end.code, file=sys.stderr)
    return 1
  except BaseException:
    traceback.print_exc()
    return 1
  return 0


if __name__ == '__main__':
  serve()
