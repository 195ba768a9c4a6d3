"""Reader of ARC's JSON: the merged form and one file per task.

Merged (Kaggle): {task: {train: [{input, output}], test: [{input}]}} with the
answers {task: [grid, ...]} beside it, in the file whose name has 'solutions'
in place of 'challenges'; outputs inside the tests are read too. One file per
task (fchollet/ARC-AGI): {train: ..., test: ...} with outputs, named TASK.json.
"""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from loopformer.tasks.arc_grid import COLOURS, SIDE, Grid

ALLOWED = 'a task is {"train": [{"input", "output"}, ...], "test": [...]}'


class Pair(NamedTuple):
  """Grids of colours 0..9."""

  input: Grid
  output: Grid


class Puzzle(NamedTuple):
  """One ARC task: demonstrations, and tests with their answers."""

  name: str
  train: tuple[Pair, ...]
  test: tuple[Pair, ...]


def read(
  path: str, *, field: str = 'path', side: int = SIDE
) -> tuple[Puzzle, ...]:
  """Reads a file, or every JSON file below a folder, sorted by name.

  Raises:
    FileNotFoundError: nothing there; names `field`.
    ValueError: one line naming the file, the task and what is allowed.
  """
  root = pathlib.Path(path)
  files = [root] if root.is_file() else sorted(root.rglob('*.json'))
  files = [f for f in files if not f.stem.endswith('solutions')]
  if not files:
    raise FileNotFoundError(
      f'{field} must name a JSON file or a folder of them, got {path!r}.'
    )
  found: dict[str, Puzzle] = {}
  origin: dict[str, pathlib.Path] = {}
  for file in files:
    for puzzle in _read_file(file, side):
      if puzzle.name in found:
        raise ValueError(
          f'{file}: task {puzzle.name!r} must come once, it is also in '
          f'{origin[puzzle.name]}.'
        )
      found[puzzle.name], origin[puzzle.name] = puzzle, file
  return tuple(found[name] for name in sorted(found))


def _load(file: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads(file.read_bytes())
  except (ValueError, RecursionError) as error:
    reason = str(error).replace('\n', ' ')
    raise ValueError(f'{file}: must be JSON: {reason}.') from None
  if not isinstance(content, dict) or not content:
    raise ValueError(f'{file}: must be a JSON object with tasks; {ALLOWED}.')
  return content


def _read_file(file: pathlib.Path, side: int) -> list[Puzzle]:
  content = _load(file)
  if isinstance(content.get('train'), list):
    return [_puzzle(f'{file}: task {file.stem!r}', file.stem, content, side)]
  beside = file.with_name(file.name.replace('challenges', 'solutions'))
  if beside != file and beside.is_file():
    answers = _load(beside)
    for name, task in content.items():
      given = answers.get(name)
      _add_answers(f'{beside}: task {name!r}', task, given)
  return [
    _puzzle(f'{file}: task {name!r}', name, task, side)
    for name, task in content.items()
  ]


def _add_answers(where: str, task: Any, answers: Any) -> None:
  tests = task.get('test') if isinstance(task, dict) else None
  if not isinstance(tests, list):
    return  # refused by name when the task itself is read
  if not isinstance(answers, list) or len(answers) != len(tests):
    raise ValueError(f'{where}: must have a list of {len(tests)} grids.')
  for pair, answer in zip(tests, answers, strict=True):
    if isinstance(pair, dict):
      pair['output'] = answer


def _puzzle(where: str, name: str, task: Any, side: int) -> Puzzle:
  parts = []
  for part in ('train', 'test'):
    pairs = task.get(part) if isinstance(task, dict) else None
    if not isinstance(pairs, list) or not pairs:
      raise ValueError(f'{where}: must have pairs in {part!r}; {ALLOWED}.')
    parts.append(
      tuple(
        _pair(f'{where} {part} {index}', pair, side)
        for index, pair in enumerate(pairs)
      )
    )
  return Puzzle(name, *parts)


def _pair(where: str, pair: Any, side: int) -> Pair:
  grids = []
  for key in ('input', 'output'):
    if not isinstance(pair, dict) or key not in pair:
      hint = ' here or in a solutions file' if key == 'output' else ''
      raise ValueError(f'{where}: must have an {key!r}{hint}.')
    grids.append(_grid(f'{where} {key}', pair[key], side))
  return Pair(*grids)


def _grid(where: str, rows: Any, side: int) -> Grid:
  allowed = f'{where}: must be 1 to {side} rows of 1 to {side} colours'
  if not isinstance(rows, list) or not all(isinstance(r, list) for r in rows):
    raise ValueError(f'{allowed}, got no list of lists.')
  widths = {len(row) for row in rows}
  if len(widths) > 1:
    raise ValueError(f'{allowed}, got rows of lengths {sorted(widths)}.')
  width = max(widths, default=0)
  if not (1 <= len(rows) <= side and 1 <= width <= side):
    raise ValueError(f'{allowed}, got {len(rows)} x {width}.')
  for cell in (cell for row in rows for cell in row):
    if type(cell) is not int or not 0 <= cell < COLOURS:
      raise ValueError(
        f'{where}: a colour must be 0 to {COLOURS - 1}, got {str(cell)[:20]!r}.'
      )
  return np.array(rows, np.uint8)
