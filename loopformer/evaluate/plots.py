"""PNG plots of an evaluation: plain data in, a file out.

Figures are objects of their own, drawn by Agg: no pyplot state, no display.
"""

import math
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Row = Mapping[str, Any]

INK, SOFT, LINE = '#1b1c1e', '#63656a', '#e2e2dd'
# Blue first, then hues that stay apart for colour-blind readers.
COLOURS = ('#1d5fb4', '#b23a16', '#2f7d5b', '#8a5a9e', '#9a7a1d', '#63656a')
STYLES = ('-', '--', '-.', ':')
MARKERS = 'osD^'  # the next one once all colours are used


def depth_sweep(
  path: str | pathlib.Path,
  curves: Mapping[str, Sequence[Row]],
  *,
  trained_depth: int | None = None,
  levels: Mapping[str, float] | None = None,
  metric: str = 'exact',
) -> pathlib.Path:
  """Accuracy, or error, against recurrences: one curve for each halt rule.

  Args:
    path: the PNG to write.
    curves: name to rows with `steps` and the metric: a share or `error`.
    trained_depth: recurrences in training, marked.
    levels: name to a share, drawn as level lines (baselines).
    metric: what of a row is drawn; an error on a logarithmic axis.

  Returns:
    The file written.
  """
  real = metric == 'error'
  words = (
    'squared error, held out' if real else f'{metric} accuracy, held out, %'
  )
  figure, axes = _figure('recurrences', words)
  scale = 1 if real else 100
  for i, (name, rows) in enumerate(curves.items()):
    rows = sorted(rows, key=lambda row: row['steps'])
    axes.plot(
      [row['steps'] for row in rows],
      [scale * row[metric] for row in rows],
      marker='o',
      markersize=3.5,
      color=COLOURS[i % len(COLOURS)],
      linestyle=STYLES[i // len(COLOURS) % len(STYLES)],
      label=name,
    )
  for name, share in (levels or {}).items():
    axes.axhline(scale * share, color=SOFT, linestyle=':', linewidth=1.2)
    axes.annotate(
      name, (1, scale * share), xycoords=('axes fraction', 'data'), ha='right',
      va='bottom', fontsize=8, color=SOFT,
    )  # fmt: skip
  if trained_depth is not None:
    label = f'trained with {trained_depth}'
    axes.axvline(trained_depth, color=SOFT, linestyle='--', label=label)
  if real:
    axes.set_yscale('log', nonpositive='clip')
  else:
    axes.set_ylim(0, 103)
  _doubling_ticks(axes, [r['steps'] for rows in curves.values() for r in rows])
  return _save(figure, path)


def halting_pareto(
  path: str | pathlib.Path, rows: Sequence[Row]
) -> pathlib.Path:
  """Accuracy against mean recurrences; a thin line reaches to the maximum.

  Args:
    path: the PNG to write.
    rows: `name`, `kind` (`fixed` for a fixed depth), `exact`, `mean_steps` and
      `max_steps` of each rule.

  Returns:
    The file written.
  """
  figure, axes = _figure('recurrences, mean (to maximum)', 'exact accuracy, %')
  fixed = [row for row in rows if row.get('kind') == 'fixed']
  fixed = sorted(fixed, key=lambda row: row['mean_steps'])
  if fixed:
    axes.plot(
      [row['mean_steps'] for row in fixed],
      [100 * row['exact'] for row in fixed],
      color=SOFT,
      marker='o',
      markerfacecolor='white',
      label='fixed depth',
    )
  rules = [row for row in rows if row.get('kind') != 'fixed']
  for i, row in enumerate(rules):
    look, exact = _look(i), 100 * row['exact']
    ends = [row['mean_steps'], row['max_steps']]
    axes.plot(ends, [exact] * 2, color=look['color'], linewidth=0.8)
    axes.plot(ends[:1], [exact], label=_name(row), **look)
  axes.set_xlim(left=0)
  return _save(figure, path)


def halting_study(
  path: str | pathlib.Path, rows: Sequence[Row], study: Row
) -> pathlib.Path:
  """Where rules stop: accuracy, rank correlations, distance to saturation.

  Args:
    path: the PNG to write.
    rows: of each rule `name`, `kind`, `mean_steps`, the metric, `spearman`,
      `saturation_distance` and `saturation_lag`.
    study: `metric`, and `fixed`, the metric at every fixed depth; where known
      `change_at_4x_trained`, which the legend tells.

  Returns:
    The file written.
  """
  figure, (left, middle, right) = _panels(
    ('recurrences, mean', 'rank correlation with steps', 'recurrences'),
    f'{study["metric"]} accuracy, held out, %',
  )
  rules = [row for row in rows if row.get('kind') != 'fixed']
  _accuracy_of_steps(left, rules, study)
  _correlations(middle, rules)
  places = range(len(rules))
  distances = [row['saturation_distance'] for row in rules]
  lags = [row['saturation_lag'] for row in rules]
  right.barh(places, distances, color=LINE, label='from saturation')
  right.plot(lags, places, 'o', color=COLOURS[1], label='too late')
  for axes, named in ((middle, True), (right, False)):
    axes.axvline(0, color=SOFT, linewidth=0.8)
    names = [_name(row) if named else '' for row in rules]
    axes.set_yticks(places, names, fontsize=7)
    axes.set_ylim(len(rules) - 0.5, -0.5)
  return _save(figure, path)


def _correlations(axes: Axes, rules: Sequence[Row]) -> None:
  names = sorted({name for row in rules for name in row['spearman']})
  for i, name in enumerate(names):
    values = [row['spearman'][name] for row in rules]
    shown = [math.nan if value is None else value for value in values]
    axes.plot(shown, range(len(rules)), label=name, **_look(i))


def _accuracy_of_steps(axes: Axes, rules: Sequence[Row], study: Row) -> None:
  metric, fixed = study['metric'], study['fixed']
  steps, shares = ([row[key] for row in fixed] for key in ('steps', metric))
  shares = [100 * share for share in shares]
  label = 'always so many'
  if 'change_at_4x_trained' in study:
    label += f', {100 * study["change_at_4x_trained"]:+.1f} at 4x trained'
  axes.plot(steps, shares, color=SOFT, label=label)
  for i, row in enumerate(rules):
    place = [row['mean_steps']], [100 * row[metric]]
    axes.plot(*place, label=_name(row), **_look(i))
  _doubling_ticks(axes, steps)


def residual_curve(
  path: str | pathlib.Path,
  rows: Sequence[Row],
  *,
  threshold: float | None = None,
) -> pathlib.Path:
  """Relative change of the state at each recurrence: median, p10 to p90.

  Args:
    path: the PNG to write.
    rows: `step`, `p10`, `median`, `p90`; zeros cannot be shown and are left
      out.
    threshold: change below which a row halts, marked.

  Returns:
    The file written.
  """
  figure, axes = _figure('recurrence', 'relative change of the state')
  rows = [row for row in rows if row['median'] > 0]
  steps = [row['step'] for row in rows]
  low, high = ([row[key] for row in rows] for key in ('p10', 'p90'))
  axes.set_yscale('log', nonpositive='clip')
  axes.fill_between(
    steps, low, high, color=COLOURS[0], alpha=0.15, label='p10 to p90'
  )
  medians = [row['median'] for row in rows]
  axes.plot(steps, medians, 'o-', color=COLOURS[0], label='median')
  if threshold is not None:
    label = f'threshold {threshold:g}'
    axes.axhline(threshold, color=COLOURS[1], linestyle='--', label=label)
  return _save(figure, path)


def loss_curve(
  path: str | pathlib.Path,
  rows: Sequence[Row],
  *,
  fitted: Sequence[Row] = (),
  limit: float | None = None,
  trained_depth: int | None = None,
) -> pathlib.Path:
  """Loss of a language model against recurrences, with the curve it follows.

  Args:
    path: the PNG to write.
    rows: `steps` and `nats` per token; None is left out.
    fitted: the same of the fitted curve.
    limit: of that curve, marked.
    trained_depth: recurrences in training, marked.

  Returns:
    The file written.
  """
  figure, axes = _figure('recurrences', 'nats per token, held out')
  rows = [row for row in rows if row['nats'] is not None]
  steps = [row['steps'] for row in rows]
  axes.plot(
    steps,
    [row['nats'] for row in rows],
    'o',
    markersize=3.5,
    color=COLOURS[0],
    label='measured',
  )
  axes.plot(
    [row['steps'] for row in fitted],
    [row['nats'] for row in fitted],
    color=COLOURS[1],
    label='fit' if fitted else '_',
  )
  if limit is not None:
    label = f'limit {limit:.3f}'
    axes.axhline(limit, color=COLOURS[1], linestyle=':', label=label)
  if trained_depth is not None:
    label = f'trained with {trained_depth}'
    axes.axvline(trained_depth, color=SOFT, linestyle='--', label=label)
  _doubling_ticks(axes, steps)
  return _save(figure, path)


def _look(index: int) -> dict[str, str]:
  """How the points of a series look, each another way."""
  turn, colour = divmod(index, len(COLOURS))
  marker = MARKERS[turn % len(MARKERS)]
  return {'color': COLOURS[colour], 'marker': marker, 'linestyle': 'none'}


def _name(row: Row) -> str:
  """The name of a rule, in lines that leave room for the plot."""
  return textwrap.fill(row['name'], 28)


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
  figure, (axes,) = _panels((x_label,), y_label)
  return figure, axes


def _panels(
  x_labels: Sequence[str], y_label: str
) -> tuple[Figure, tuple[Axes, ...]]:
  """Axes side by side, the first of them with a label upwards."""
  size = (6 * len(x_labels), 4)
  figure = Figure(figsize=size, dpi=150, layout='constrained')
  FigureCanvasAgg(figure)
  made = [
    figure.add_subplot(1, len(x_labels), i + 1) for i in range(len(x_labels))
  ]
  for axes, x_label in zip(made, x_labels, strict=True):
    axes.set_xlabel(x_label, color=INK)
    axes.grid(axis='y', color=LINE)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT)
    for side, spine in axes.spines.items():
      spine.set_visible(side == 'bottom')
      spine.set_color(SOFT)
  made[0].set_ylabel(y_label, color=INK)
  return figure, tuple(made)


def _doubling_ticks(axes: Axes, steps: Sequence[int]) -> None:
  if not steps or min(steps) < 1:
    return
  ticks = [2**i for i in range(16) if min(steps) <= 2**i <= max(steps)]
  axes.set_xscale('log', base=2)
  axes.set_xticks(ticks, [str(tick) for tick in ticks])
  axes.minorticks_off()


def _save(figure: Figure, path: str | pathlib.Path) -> pathlib.Path:
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  for axes in figure.axes:
    if axes.get_legend_handles_labels()[1]:
      axes.legend(frameon=False, fontsize=8)
  figure.savefig(path, format='png')
  return path
