"""PNG plots of an evaluation: plain data in, a file out.

Figures are objects of their own, drawn by Agg: no pyplot state, no display.
"""

import pathlib
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


def depth_sweep(
  path: str | pathlib.Path,
  curves: Mapping[str, Sequence[Row]],
  *,
  trained_depth: int | None = None,
  levels: Mapping[str, float] | None = None,
  metric: str = 'exact',
) -> pathlib.Path:
  """Accuracy against recurrences, one curve for each halt rule.

  Args:
    path: the PNG to write.
    curves: name to rows with `steps` and the metric, a share.
    trained_depth: recurrences in training, marked.
    levels: name to a share, drawn as level lines (baselines).
    metric: which share of a row is drawn.

  Returns:
    The file written.
  """
  figure, axes = _figure('recurrences', f'{metric} accuracy, held out, %')
  for i, (name, rows) in enumerate(curves.items()):
    rows = sorted(rows, key=lambda row: row['steps'])
    axes.plot(
      [row['steps'] for row in rows],
      [100 * row[metric] for row in rows],
      marker='o',
      markersize=3.5,
      color=COLOURS[i % len(COLOURS)],
      linestyle=STYLES[i // len(COLOURS) % len(STYLES)],
      label=name,
    )
  for name, share in (levels or {}).items():
    axes.axhline(100 * share, color=SOFT, linestyle=':', linewidth=1.2)
    axes.annotate(
      name, (1, 100 * share), xycoords=('axes fraction', 'data'), ha='right',
      va='bottom', fontsize=8, color=SOFT,
    )  # fmt: skip
  if trained_depth is not None:
    label = f'trained with {trained_depth}'
    axes.axvline(trained_depth, color=SOFT, linestyle='--', label=label)
  axes.set_ylim(0, 103)
  _doubling_ticks(axes, [r['steps'] for rows in curves.values() for r in rows])
  return _save(figure, axes, path)


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
    colour, exact = COLOURS[i % len(COLOURS)], 100 * row['exact']
    ends = [row['mean_steps'], row['max_steps']]
    axes.plot(ends, [exact] * 2, color=colour, linewidth=0.8)
    axes.plot(ends[:1], [exact], 'o', color=colour, label=row['name'])
  axes.set_xlim(left=0)
  return _save(figure, axes, path)


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
  return _save(figure, axes, path)


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
  figure = Figure(figsize=(6, 4), dpi=150, layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.add_subplot()
  axes.set_xlabel(x_label, color=INK)
  axes.set_ylabel(y_label, color=INK)
  axes.grid(axis='y', color=LINE)
  axes.set_axisbelow(True)
  axes.tick_params(colors=SOFT)
  for side, spine in axes.spines.items():
    spine.set_visible(side == 'bottom')
    spine.set_color(SOFT)
  return figure, axes


def _doubling_ticks(axes: Axes, steps: Sequence[int]) -> None:
  if not steps or min(steps) < 1:
    return
  ticks = [2**i for i in range(16) if min(steps) <= 2**i <= max(steps)]
  axes.set_xscale('log', base=2)
  axes.set_xticks(ticks, [str(tick) for tick in ticks])
  axes.minorticks_off()


def _save(figure: Figure, axes: Axes, path: str | pathlib.Path) -> pathlib.Path:
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  if axes.get_legend_handles_labels()[1]:
    axes.legend(frameon=False, fontsize=8)
  figure.savefig(path, format='png')
  return path
