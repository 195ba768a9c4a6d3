"""Tasks that are scored by votes, and a model that casts them."""

import time
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from loopformer import core
from loopformer.evaluate.measure import (
  Subject,
  batches,
  halt_logits,
  plan_of,
  run_rows,
)
from loopformer.tasks.task import Answer
from loopformer.zoo import family as zoo


@runtime_checkable
class Voted(Protocol):
  """A task that asks one thing in many rows, which vote on the answer."""

  def voted(
    self, answer: Answer, *, size: int, rows: int | None = None
  ) -> dict[str, float]:
    """Returns what votes of the first `rows` rows solve, of all for None.

    `answer` makes predictions [N, T] of a batch, with scores [N] by which ties
    are broken, or None. Batches have `size` rows, the last one perhaps fewer.
    """


def measure(
  subject: Subject, task: Voted, *, batch_size: int, rows: int | None = None
) -> dict[str, Any]:
  """What a model's votes solve after as many recurrences as in training.

  As published (arXiv:2506.21734, arXiv:2510.04871) no row stops earlier and
  ties go to the greater mean of sigmoid(q_halt). Models without Q-head give no
  scores.

  Returns:
    What `task.voted` does, `steps`, and `seconds`, compilation included.
  """
  begin, steps = time.perf_counter(), subject.loop.max_steps
  plan = plan_of(subject, core.fixed_steps(), steps, 'sample')

  @jax.jit
  def run(model, rows):
    result, context = run_rows(model, rows, plan)
    logits = model.readout(result.state, context)
    return zoo.answers(model, logits), halt_logits(model, result.state)

  def answer(batch):
    parts = [run(subject.model, part) for part in batches(batch, batch_size)]
    answers_NT, q_N = (
      np.concatenate(column)[: len(batch['ids'])]
      for column in zip(*parts, strict=True)
    )
    has_q = hasattr(subject.model, 'q_head')
    return answers_NT, sigmoid(q_N) if has_q else None

  found = task.voted(answer, size=batch_size, rows=rows)
  return {'steps': steps, **found, 'seconds': time.perf_counter() - begin}


def sigmoid(x_N: Float[np.ndarray, ' N']) -> Float[np.ndarray, ' N']:
  """1 / (1 + exp(-x)) in float64: in float32 large x would tie at 1."""
  return np.exp(-np.logaddexp(0.0, -x_N.astype(np.float64)))
