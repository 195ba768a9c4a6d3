"""Notebooks are generated from a .py beside them, hold no output, and are lean.

That they run is checked by nbmake.
"""

import re

import jupytext
import nbformat
import pytest

from tests.house import repo

COLABS = repo.ROOT / 'colabs'
NOTEBOOKS = sorted(COLABS.glob('*.ipynb'))
EACH = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)


def cells(notebook) -> list[tuple[str, str]]:
  return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def test_each_source_has_its_notebook():
  stems = {path.stem for path in COLABS.glob('*.py')}
  assert stems == {path.stem for path in NOTEBOOKS}


@EACH
def test_notebook_equals_its_source(path):
  source = path.with_suffix('.py')
  assert cells(jupytext.read(source)) == cells(nbformat.read(path, 4))
  assert re.search(r'^# %%', source.read_text(), re.MULTILINE)


@EACH
def test_no_outputs_are_stored(path):
  for cell in nbformat.read(path, 4).cells:
    if cell.cell_type == 'code':
      assert not cell.outputs and cell.execution_count is None


@EACH
def test_first_cell_has_a_title_and_a_badge(path):
  first = nbformat.read(path, 4).cells[0].source
  assert first.startswith('# ')
  assert 'colab.research.google.com/github/' in first
  assert first.count(f'colabs/{path.name}') == 1


@EACH
def test_the_install_leaves_jax_alone(path):
  code = '\n'.join(
    cell.source
    for cell in nbformat.read(path, 4).cells
    if cell.cell_type == 'code'
  )
  installs = re.findall(r'pip.*install.*', code)
  assert installs and all('jax' not in line for line in installs)
  assert not re.search(r'--upgrade|-U\b|curl|wget|\bclass \w+\(nnx', code)
