"""What holds when the modules and the commands are run, each in a process."""

import ast

import pytest

from tests import util
from tests.house import repo

SCRIPTS = repo.assigned(repo.ROOT / 'setup.py', 'SCRIPTS')
BINS = [
  path
  for path in repo.package_sources()
  if f'{repo.module(path)}:main' in SCRIPTS.values()
]

# jax is told to use a platform that does not exist, so touching a device while
# being imported fails. A finder stands first in line and notes who asks for
# TensorFlow, installed or not.
IMPORT_ALL = """
import importlib, sys, traceback
asked = []
class Finder:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] == 'tensorflow':
      asked.append(''.join(traceback.format_stack()))
sys.meta_path.insert(0, Finder())
import jax, flax, optax, orbax.checkpoint
before = dict(jax.config.values)
for name in sys.argv[1:]:
  importlib.import_module(name)
after = dict(jax.config.values)
assert after == before, {k: v for k, v in after.items() if before[k] != v}
assert 'tensorflow' not in sys.modules
assert not asked, asked[0]
print(len(sys.argv) - 1, 'modules')
"""


def test_every_module_imports_and_nothing_happens():
  names = [repo.module(path) for path in repo.package_sources()]
  done = util.run_python(
    IMPORT_ALL,
    *names,
    env={'JAX_PLATFORMS': 'no_such_platform'},
    fresh=True,
  )
  assert done.stdout.split()[-2] == str(len(names))


@pytest.mark.parametrize('path', BINS, ids=repo.name)
def test_help_is_printed(path):
  done = util.run_module(repo.module(path), '--help')
  doc = ast.get_docstring(repo.tree(path))
  assert doc.splitlines()[0] in done.stdout
