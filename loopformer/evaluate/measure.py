"""Runs a model over held-out rows under a halt rule, and times it.

Time follows the slowest row of a batch unless rows are compacted, so every
measurement gives mean and maximum steps and the wall-clock time, both for
masked batches and for a refilled queue (`core.compact`).
"""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loopformer import core
from loopformer.core import adjoints, compact
from loopformer.evaluate import writing
from loopformer.tasks import Batch, Task
from loopformer.zoo import family as zoo
from loopformer.zoo.choices import LoopConfig, make_rule, make_solver

Spec = Mapping[str, Any]
READ = (
  'inputs',
  'ids',
  'puzzles',
  'segments',
)  # what a model is given of a batch
# Rules whose output is a weighted sum of states, not one of them.
MIXING = ('act', 'ponder')


class Subject(NamedTuple):
  """A model to be measured, and the heads its halt rules may read."""

  model: Any
  heads: Mapping[str, zoo.Head]
  loop: LoopConfig


class Rows(NamedTuple):
  """What was predicted for N rows, and what it took.

  Attributes:
    predictions_NT: arg-max tokens, or the numbers that are predicted.
    steps_N: recurrences of each row (a mean over tokens where tokens halt).
    cause_N: `core.Cause` of each row.
    residual_N: its last relative residual.
    seconds: wall-clock time of the fastest repetition, compilation excluded.
  """

  predictions_NT: np.ndarray
  steps_N: np.ndarray
  cause_N: np.ndarray
  residual_N: np.ndarray
  seconds: float


@dataclasses.dataclass(frozen=True)
class Runner:
  """A compiled halt rule; `cap` is traced, so one compilation serves all.

  With a `prompt`, tokens behind that many are the model's own (`masked` only).
  """

  subject: Subject
  spec: Spec
  batch_size: int
  seed: int = 0
  prompt: int | None = None

  @functools.cached_property
  def _masked(self) -> Any:
    """`(model, rows, cap) -> per-row results`, jitted."""
    loop = self.subject.loop
    rule = make_rule(self.spec, self.subject.heads, rows=loop.rows)

    def run(model, rows, cap):
      plan = plan_of(self.subject, rule, cap, loop.rows)
      result, context = run_rows(model, rows, plan, seed=self.seed)
      logits = zoo.output_logits(model, result, context)
      return zoo.answers(model, logits), *_per_sample(
        result.steps_B, result.cause_B, result.residual_B
      )

    if self.prompt is None:
      return jax.jit(run)
    return jax.jit(functools.partial(writing.write, run, prompt=self.prompt))

  def masked(self, batch: Batch, cap: int, *, repeats: int = 1) -> Rows:
    """Batch by batch: each batch lasts as long as its slowest row."""
    parts = batches(batch, self.batch_size)
    call = lambda part: self._masked(self.subject.model, part, jnp.int32(cap))
    jax.block_until_ready(call(parts[0]))
    outputs, seconds = _timed(lambda: [call(part) for part in parts], repeats)
    joined = [np.concatenate(column) for column in zip(*outputs, strict=True)]
    return Rows(*(x[: len(batch['ids'])] for x in joined), seconds)

  def traced(self, batch: Batch, cap: int) -> tuple[np.ndarray, Rows]:
    """Predictions after every recurrence up to `cap` [R, N, T], and `Rows`.

    A stopped row keeps its state, so entry r - 1 is what a cap of r returns.
    """
    run = jax.jit(functools.partial(self._trace, cap=cap))
    model, parts = self.subject.model, batches(batch, self.batch_size)
    outputs, seconds = _timed(lambda: [run(model, part) for part in parts], 1)
    count = len(batch['ids'])
    predictions = np.concatenate([out[0] for out in outputs], 1)[:, :count]
    columns = zip(*(out[1] for out in outputs), strict=True)
    rows = [np.concatenate(column)[:count] for column in columns]
    return predictions, Rows(predictions[-1], *rows, seconds)

  def _trace(self, model, rows, *, cap):
    loop = self.subject.loop
    rule = make_rule(self.spec, self.subject.heads, rows=loop.rows)
    plan = plan_of(self.subject, rule, cap, loop.rows)

    def trace(state, args, info):
      del info
      return zoo.answers(args[0], args[0].readout(state, args[1]))

    result, _ = run_rows(model, rows, plan, seed=self.seed, trace=trace)
    return result.trace.values, _per_sample(
      result.steps_B, result.cause_B, result.residual_B
    )

  def compacted(self, batch: Batch, cap: int, *, repeats: int = 1) -> Rows:
    """One queue through `batch_size` slots, refilled as rows halt."""
    run = jax.jit(functools.partial(self._drain, cap=cap))
    model = self.subject.model
    rows = {name: jnp.asarray(x) for name, x in _read(batch).items()}
    compiled = run.lower(model, rows).compile()
    outputs, seconds = _timed(lambda: compiled(model, rows), repeats)
    return Rows(*outputs, seconds)

  def _drain(self, model, rows, *, cap):
    loop = self.subject.loop

    def begin(model, taken):
      rows, keys_B = taken
      return zoo.begin(
        model,
        rows['inputs'],
        keys_B,
        puzzles_B=rows.get('puzzles'),
        segments_BT=rows.get('segments'),
      )

    program = compact.Program(
      begin=begin,
      step=zoo.step,
      finish=lambda model, state, context: zoo.answers(
        model, model.readout(state, context)
      ),
      halt=make_rule(self.spec, self.subject.heads, rows='sample'),
      cap=cap,
      solver=make_solver(loop.solver),
      norm=loop.norm,
    )
    keys_N = core.row_keys(jax.random.key(self.seed), rows['ids'])
    out = compact.drain(
      program,
      model,
      (rows, keys_N),
      slots=self.batch_size,
      keys_N=keys_N,
      smallest=max(1, self.batch_size // 2),
    )
    return out.outputs, out.steps_N, out.cause_N, out.residual_N


def plan_of(
  subject: Subject, rule: core.HaltRule, max_steps: Any, rows: str
) -> zoo.Plan:
  """A subject's own loop under another rule, without gradients."""
  loop = subject.loop
  solver = make_solver(loop.solver)
  return zoo.Plan(rule, max_steps, adjoints.none(), solver, loop.norm, rows)


def run_rows(
  model: Any,
  rows: Mapping[str, Any],
  plan: zoo.Plan,
  *,
  seed: int = 0,
  trace: Any = None,
) -> tuple[core.LoopResult, Any]:
  """Result and context of a loop over rows, keyed by their ids."""
  return zoo.run(
    model,
    rows['inputs'],
    plan,
    keys_B=core.row_keys(jax.random.key(seed), rows['ids']),
    puzzles_B=rows.get('puzzles'),
    segments_BT=rows.get('segments'),
    trace=trace,
  )


def halt_logits(model: Any, state: Any) -> jax.Array:
  """q_halt of every row; NaN for a model without Q-head."""
  if hasattr(model, 'q_head'):
    return model.q_values(state)[:, 0]
  return jnp.full(len(jax.tree.leaves(state)[0]), jnp.nan)


def _per_sample(steps_B, cause_B, residual_B):
  """Token rows are averaged, their causes and residuals maximised."""
  if steps_B.ndim == 2:
    steps_B, residual_B = jnp.mean(steps_B, -1), jnp.max(residual_B, -1)
    cause_B = jnp.max(cause_B, -1)
  return steps_B, cause_B, residual_B


def _read(batch, names=READ):
  """What a model is given, which of its puzzles a row is of included."""
  return {name: batch[name] for name in names if name in batch}


def batches(
  batch: Batch, size: int, names: Sequence[str] = READ
) -> list[dict[str, jax.Array]]:
  """Equal parts; the last one is filled up with the first row again."""
  count = len(batch['ids'])
  index = np.arange(-(-count // size) * size)
  index = np.where(index < count, index, 0).reshape(-1, size)
  rows = _read(batch, names).items()
  return [{name: jnp.asarray(x[i]) for name, x in rows} for i in index]


def _timed(call, repeats):
  best, outputs = float('inf'), None
  for _ in range(repeats):
    begin = time.perf_counter()
    outputs = jax.block_until_ready(call())
    best = min(best, time.perf_counter() - begin)
  return jax.tree.map(np.asarray, outputs), best


def first_rows(batch: Batch, count: int) -> Batch:
  """The first rows of a batch."""
  arrays: dict[str, Any] = dict(batch)
  return Batch({name: x[:count] for name, x in arrays.items()})


def summary(task: Task, batch: Batch, rows: Rows) -> dict[str, float]:
  """Means of the task's scores, and steps and time."""
  scores = task.score(rows.predictions_NT, batch)
  return {
    **{name: float(np.mean(x)) for name, x in scores.items()},
    'mean_steps': float(np.mean(rows.steps_N)),
    'max_steps': float(np.max(rows.steps_N)),
    'converged': float(np.mean(rows.cause_N == core.Cause.CONVERGED)),
    'non_finite': float(np.mean(rows.cause_N == core.Cause.NON_FINITE)),
    'seconds': rows.seconds,
  }


def spec_label(spec: Spec) -> str:
  """A rule as a short text: `fixed_point rtol=0.1`."""
  arguments = [
    f'{k}={v}' for k, v in spec.items() if k not in ('name', 'rules')
  ]
  parts = [spec_label(rule) for rule in spec.get('rules', ())]
  joined = f'({", ".join(parts)})' if parts else ''
  return ' '.join([str(spec['name']) + joined, *arguments])


def depth_sweep(
  subject: Subject,
  task: Task,
  batch: Batch,
  *,
  specs: Sequence[Spec],
  depths: Sequence[int],
  batch_size: int,
) -> list[dict[str, Any]]:
  """Every rule capped at every depth: one record each.

  One run per rule serves all depths, unless the rule mixes states: then what
  a cap returns is not a state the loop passed through. Nor does it where the
  model writes the tokens it goes on from.
  """
  records, prompt = [], writing.prompt_of(task)
  for spec in specs:
    runner = Runner(subject, spec, batch_size, prompt=prompt)
    alone = spec['name'] in MIXING or prompt is not None
    capped = _capped_runs if alone else _cuts_of_one_run
    for depth, rows in capped(runner, batch, depths):
      record = summary(task, batch, rows)
      del record['seconds']
      records.append({'rule': spec_label(spec), 'steps': depth, **record})
  return records


def _cuts_of_one_run(runner, batch, depths):
  """Each depth as a cut through one traced run."""
  predictions, rows = runner.traced(batch, max(depths))
  for depth in depths:
    cut_N = np.where(rows.steps_N > depth, core.Cause.CAP, rows.cause_N)
    yield (
      depth,
      rows._replace(
        predictions_NT=predictions[depth - 1],
        steps_N=np.minimum(rows.steps_N, depth),
        cause_N=cut_N,
      ),
    )


def _capped_runs(runner, batch, depths):
  """Each depth as a run of its own."""
  for depth in depths:
    yield depth, runner.masked(batch, depth)


def residual_curve(
  subject: Subject, batch: Batch, *, steps: int
) -> list[dict[str, float]]:
  """Quantiles over rows of the relative residual after each recurrence."""
  plan = plan_of(subject, core.fixed_steps(), steps, 'sample')

  @jax.jit
  def run(model, rows):
    result, _ = run_rows(model, rows, plan, trace=lambda *_: ())
    return result.trace.residual_RB

  residual_RB = np.asarray(run(subject.model, _read(batch)))
  levels = np.nanquantile(residual_RB, (0.1, 0.5, 0.9), axis=1)
  return [
    {'step': t + 1, 'p10': float(a), 'median': float(b), 'p90': float(c)}
    for t, (a, b, c) in enumerate(zip(*levels, strict=True))
  ]


def watch(
  subject: Subject, batch: Batch, *, steps: int
) -> tuple[np.ndarray, ...]:
  """Predictions, their probability and the residual after each recurrence.

  Returns:
    predictions [R, B, T], confidence [R, B, T] and residual [R, B].
  """
  plan = plan_of(subject, core.fixed_steps(), steps, 'sample')

  def trace(state, args, info):
    del info
    probabilities = jax.nn.softmax(args[0].readout(state, args[1]), -1)
    return jnp.argmax(probabilities, -1), jnp.max(probabilities, -1)

  @jax.jit
  def run(model, rows):
    result, _ = run_rows(model, rows, plan, trace=trace)
    return *result.trace.values, result.trace.residual_RB

  outputs = run(subject.model, _read(batch))
  return tuple(np.asarray(x) for x in outputs)
