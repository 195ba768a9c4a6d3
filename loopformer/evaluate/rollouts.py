"""More answers per puzzle at test time, and which of them to believe.

A puzzle is run K times, from other noise at the start or along the path, and
one answer is kept: the one whose Q-head is surest that it is right (PTRM,
arXiv:2605.19943), or the one whose logits moved least at the end (EqR,
arXiv:2605.21488).
"""

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from loopformer import core
from loopformer.core import adjoints
from loopformer.core.rows import fold_rows, row_keys, select
from loopformer.evaluate.measure import first_rows, halt_logits
from loopformer.nn.config import require
from loopformer.nn.position import path_noise
from loopformer.tasks import Batch, Task
from loopformer.zoo import family as zoo
from loopformer.zoo.choices import LoopConfig, make_solver

LAST = 3  # moves of the logits, at the end, over which they are averaged
SHAKEN = 0x7368  # the stream of this noise, apart from a model's own calls


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig:
  """How a model is rolled out.

  Attributes:
    count: rollouts of every row; 0 for none.
    steps: recurrences of each; 0 for the cap of the halt rules.
    noise: deviation of the noise added between recurrences.
    rows: held-out rows that are rolled out, the first ones.
  """

  count: int = 0
  steps: int = 0
  noise: float = 0.0
  rows: int = 256

  def __post_init__(self):
    require('rows', self.rows, at_least=1)
    for name in ('count', 'steps', 'noise'):
      require(name, getattr(self, name), at_least=0)


class Rollouts(NamedTuple):
  """K answers to each of N rows.

  Attributes:
    answers_NKT: arg-max tokens.
    q_NK: q_halt at the end; NaN for a model without Q-head.
    moved_NK: mean over cells of ||logits - logits before||, over the last
      three moves from one recurrence to the next, or as many as there are. 0
      after a single recurrence, which has none; NaN where the state ceased to
      be finite.
  """

  answers_NKT: Int[np.ndarray, 'N K T']
  q_NK: Float[np.ndarray, 'N K']
  moved_NK: Float[np.ndarray, 'N K']

  def by_q(self) -> Int[np.ndarray, 'N T']:
    """The answer of the highest q_halt.

    Raises:
      ValueError: if the model has no Q-head.
    """
    if np.isnan(self.q_NK).all():
      raise ValueError('rollouts must hold q values, got a model without them.')
    return self._pick(self.q_NK)

  def by_stillness(self) -> Int[np.ndarray, 'N T']:
    """The answer whose logits moved least, the first of equals.

    So the first rollout after a single recurrence.
    """
    return self._pick(-self.moved_NK)

  def _pick(self, score_NK):
    best_N = np.nan_to_num(score_NK, nan=-np.inf).argmax(1)
    return self.answers_NKT[np.arange(len(best_N)), best_N]


def rollouts(
  model: Any,
  batch: Batch,
  *,
  count: int,
  steps: int,
  noise: float = 0.0,
  seed: int = 0,
  batch_size: int = 256,
  loop: LoopConfig | None = None,
) -> Rollouts:
  """Runs every row `count` times for `steps` recurrences.

  Args:
    model: any family's; rollouts differ if its start or its step draws from
      the row's key, or by `noise`.
    batch: N rows.
    count: K.
    steps: recurrences of each.
    noise: deviation sigma of the noise between recurrences,
      z_t = f(z_{t-1} + sigma N(0, 1)) for t >= 2. What is read of z_t has none
      of its own, so `noise` alone tells no rollouts of one recurrence apart. A
      damped solver mixes f with z_{t-1} as it was.
    seed: of all draws; rollout k of a row is the same whatever K is.
    batch_size: runs at a time.
    loop: whose solver and norm are used; by default the state is replaced.

  Raises:
    ValueError: if a number is too small.
  """
  for name, value in {
    'count': count,
    'steps': steps,
    'size': batch_size,
  }.items():
    require(name, value, at_least=1)
  require('noise', noise, at_least=0)
  arrays: dict[str, Any] = dict(batch)
  total = len(arrays['ids']) * count
  rows_M, rollout_M = np.divmod(np.arange(total), count)
  choices = {'steps': steps, 'noise': noise, 'seed': seed}
  run = jax.jit(functools.partial(_run, **choices, loop=loop or LoopConfig()))
  parts = []
  for begin in range(0, total, batch_size):
    index = np.arange(begin, begin + batch_size) % total
    rows = {name: jnp.asarray(x[rows_M[index]]) for name, x in arrays.items()}
    parts.append(run(model, rows, jnp.asarray(rollout_M[index])))
  joined = [np.concatenate(x)[:total] for x in zip(*parts, strict=True)]
  split = [x.reshape(-1, count, *x.shape[1:]) for x in joined]
  return Rollouts(*split)


def rollout_scores(
  model: Any,
  task: Task,
  batch: Batch,
  cfg: RolloutConfig,
  *,
  cap: int,
  metric: str,
  batch_size: int,
  loop: LoopConfig,
) -> dict[str, Any]:
  """Share of rows that are right by each way to choose among K rollouts.

  Args:
    model: any family's.
    task: what scores an answer.
    batch: held-out rows, of which the first `cfg.rows` are rolled out.
    cfg: how many rollouts, and how.
    cap: recurrences of each unless `cfg.steps` says otherwise.
    metric: the score.
    batch_size: runs at a time.
    loop: the model's own.

  Returns:
    one: of a single rollout, the mean over all. any: of a judge who knows the
    answer. by_stillness (of one recurrence: the first rollout), and by_q for
    a model with a Q-head. What was done and the seconds it took, compilation
    included, besides.
  """
  begin = time.perf_counter()
  batch = first_rows(batch, cfg.rows)
  steps = cfg.steps or cap
  made = rollouts(
    model,
    batch,
    count=cfg.count,
    steps=steps,
    noise=cfg.noise,
    batch_size=batch_size,
    loop=loop,
  )
  seconds = time.perf_counter() - begin
  score = lambda answers_NT: task.score(answers_NT, batch)[metric]
  right_KN = np.stack([score(x) for x in made.answers_NKT.swapaxes(0, 1)])
  chosen = {'by_stillness': made.by_stillness()}
  if not np.isnan(made.q_NK).all():
    chosen['by_q'] = made.by_q()
  return {
    **dataclasses.asdict(cfg),
    'steps': steps,
    'rows': len(batch['ids']),
    'one': float(right_KN.mean()),
    'any': float(right_KN.max(0).mean()),
    **{name: float(score(x).mean()) for name, x in chosen.items()},
    'seconds': seconds,
  }


def _run(model, rows, rollout_B, *, steps, noise, seed, loop):
  """Answers, q_halt and movement of one batch of rollouts."""
  keys_B = row_keys(jax.random.key(seed), rows['ids'])
  keys_B = fold_rows(keys_B, rollout_B)
  state, context = zoo.begin(
    model, rows['inputs'], keys_B, puzzles_B=rows.get('puzzles')
  )

  def step(state, aux, args, info):
    aux = _watched(aux, args[0].readout(state, args[1]))
    shaken = _shaken(state, info.keys_B, noise)
    state = select(info.steps_B > 0, shaken, state)
    return zoo.step(state, (), args, info)[0], aux

  logits = model.readout(state, context)
  # Too short for the move away from the start, which falls out.
  recent = jnp.zeros((min(LAST, steps - 1), logits.shape[0]))
  result = core.iterate(
    step,
    state,
    (model, context),
    halt=core.fixed_steps(),
    max_steps=steps,
    adjoint=adjoints.none(),
    solver=make_solver(loop.solver),
    norm=loop.norm,
    aux={'logits': logits, 'moved_KB': recent},
    keys=keys_B,
  )
  seen = _watched(result.aux, model.readout(result.state, context))
  moved_B = jnp.sum(seen['moved_KB'], 0) / max(1, len(recent))
  broken_B = result.cause_B == core.Cause.NON_FINITE
  return (
    zoo.answers(model, seen['logits']),
    halt_logits(model, result.state),
    jnp.where(broken_B, jnp.nan, moved_B),
  )


def _watched(aux: Any, logits: Any) -> dict[str, Any]:
  """The newest logits, and how far the last ones moved."""
  moved_B = jnp.mean(jnp.linalg.norm(logits - aux['logits'], axis=-1), -1)
  recent = jnp.concatenate([aux['moved_KB'], moved_B[None]])[1:]
  return {'logits': logits, 'moved_KB': recent}


def _shaken(state: Any, keys_B: Any, noise: float) -> Any:
  """Every array of the state with noise of its own."""
  if not noise:
    return state
  leaves, tree = jax.tree.flatten(state)
  shaken = [
    (leaf + path_noise(keys_B, SHAKEN + index, leaf, noise)).astype(leaf.dtype)
    for index, leaf in enumerate(leaves)
  ]
  return jax.tree.unflatten(tree, shaken)
