"""The repository as data: files, syntax trees and what they import."""

import ast
import functools
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / 'loopformer'


def ignored() -> set[str]:
  """First parts of the paths that git ignores here."""
  lines = (ROOT / '.gitignore').read_text().splitlines()
  return {line.strip('/') for line in lines if line and line[0] != '#'}


def sources() -> list[pathlib.Path]:
  """Every Python file of the repository, generated ones aside."""
  skip = ignored()
  return sorted(
    path
    for path in ROOT.rglob('*.py')
    if not skip & set(path.relative_to(ROOT).parts)
    and '.git' not in path.relative_to(ROOT).parts
  )


def package_sources() -> list[pathlib.Path]:
  """Every Python file of loopformer/."""
  return [path for path in sources() if path.is_relative_to(PACKAGE)]


def name(path: pathlib.Path) -> str:
  """`loopformer/core/loop.py` for messages and test ids."""
  return str(path.relative_to(ROOT))


def module(path: pathlib.Path) -> str:
  """`loopformer.core.loop`; a package goes by its folder."""
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def room(path: pathlib.Path) -> str:
  """`core` for a file of loopformer/core, else the folder at the top."""
  parts = path.relative_to(ROOT).parts
  return parts[1] if parts[0] == 'loopformer' else parts[0]


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
  """The syntax tree of a file."""
  return ast.parse(path.read_text(encoding='utf-8'), filename=str(path))


def nodes(path: pathlib.Path, kind) -> Iterator:
  """The nodes of one kind, or of several, in a file."""
  return (node for node in ast.walk(tree(path)) if isinstance(node, kind))


def imports(path: pathlib.Path) -> set[str]:
  """Absolute names of all that a file imports, at any depth of its code.

  `from a.b import c` gives both `a.b` and `a.b.c`: c may be a module.
  """
  found = set()
  for node in nodes(path, ast.Import):
    found |= {alias.name for alias in node.names}
  for node in nodes(path, ast.ImportFrom):
    base = node.module or ''
    if node.level:
      inside = path.name == '__init__.py'
      here = module(path).split('.')
      here = here[: len(here) + inside - node.level]
      base = '.'.join([*here, base]).rstrip('.')
    found |= {base, *(f'{base}.{alias.name}' for alias in node.names)}
  return found


def assigned(path: pathlib.Path, constant: str):
  """The literal that a file assigns to a name at its top level."""
  for node in tree(path).body:
    if isinstance(node, ast.Assign) and node.targets[0].id == constant:
      return ast.literal_eval(node.value)
  raise KeyError(f'{name(path)} assigns no {constant}.')
