"""What several tests need: a Python process of its own, with n fake devices."""

import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from tests import forks

ROOT = pathlib.Path(__file__).parents[1]
# As `python -m`: the help of an absl program is the docstring of its __main__.
RUN = """
import runpy, sys
name = sys.argv.pop(1)
sys.modules.pop(name, None)
runpy.run_module(name, run_name='__main__', alter_sys=True)
"""


def run_python(
  code_or_path: str | pathlib.Path,
  *args: str,
  devices: int = 1,
  timeout: float = 120,
  env: dict[str, str] | None = None,
  check: bool = True,
  fresh: bool = False,
) -> subprocess.CompletedProcess:
  """Runs code, or a file, in a process of its own on `devices` CPU devices.

  The number of devices is fixed when jax starts, so a test on eight of them
  needs a process. The repository is importable in it; annotations are not
  checked there.

  Args:
    code_or_path: a `Path` to run, or source text.
    *args: `sys.argv[1:]` of the process.
    devices: how many CPU devices jax sees.
    timeout: seconds, after which the process is killed.
    env: variables to add.
    check: fail the test on a non-zero exit, showing what was printed.
    fresh: start an interpreter that has imported nothing; otherwise code runs
      in a fork of one that has imported the package (`tests.forks`).

  Returns:
    The finished process, with `stdout` and `stderr` as text.
  """
  flag = f'--xla_force_host_platform_device_count={devices}'
  flags = f'{os.environ.get("XLA_FLAGS", "")} {flag}'.strip()
  paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
  env = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': flags,
    'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    **(env or {}),
  }
  fresh = fresh or isinstance(code_or_path, pathlib.Path)
  start = _start if fresh else _fork
  process = start(code_or_path, args, env, timeout)
  if check and process.returncode:
    raise AssertionError(
      f'exit {process.returncode}\n{process.stdout}\n{process.stderr}'
    )
  return process


def _start(code_or_path, args, env, timeout):
  """In a new interpreter."""
  is_path = isinstance(code_or_path, pathlib.Path)
  command = [str(code_or_path)] if is_path else ['-c', str(code_or_path)]
  return subprocess.run(
    [sys.executable, *command, *args],
    cwd=ROOT,
    env=env,
    timeout=timeout,
    capture_output=True,
    text=True,
  )


def _fork(code, args, env, timeout):
  """In a fork of a prepared one."""
  with tempfile.TemporaryDirectory() as folder:
    names = ('program.py', 'out', 'err')
    path, out, err = (pathlib.Path(folder, name) for name in names)
    path.write_text(code)
    given = {'path': str(path), 'args': args, 'env': env}
    given |= {'out': str(out), 'err': str(err)}
    status = forks.server(str(ROOT)).run(given, timeout)
    texts = out.read_text(), err.read_text()
  return subprocess.CompletedProcess(args, status, *texts)


def run_module(
  name: str, *args: str, **options: Any
) -> subprocess.CompletedProcess:
  """`python -m name args`, as `run_python` runs a program."""
  return run_python(RUN, name, *args, **options)
