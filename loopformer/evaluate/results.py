"""Everything one evaluation writes: eval.json and its plots."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from loopformer.evaluate import halting, plots, voting, writing
from loopformer.evaluate import text as texts
from loopformer.evaluate.comparison import halting_comparison
from loopformer.evaluate.measure import (
  Rows,
  Runner,
  Spec,
  Subject,
  depth_sweep,
  first_rows,
  residual_curve,
)
from loopformer.evaluate.rollouts import RolloutConfig, rollout_scores
from loopformer.tasks import Batch, Rated, Real, Task, Worded

ALWAYS = {'name': 'fixed_steps'}
# What is shown of a task, the first it has: shares, or the error of numbers.
SHOWN = ('exact', 'token', 'error')


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
  study: bool = True,
  rollouts: RolloutConfig | None = None,
  voters: int | None = None,
) -> dict[str, Any]:
  """Depth sweep, halting comparison, residuals; text losses, rollouts, votes.

  Args:
    subject: the trained model.
    task: where held-out rows come from.
    rows: how many of them.
    batch_size: rows at a time.
    depths: caps of the sweep.
    cap: recurrences at most in the comparison.
    rules: halt rules; running to the cap is always among them.
    sweep_rules: rules of the depth sweep; by default the same.
    study: whether rules, if any, are compared with where answers saturate.
    rollouts: how the model is rolled out, if at all.
    voters: rows that vote, all there are for None.
  """
  batch = task.heldout(rows)
  size = min(batch_size, rows)
  swept = rules if sweep_rules is None else sweep_rules
  swept = [ALWAYS, *(rule for rule in swept if rule['name'] != 'fixed_steps')]
  sweep = depth_sweep(
    subject, task, batch, specs=swept, depths=depths, batch_size=size
  )
  results = _facts(subject, task, rows, cap) | {'sweep': sweep}
  metric, note = metric_of(results), lambda rows: {}
  able = writing.prompt_of(task) is None and not isinstance(task, Real)
  if study and rules and able:
    results['study'], note = _study(subject, task, batch, cap, size, metric)
  results['halting'] = halting_comparison(
    subject, task, batch, specs=rules, cap=cap, batch_size=size, note=note
  )
  few = first_rows(batch, 256)
  results['residual'] = residual_curve(subject, few, steps=cap)
  if isinstance(task, Worded):
    results['text'] = texts.measure(
      subject, task, batch, depth=max(depths), batch_size=size
    )
  if rollouts is not None and rollouts.count:
    results['rollouts'] = rollout_scores(
      subject.model, task, batch, rollouts, cap=cap, metric=metric,
      batch_size=size, loop=subject.loop,
    )  # fmt: skip
  if isinstance(task, voting.Voted) and voters != 0:
    how = {'batch_size': size, 'rows': voters}
    results['votes'] = voting.measure(subject, task, **how)
  return results


def _facts(subject: Subject, task: Task, rows: int, cap: int) -> dict[str, Any]:
  """What was measured."""
  return {
    'rows': rows,
    'task': task.describe(),
    'trained_depth': subject.loop.max_steps,
    'cap': cap,
  }


def _study(
  subject: Subject, task: Task, batch: Batch, cap: int, size: int, metric: str
) -> tuple[dict[str, Any], Callable[[Rows], dict[str, Any]]]:
  """The fixed depths up to the cap, and how a rule is compared with them."""
  predictions_RNT, _ = Runner(subject, ALWAYS, size).traced(batch, cap)
  score_R = np.array(
    [task.score(x, batch)[metric].mean() for x in predictions_RNT]
  )
  saturated_N = halting.saturation(predictions_RNT)
  difficulty = task.difficulty(batch) if isinstance(task, Rated) else {}
  compare = lambda steps_N: halting.compare(steps_N, saturated_N, difficulty)
  facts = {
    'metric': metric,
    'fixed': [
      {'steps': t + 1, metric: float(share)} for t, share in enumerate(score_R)
    ],
    **halting.overthinking(score_R, subject.loop.max_steps),
    'saturation': {
      'mean': float(saturated_N.mean()),
      'max': int(saturated_N.max()),
      'spearman': compare(saturated_N)['spearman'],
    },
  }
  return facts, lambda rows: compare(rows.steps_N)


def measure_all(
  subject: Subject, task: Task, variations: Mapping[str, Task], **how: Any
) -> dict[str, Any]:
  """`measure` on the task, and on each varied one under its name."""
  results = measure(subject, task, **how)
  if variations:
    results['variations'] = {
      name: measure(subject, other, **how) for name, other in variations.items()
    }
  return results


def metric_of(results: Mapping[str, Any]) -> str:
  """The score that plots show: exact accuracy where the task has it."""
  return next(name for name in SHOWN if name in results['sweep'][0])


def draw(
  results: Mapping[str, Any], folder: str | pathlib.Path
) -> list[pathlib.Path]:
  """PNG plots of what `measure_all` returned; lists the files written.

  Those of a variation go into a folder of its name.
  """
  folder, metric = pathlib.Path(folder), metric_of(results)
  curves: dict[str, list[Any]] = {}
  for record in results['sweep']:
    curves.setdefault(record['rule'], []).append(record)
  files = [
    plots.depth_sweep(
      folder / 'depth_sweep.png',
      curves,
      trained_depth=results['trained_depth'],
      metric=metric,
    ),
    plots.residual_curve(folder / 'residual.png', results['residual']),
  ]
  if metric != 'error':
    shown = [{**row, 'exact': row[metric]} for row in results['halting']]
    files.append(plots.halting_pareto(folder / 'halting.png', shown))
  if 'text' in results:
    files.append(_draw_losses(results, folder / 'loss.png'))
  if 'study' in results:
    path = folder / 'halting_study.png'
    files.append(
      plots.halting_study(path, results['halting'], results['study'])
    )
  others = results.get('variations', {})
  for name, other in others.items():
    files += draw(other, folder / name)
  if others:
    curves = {
      name: [row for row in one['sweep'] if row['rule'] == ALWAYS['name']]
      for name, one in {'as trained': results, **others}.items()
    }
    path, depth = folder / 'variations.png', results['trained_depth']
    files.append(
      plots.depth_sweep(path, curves, trained_depth=depth, metric=metric)
    )
  return files


def _draw_losses(
  results: Mapping[str, Any], path: pathlib.Path
) -> pathlib.Path:
  """Measured losses, and the fitted curve through all depths if it falls.

  Its limit is drawn where the curve goes half the way to it at least: that of a
  loss which goes on falling says nothing, and may lie far away.
  """
  rows = results['text']['losses']
  curve = texts.curve_of(results['text'])
  if curve is None or curve.scale < 0:
    return plots.loss_curve(path, rows, trained_depth=results['trained_depth'])
  deepest = rows[-1]['steps']
  steps = np.geomspace(1, deepest, 100)
  return plots.loss_curve(
    path,
    rows,
    fitted=[
      {'steps': float(r), 'nats': float(loss)}
      for r, loss in zip(steps, curve.at(steps), strict=True)
    ],
    limit=curve.limit if curve.covered(1, deepest) >= 0.5 else None,
    trained_depth=results['trained_depth'],
  )
