"""The parts of the report page, each from the results to escaped HTML.

A part whose data is missing is the empty string.
"""

import html
from collections.abc import Iterable
from typing import Any

from loopformer.evaluate import charts
from loopformer.evaluate.charts import percent

Results = dict[str, Any]

HEADLINE = 'One small block, applied again and again'
CLAIM = ', solves what a single pass cannot'
# The claim is made where recurrence adds at least this share of puzzles and no
# network without it solves more.
CLAIM_GAIN = 0.1


def render(results: Results) -> str:
  """All parts in their order."""
  parts = (first_screen, stopping, settling, facts)
  return '\n'.join(filter(None, (part(results) for part in parts)))


def headline(results: Results) -> str:
  """The sentence on top; it claims a gain only where the results show one."""
  curve = _exact(results)
  solved = _at_trained(results, curve)
  other = max(map(_share, results.get('baselines', [])), default=0.0)
  once = curve[min(curve)] if curve else 1.0
  claimed = solved >= once + CLAIM_GAIN and solved >= other
  return HEADLINE + (CLAIM if claimed else '')


def lede(results: Results) -> str:
  """Two sentences with the figures that matter most."""
  curve = _exact(results)
  if not curve:
    return html.escape(results.get('task', ''))
  first, trained = min(curve), results.get('trained_depth') or max(curve)
  words = f'On {results["task"]} it ' if results.get('task') else 'It '
  words += f'solves {percent(curve[first])} of unseen puzzles after '
  words += _recurrences(first)
  if trained in curve and trained != first:
    words += f' and {percent(curve[trained])} after {trained}'
  params = results['depth'][0].get('params')
  words += f', with the same {params:,} parameters. ' if params else '. '
  best = max(results.get('baselines', []), key=_share, default=None)
  if best:
    words += 'The best network without recurrence solves '
    words += percent(best['exact'])
    if best.get('params'):
      words += f' with {best["params"]:,} parameters'
    words += '.'
  return html.escape(words)


def first_screen(results: Results) -> str:
  """The board that is solved, beside accuracy against recurrences."""
  board = BOARD if results.get('boards') else ''
  chart = charts.accuracy(results)
  if chart:
    now = '<p class="status" id="accuracy-now" aria-live="off"></p>'
    title = '<h2>All held-out puzzles</h2>'
    chart = f'<section class="panel">{title}{chart}{now}</section>'
  if not board and not chart:
    return ''
  return f'<div class="pair">{board}{chart}</div>'


BOARD = """<section class="panel" id="player">
<h2>One puzzle, recurrence by recurrence</h2>
<div class="stage">
<div id="board" role="img" aria-label="the board"></div>
<div class="aside">
<p class="count"><span id="step">0</span><span id="of"></span></p>
<p class="status" id="status" aria-live="polite"></p>
<ul class="key">
<li><i class="given">4</i>given</li>
<li><i class="sure">4</i>sure</li>
<li><i class="unsure">4</i>unsure</li>
<li><i class="wrong">4</i>wrong</li>
</ul>
</div>
</div>
<div class="scrub">
<p class="caption">change of the state at each recurrence</p>
<div id="strip"></div>
<input id="slider" type="range" min="0" value="0" aria-label="recurrence">
</div>
<div class="buttons">
<button id="play" type="button">Play</button>
<button id="back" type="button" aria-label="one back">&#8592;</button>
<button id="on" type="button" aria-label="one on">&#8594;</button>
<button id="other" type="button">Next puzzle</button>
<span id="which"></span>
</div>
<noscript><p>Stepping through a board needs JavaScript.</p></noscript>
</section>"""


def stopping(results: Results) -> str:
  """What each halt rule costs and gives: a chart and a table."""
  chart = charts.halting(results)
  if not chart:
    return ''
  return (
    '<h2 class="wide">When to stop</h2>'
    f'<p class="wide">{html.escape(_stopping_words(results))}</p>'
    f'<div class="pair">{_panel(chart)}{_panel(_halting_table(results))}</div>'
  )


def _stopping_words(results: Results) -> str:
  words = (
    'Easy puzzles are done after a few recurrences, hard ones need more. '
    'A halt rule decides for each puzzle by itself.'
  )
  rows = [r for r in results['halting'] if r.get('kind') == 'fixed_point']
  fixed = [r for r in results['halting'] if r.get('kind') == 'fixed']
  if rows and fixed:
    rule = max(rows, key=_share)
    best = max(fixed, key=_share)
    words += (
      f' Stopping when the state settles solves {percent(rule["exact"])} with '
      f'{rule["mean_steps"]:.1f} recurrences on average, '
      f'{rule["max_steps"]:g} at most; the best fixed number, '
      f'{best["max_steps"]:g}, solves {percent(best["exact"])}.'
    )
  return words


COLUMNS = (
  ('rule', 'name', str),
  ('solved', 'exact', percent),
  ('mean steps', 'mean_steps', lambda v: f'{v:.1f}'),
  ('max steps', 'max_steps', lambda v: f'{v:g}'),
  ('seconds', 'seconds', lambda v: f'{v:.2f}'),
  ('speed-up', 'speedup', lambda v: f'{v:.2f} ×'),
)
MODEL_COLUMNS = (
  ('model', 'name', str),
  ('parameters', 'params', lambda v: f'{v:,}'),
  ('layers', 'layers', lambda v: f'{v:g}'),
  ('solved', 'exact', percent),
  ('cells right', 'cell', percent),
)


def _halting_table(results: Results) -> str:
  note = '<p class="note">Seconds are wall-clock for all held-out puzzles'
  if any('speedup' in row for row in results['halting']):
    note += '; speed-up is against always running to the cap'
  return table(COLUMNS, results['halting']) + note + '.</p>'


def table(columns, rows: Iterable[dict[str, Any]]) -> str:
  """A table of the columns that any row has; a missing value is a dash."""
  rows = list(rows)
  kept = [c for c in columns if any(row.get(c[1]) is not None for row in rows)]
  head = ''.join(f'<th scope="col">{title}</th>' for title, _, _ in kept)
  body = ''.join(f'<tr>{_cells(kept, row)}</tr>' for row in rows)
  return (
    '<div class="scroll"><table><thead><tr>'
    f'{head}</tr></thead><tbody>{body}</tbody></table></div>'
  )


def _cells(columns, row: dict[str, Any]) -> str:
  shown = [
    html.escape(form(row[key])) if row.get(key) is not None else '–'
    for _, key, form in columns
  ]
  first = f'<th scope="row">{shown[0]}</th>'
  return first + ''.join(f'<td>{value}</td>' for value in shown[1:])


def settling(results: Results) -> str:
  """How much the state still changes, and what is compared with what."""
  chart = charts.residual(results)
  models = _models(results)
  if not chart and not models:
    return ''
  left = right = ''
  if chart:
    words = (
      'Each recurrence takes the state and returns it a little changed. The '
      'line is the median puzzle, the band holds the middle 80 %.'
    )
    left = f'<h2>Does the state settle?</h2><p>{words}</p>{chart}'
  if models:
    right = f'<h2>What is compared</h2>{models}'
  return f'<div class="pair">{_panel(left)}{_panel(right)}</div>'


def _models(results: Results) -> str:
  rows = [_model_row(results, curve) for curve in results.get('depth', [])]
  rows += results.get('baselines', [])
  if not rows:
    return ''
  words = {
    'recurrence': 'one application of the looped block to its own output',
    'trained with': 'the number of recurrences that training used',
    'without recurrence': 'layers stacked, each with weights of its own',
    'state change': 'size of new state minus old, over size of new',
  }
  items = ''.join(f'<dt>{k}</dt><dd>{v}</dd>' for k, v in words.items())
  return table(MODEL_COLUMNS, rows) + f'<dl>{items}</dl>'


def _model_row(results: Results, curve: dict[str, Any]) -> dict[str, Any]:
  """A looped model at the depth it was trained with."""
  row = {'name': curve['name'], 'params': curve.get('params')}
  for point in curve.get('points', []):
    if point['steps'] == results.get('trained_depth'):
      name = f'{curve["name"]}, {_recurrences(point["steps"])}'
      return {**row, **point, 'name': name}
  return row


def facts(results: Results) -> str:
  """Protocol, machine, date, times and the exact command."""
  seconds = results.get('seconds', {})
  rows = [(f'{name} took', duration(value)) for name, value in seconds.items()]
  for key in ('machine', 'date'):
    if results.get(key):
      rows.append((key, results[key]))
  body = ''.join(
    f'<li>{html.escape(line)}</li>' for line in results.get('protocol', [])
  )
  body = f'<h3>Held out</h3><ul>{body}</ul>' if body else ''
  listed = ''.join(
    f'<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>'
    for key, value in rows
  )
  right = f'<h3>This run</h3><dl>{listed}</dl>' if listed else ''
  if results.get('command'):
    right += f'<pre><code>{html.escape(results["command"])}</code></pre>'
  if not body and not right:
    return ''
  return f'<footer class="pair"><div>{body}</div><div>{right}</div></footer>'


def duration(seconds: float) -> str:
  """103.4 to `1 min 43 s`."""
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest} s' if minutes else f'{seconds:.1f} s'


def _panel(content: str) -> str:
  return f'<section class="panel">{content}</section>' if content else ''


def _recurrences(count: int) -> str:
  return f'{count} recurrence' + ('s' if count != 1 else '')


def _share(row: dict[str, Any]) -> float:
  return row['exact']


def _exact(results: Results) -> dict[int, float]:
  """Steps to share solved of the first looped model."""
  curves = results.get('depth', [])
  points = curves[0].get('points', []) if curves else []
  return {point['steps']: point['exact'] for point in points}


def _at_trained(results: Results, curve: dict[int, float]) -> float:
  best = max(curve.values(), default=0.0)
  return curve.get(results.get('trained_depth', -1), best)
