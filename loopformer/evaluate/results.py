"""Everything one evaluation writes: eval.json and its plots."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from loopformer.evaluate import plots
from loopformer.evaluate.measure import (
  Spec,
  Subject,
  depth_sweep,
  first_rows,
  halting_comparison,
  residual_curve,
)
from loopformer.tasks import Task


def measure(
  subject: Subject,
  task: Task,
  *,
  rows: int,
  batch_size: int,
  depths: Sequence[int],
  cap: int,
  rules: Sequence[Spec],
  sweep_rules: Sequence[Spec] | None = None,
) -> dict[str, Any]:
  """Depth sweep under each rule, halting comparison and residual curve.

  Args:
    subject: the trained model.
    task: where held-out rows come from.
    rows: how many of them.
    batch_size: rows at a time.
    depths: caps of the sweep.
    cap: recurrences at most in the comparison.
    rules: halt rules; running to the cap is always among them.
    sweep_rules: rules of the depth sweep; by default the same.
  """
  batch = task.heldout(rows)
  size = min(batch_size, rows)
  few = first_rows(batch, 256)
  always = {'name': 'fixed_steps'}
  swept = rules if sweep_rules is None else sweep_rules
  swept = [always, *(rule for rule in swept if rule['name'] != 'fixed_steps')]
  return {
    'rows': rows,
    'task': task.describe(),
    'trained_depth': subject.loop.max_steps,
    'cap': cap,
    'sweep': depth_sweep(
      subject, task, batch, specs=swept, depths=depths, batch_size=size
    ),
    'halting': halting_comparison(
      subject, task, batch, specs=rules, cap=cap, batch_size=size
    ),
    'residual': residual_curve(subject, few, steps=cap),
  }


def metric_of(results: Mapping[str, Any]) -> str:
  """The score that plots show: exact accuracy where the task has it."""
  return 'exact' if 'exact' in results['sweep'][0] else 'token'


def draw(
  results: Mapping[str, Any], folder: str | pathlib.Path
) -> list[pathlib.Path]:
  """PNG plots of what `measure` returned; lists the files written."""
  folder, metric = pathlib.Path(folder), metric_of(results)
  curves: dict[str, list[Any]] = {}
  for record in results['sweep']:
    curves.setdefault(record['rule'], []).append(record)
  shown = [{**row, 'exact': row[metric]} for row in results['halting']]
  return [
    plots.depth_sweep(
      folder / 'depth_sweep.png',
      curves,
      trained_depth=results['trained_depth'],
      metric=metric,
    ),
    plots.halting_pareto(folder / 'halting.png', shown),
    plots.residual_curve(folder / 'residual.png', results['residual']),
  ]
