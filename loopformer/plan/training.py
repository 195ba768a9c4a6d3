"""FLOPs of a training step: what runs forward, backward and again.

The gradient of a matrix product is two products of its size, so a part that is
differentiated costs three times its forward pass. What an adjoint cuts off
costs its forward pass alone; what is rematerialised, one more. Linear solves
of Anderson acceleration are not counted.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from loopformer.nn.config import require
from loopformer.nn.q_learning import halt_and_continue_terms
from loopformer.plan.cost import Cost
from loopformer.plan.outline import Outline, total
from loopformer.zoo.choices import (
  HALT_RULES,
  ROW_HEADS,
  Spec,
  make_rule,
  make_solver,
)

FIXED: Spec = {'name': 'fixed_steps'}
PICARD: Spec = {'name': 'picard'}
# Rules that weigh the state of every recurrence, and so train their head.
MIXING = ('act', 'ponder')
# Objectives that read out every recurrence; the last once more, for metrics.
READ_ALWAYS = ('every', 'expected', 'expected_exit')
# Rules that read their head once more, before the first recurrence.
READ_FIRST = ('argmax',)


class Schedule(NamedTuple):
  """How often a recurrence runs in a training step.

  Attributes:
    free: forward alone.
    gradient: forward and backward.
    again: forward once more, in the backward pass.
    through: backward to the state alone, as an implicit solve does; at most.
    last: whether those with gradient are the last of the loop, not others
      behind it.
  """

  free: int
  gradient: int
  again: int = 0
  through: int = 0
  last: bool = True


class Use(NamedTuple):
  """A part, and how often products of its size are made.

  Backward that is twice for each time it is differentiated, once where either
  its input or its weights are constant.
  """

  cost: Cost
  forward: int
  backward: int = 0
  again: int = 0


class TrainingCost(NamedTuple):
  """FLOPs of a training step for one row.

  Attributes:
    forward: of every part, once for each time it is called.
    backward: two products for each that is differentiated.
    again: what is rematerialised; the compiler may spare the last product of
      a recurrence, which nothing reads.
  """

  forward: Cost
  backward: Cost
  again: Cost

  @property
  def total(self) -> Cost:
    """All of it."""
    return self.forward + self.backward + self.again


def schedule_of(
  adjoint: Spec, recurrences: int, *, counted: bool = True
) -> Schedule:
  """The schedule of an adjoint of `loopformer.zoo.choices`.

  Args:
    adjoint: its name and arguments.
    recurrences: R, that are run; rows that stop before are masked, not spared.
    counted: whether the halt rule only counts. If not, adjoints that keep the
      last recurrences find these by a first run of all.
  """
  require('recurrences', recurrences, at_least=1)
  name, remat = adjoint['name'], bool(adjoint.get('remat', 0))
  if name == 'none':
    return Schedule(recurrences, 0)
  if name == 'full':
    return Schedule(0, recurrences, recurrences * remat)
  if name == 'phantom':
    k = adjoint['k']
    return Schedule(recurrences, k, k * remat, last=False)
  if name == 'implicit':
    # Linearised for the solve and for the arguments: twice forward, unless
    # every transpose makes its own.
    most = adjoint.get('max_steps', 100)
    free = recurrences - 1 if remat else recurrences + 1
    return Schedule(free, 1, (most + 1) * remat, most, last=False)
  kept = min(adjoint.get('k', 1), recurrences)
  free = adjoint.get('free_steps')
  free = recurrences - kept if free is None else min(free, recurrences)
  search = 0 if counted else recurrences
  return Schedule(free + search, kept, kept * remat)


def training_cost(
  outline: Outline,
  recurrences: int,
  *,
  adjoint: Spec,
  halt: Spec = FIXED,
  solver: Spec = PICARD,
  objective: str = 'last',
  terms: Callable | None = None,
  rows: str = 'sample',
) -> TrainingCost:
  """FLOPs of loss and gradient for one row.

  Args:
    outline: the model at the length of its inputs.
    recurrences: R; under deep supervision those of one segment.
    adjoint: the gradient rule.
    halt: the halt rule, whose head is read after every recurrence.
    solver: how to iterate; one that returns its best iterate applies the map
      once more to compare.
    objective: see `TrainConfig`.
    terms: the family's own terms under supervision, see `Family.terms`.
    rows: what halts, a `sample` or a `token`.
  """
  if objective == 'exit_gate':
    return _gate_alone(outline, recurrences)
  plan = schedule_of(adjoint, recurrences, counted=_counts_only(halt))
  uses = [
    Use(outline.read, 1, 2),
    Use(outline.numbers, 0, -1),
    *_recurrences(outline, plan, recurrences),
    *_heads(outline, plan, halt, rows),
    *_losses(outline, plan, objective, terms),
  ]
  if objective == 'supervision' and terms is halt_and_continue_terms:
    uses += _ahead(outline, recurrences, halt, rows)
  if make_solver(solver).best is not None:
    uses.append(Use(outline.step(), 1))
  # A transpose to the state alone spares the products with inputs.
  step = outline.step()
  solve = Cost(step.weights, 2 * step.attention, 2 * step.unmasked)
  return _summed([*uses, Use(solve, 0, plan.through)])


def _summed(uses) -> TrainingCost:
  return TrainingCost(
    forward=total(use.forward * use.cost for use in uses),
    backward=total(use.backward * use.cost for use in uses),
    again=total(use.again * use.cost for use in uses),
  )


def _gate_alone(outline, recurrences) -> TrainingCost:
  """Every recurrence is run and read out; the gate alone has a gradient.

  The room for what is read is made by one more, and the metrics by another.
  """
  return _summed(
    [
      Use(outline.read, 1),
      Use(outline.step(), recurrences),
      Use(outline.write, recurrences + 2),
      Use(outline.heads['halt_token'], recurrences, recurrences),
    ]
  )


def _recurrences(outline, plan, recurrences) -> Iterator[Use]:
  """All of them, and those with gradient: the last ones, or further ones."""
  yield Use(outline.step(), plan.free + plan.gradient, 0, plan.again)
  first = recurrences - plan.gradient if plan.last else recurrences
  for t in range(first, first + plan.gradient):
    yield Use(outline.backward(t), 0, 2)


def _heads(outline, plan, halt, rows) -> Iterator[Use]:
  """What the halt rule reads; a head whose output weighs states is trained."""
  made = plan.free + plan.gradient
  for rule in rules_of(halt):
    head = head_of(outline, rule, rows)
    if head is not None:
      trained = rule in MIXING
      back = 2 * trained * plan.gradient, trained * plan.again
      yield Use(head, made + (rule in READ_FIRST), *back)


def _losses(outline, plan, objective, terms) -> Iterator[Use]:
  """Read-outs of the loss, and the Q-terms of deep supervision."""
  if objective in READ_ALWAYS:
    yield Use(outline.write, plan.gradient + 1, 2 * plan.gradient, plan.again)
  else:
    yield Use(outline.write, 1, 2)
  if objective == 'expected_exit':
    gate = outline.heads['halt_token']
    yield Use(gate, plan.gradient, 2 * plan.gradient, plan.again)
  if objective == 'supervision' and terms is not None:
    yield Use(outline.heads['q'], 1, 2)


def _ahead(outline, recurrences, halt, rows) -> Iterator[Use]:
  """One more segment under the same rule, without gradient, and its Q-value."""
  yield Use(outline.step(), recurrences)
  yield Use(outline.heads['q'], 1)
  heads = (head_of(outline, rule, rows) for rule in rules_of(halt))
  yield from (Use(head, recurrences) for head in heads if head is not None)


def rules_of(halt: Spec) -> Iterator[str]:
  """Names of the rules that a spec is made of."""
  yield halt['name']
  inner = [*halt.get('rules', ()), *filter(None, [halt.get('rule')])]
  for spec in inner:
    yield from rules_of(spec)


def head_of(outline: Outline, rule: str, rows: str) -> Cost | None:
  """The head that a rule reads, or None; per token where tokens halt."""
  name = HALT_RULES[rule].head if rule in HALT_RULES else None
  if name is None:
    return None
  per_token = rows == 'token' and name in ROW_HEADS
  return outline.heads[name + '_token' * per_token]


def _counts_only(halt: Spec) -> bool:
  """Whether a rule knows beforehand when it stops a row."""
  read = {entry.head for entry in HALT_RULES.values() if entry.head}
  heads: Any = {name: lambda state, args: None for name in read}
  return make_rule(halt, heads).counts_only
