"""The report page: one HTML file that shows what recurrence does.

It opens from disk, asks nothing of a network, and holds no number that is not
in the results it was given.
"""

import html
import importlib.resources
import json
import math
import pathlib
import string
from typing import Any

from loopformer.evaluate import charts, sections

Results = dict[str, Any]


def write_report(path: str | pathlib.Path, results: Results) -> pathlib.Path:
  """Writes the results as one self-contained page.

  Every part may be missing, and is then left out. Shares lie in [0, 1], times
  are in seconds.

  Args:
    path: the file to write, or a folder, which then gets an `index.html`.
    results: plain data with any of
      title, task, command, date, machine: strings;
      seconds: {'train': float, 'evaluate': float};
      protocol: strings, how the held-out part was made;
      trained_depth, cap: recurrences; chance: a share; threshold: a change;
      depth: [{name, params, points: [{steps, exact, cell}]}], ours first;
      baselines: [{name, params, layers, exact, cell}];
      halting: [{name, kind, exact, mean_steps, max_steps, seconds, speedup}],
        kind `fixed` for a fixed depth, speedup against running to the cap;
      residual: [{step, p10, median, p90}];
      boards: [{shape, box, clues, solution, halted_at, steps: [{digits,
        confidence, residual}]}], cells row by row, a clue of 0 is a blank.

  Returns:
    The file written.

  Raises:
    ValueError: a board whose parts do not fit its shape.
  """
  path = pathlib.Path(path)
  if path.suffix != '.html':
    path = path / 'index.html'
  for index, board in enumerate(results.get('boards', [])):
    _check_board(index, board)
  page = string.Template(_asset('index.html')).substitute(
    title=html.escape(results.get('title', 'loopformer')),
    style=_asset('style.css'),
    headline=sections.headline(results),
    lede=sections.lede(results),
    sections=sections.render(results),
    data=embed(_shown(results)),
    script=_asset('script.js'),
  )
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(page, encoding='utf-8')
  return path


def embed(value: object) -> str:
  """JSON that is safe inside a script element: no `<`, `>` or `&` in it.

  What is not finite becomes null.
  """
  written = json.dumps(_finite(value), allow_nan=False)
  for character in '<>&':
    written = written.replace(character, f'\\u{ord(character):04x}')
  return written


def _shown(results: Results) -> Results:
  """What the script needs: the boards, and the curve to mark on."""
  keys = ('boards', 'threshold', 'cap', 'trained_depth')
  shown = {key: results[key] for key in keys if key in results}
  curves = results.get('depth', [])
  points = curves[0].get('points', []) if curves else []
  exact = {str(p['steps']): charts.percent(p['exact']) for p in points}
  return {**shown, 'exact': exact}


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {str(key): _finite(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(item) for item in value]
  if isinstance(value, (bool, str, int)) or value is None:
    return value
  return float(value) if math.isfinite(value) else None


def _check_board(index: int, board: dict[str, Any]) -> None:
  rows, columns = board['shape']
  want = rows * columns
  parts: dict[str, Any] = {k: board[k] for k in ('clues', 'solution')}
  for t, step in enumerate(board['steps']):
    parts[f'steps[{t}].digits'] = step['digits']
    parts[f'steps[{t}].confidence'] = step['confidence']
  for name, cells in parts.items():
    if len(cells) != want:
      raise ValueError(
        f'boards[{index}].{name} must have {want} cells, got {len(cells)}.'
      )


def _asset(name: str) -> str:
  folder = importlib.resources.files('loopformer.evaluate') / 'page'
  return (folder / name).read_text(encoding='utf-8')
