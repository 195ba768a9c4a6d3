"""The stability study as a table and a figure."""

import math
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from loopformer.evaluate.plots import COLOURS, INK, LINE

Record = dict[str, Any]
WHY = ('diverged', 'spiked', 'swelled')
COLUMNS = (
  'injection',
  'bad',
  'by rate',
  *WHY,
  'best loss',
  'at rate',
  'state RMS',
  '10 x deeper',
  'map norm',
)


def line(record: Record) -> str:
  """One run in a few words."""
  why = ', '.join(word for word in WHY if record[word]) or 'well'
  return (
    f'{record["injection"]} rate {record["rate"]:g} seed {record["seed"]}: '
    f'{why}, loss {_number(record["final_loss"]):.3f}, state RMS '
    f'{_number(record["state_rms"]):.3g}, {record["seconds"]:.1f} s'
  )


def by_injection(found: Sequence[Record]) -> list[Record]:
  """Shares of bad runs, the best rate's loss, and medians over all runs.

  The loss is on held-out rows, a mean over seeds at the rate where it is
  least; the map's norm is the largest of a run over training.
  """
  kinds = dict.fromkeys(record['injection'] for record in found)
  return [
    _summary([record for record in found if record['injection'] == kind])
    for kind in kinds
  ]


def _summary(runs):
  rates = sorted({run['rate'] for run in runs})
  at = {rate: [run for run in runs if run['rate'] == rate] for rate in rates}
  losses = {
    rate: statistics.fmean(_all(group, 'heldout_loss'))
    for rate, group in at.items()
  }
  best = min(rates, key=lambda rate: losses[rate])
  largest = (max(map(_number, run['map_norm_at'])) for run in runs)
  return {
    'injection': runs[0]['injection'],
    'runs': len(runs),
    'bad': sum(run['bad'] for run in runs),
    'bad_by_rate': [sum(run['bad'] for run in at[rate]) for rate in rates],
    **{word: sum(run[word] for run in runs) for word in WHY},
    'loss': losses[best],
    'rate': best,
    'state_rms': statistics.median(_all(runs, 'state_rms')),
    'state_rms_deeper': statistics.median(_all(runs, 'state_rms_deeper')),
    'map_norm': statistics.median(largest),
  }


def table(rows: Iterable[Record]) -> str:
  """Markdown, one line for each injection."""
  lines = [COLUMNS, ['---'] * len(COLUMNS)]
  for row in rows:
    lines.append(
      [
        row['injection'],
        f'{row["bad"]}/{row["runs"]}',
        ' '.join(map(str, row['bad_by_rate'])),
        *(str(row[word]) for word in WHY),
        f'{row["loss"]:.3f}',
        f'{row["rate"]:g}',
        *(
          f'{row[name]:.3g}'
          for name in ('state_rms', 'state_rms_deeper', 'map_norm')
        ),
      ]
    )
  return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def figure(path: pathlib.Path, found: Sequence[Record]) -> pathlib.Path:
  """Final loss, state and map by rate: medians over seeds, bad runs crossed.

  Args:
    path: the PNG to write.
    found: records of runs.

  Returns:
    The file written.
  """
  drawing = Figure(figsize=(15, 4), dpi=150, layout='constrained')
  FigureCanvasAgg(drawing)
  deeper = lambda run: run['state_rms_deeper']
  panels = {
    'final loss, nats': lambda run: run['final_loss'],
    'RMS of the state, 10 x deeper (gap: overflow)': deeper,
    "norm of the injection's map": lambda run: run['map_norm_at'][-1],
  }
  for axes, (name, value) in zip(
    drawing.subplots(1, len(panels)), panels.items(), strict=True
  ):
    _panel(axes, found, value)
    axes.set_ylabel(name, color=INK)
  for axes in drawing.axes[1:]:
    axes.set_yscale('log')
  drawing.axes[0].legend(frameon=False, fontsize=8, title='cross: a bad run')
  drawing.savefig(path, format='png')
  return path


def _panel(axes, found, value):
  """One curve for each injection; what is not finite leaves a gap."""
  for i, kind in enumerate(dict.fromkeys(run['injection'] for run in found)):
    runs = [run for run in found if run['injection'] == kind]
    colour, rates = COLOURS[i], sorted({run['rate'] for run in runs})
    points = [(run['rate'], _number(value(run)), run['bad']) for run in runs]
    medians = [
      statistics.median(y for x, y, _ in points if x == rate) for rate in rates
    ]
    axes.plot(rates, medians, color=colour, label=kind)
    for mark, wanted in (('o', False), ('x', True)):
      shown = [(x, y) for x, y, bad in points if bad == wanted]
      if shown:
        axes.plot(*zip(*shown, strict=True), mark, color=colour)
  axes.set_xscale('log')
  axes.set_xlabel('learning rate', color=INK)
  axes.grid(axis='y', color=LINE)


def _all(runs, name):
  return [_number(run[name]) for run in runs]


def _number(value: float | None) -> float:
  """A figure of a record, in which null stands for what is not finite."""
  return math.inf if value is None else value
