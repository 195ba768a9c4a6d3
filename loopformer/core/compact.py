"""A queue of rows through a fixed number of slots, refilled as rows halt.

Masking alone frees no compute: a batch costs what its slowest row costs. Here
a row that has stopped hands its slot to the next one in the queue, so time
follows the mean number of steps. Once the queue is empty, the rows still live
move together into ever smaller buckets.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from loopformer.core import adjoints, rows
from loopformer.core.halting import any_of, fixed_steps
from loopformer.core.loop import iterate
from loopformer.core.types import (
  Cause,
  HaltRule,
  LoopCarry,
  LoopResult,
  Solver,
  StepFn,
)

PyTree = Any


class Program(NamedTuple):
  """The pure functions of a looped model, as a queue needs them.

  Attributes:
    begin: `(params, queue rows) -> (state, context)`, rows in front of both.
    step: one recurrence with args `(params, context)`.
    finish: `(params, state, context) -> outputs`, rows in front; the state
      is the mixed one if the rule weighs states.
    halt: when a row stops.
    cap: recurrences per row at most.
    solver: how to iterate, or None for Picard.
    norm: of the residual, which solvers and some rules read.
  """

  begin: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
  step: StepFn
  finish: Callable[[PyTree, PyTree, PyTree], PyTree]
  halt: HaltRule
  cap: int
  solver: Solver | None = None
  norm: str = 'l2'


class Drained(NamedTuple):
  """What a queue of N rows returns, in the order of the queue."""

  outputs: PyTree
  steps_N: Int[Array, ' N']
  cause_N: Int[Array, ' N']
  residual_N: Float[Array, ' N']
  slot_steps: Int[Array, '']  # recurrences computed, idle slots included


class Slots(NamedTuple):
  """The rows in flight. `index_B` is a row's place in the queue, N if idle."""

  index_B: Int[Array, ' B']
  keys_B: Any
  context: PyTree
  carry: LoopCarry


def drain(
  program: Program,
  params: PyTree,
  queue: PyTree,
  *,
  slots: int,
  keys_N: Any = None,
  every: int = 1,
  smallest: int = 16,
) -> Drained:
  """Runs every row of the queue until it halts; equal to running it alone.

  Args:
    program: the model's functions and its halt rule.
    params: passed to them.
    queue: tree of arrays with N rows in front.
    slots: rows in flight.
    keys_N: one key per row, or None.
    every: recurrences between two refills.
    smallest: buckets shrink by halves down to this many slots.

  Raises:
    ValueError: if `slots`, `every`, `smallest` or the cap is below 1.
  """
  if isinstance(program.halt.count, int) and program.halt.count < 1:
    raise ValueError(f'halt.count must be >= 1, got {program.halt.count}.')
  sizes = {'slots': slots, 'every': every, 'smallest': smallest}
  sizes['cap'] = program.cap
  for name, value in sizes.items():
    if value < 1:
      raise ValueError(f'{name} must be >= 1, got {value}.')
  total = rows.row_shape(queue, 1)[0]
  machine = _Machine(program, params, queue, keys_N, total, every)
  size = min(slots, total)
  work = machine.open(size)
  while True:
    smaller = size // 2
    floor = smaller if smaller >= smallest else 0
    work = machine.run(work, floor)
    if not floor:
      return work.out
    work, size = machine.shrink(work, smaller), smaller


class _Work(NamedTuple):
  slots: Slots
  next: Array
  out: Drained


class _Machine(NamedTuple):
  """Refill, advance and harvest over one queue."""

  program: Program
  params: PyTree
  queue: PyTree
  keys_N: Any
  total: int
  every: int

  def open(self, size: int) -> _Work:
    """The first rows of the queue in `size` slots."""
    index_B = jnp.arange(size)
    slots = self.load(index_B)
    outputs = jax.eval_shape(self.read, slots)
    out = jax.tree.map(
      lambda x: jnp.zeros((self.total,) + x.shape[1:], x.dtype), outputs
    )
    return _Work(slots, jnp.int32(size), Drained(*out, jnp.int32(0)))

  def load(self, index_B: Array) -> Slots:
    """Fresh slots holding the given rows of the queue; N stands for none."""
    place_B = jnp.minimum(index_B, self.total - 1)
    taken = jax.tree.map(lambda x: x[place_B], self.queue)
    keys_B = None if self.keys_N is None else self.keys_N[place_B]
    state, context = self.program.begin(self.params, taken)
    carry = self.iterate(state, context, keys_B, None, 0).carry
    idle = jnp.where(index_B < self.total, Cause.LIVE, Cause.RULE)
    carry = carry._replace(cause_B=idle.astype(jnp.int32))
    return Slots(index_B, keys_B, context, carry)

  def iterate(self, state, context, keys_B, carry, max_steps) -> LoopResult:
    """Up to `max_steps` recurrences of the rows in flight."""
    halt = any_of(self.program.halt, fixed_steps(self.program.cap))
    return iterate(
      self.program.step,
      state,
      (self.params, context),
      halt=halt,
      max_steps=max_steps,
      adjoint=adjoints.none(),
      carry=carry,
      keys=keys_B,
      solver=self.program.solver,
      norm=self.program.norm,
    )

  def read(self, slots: Slots) -> tuple:
    """Outputs, steps, cause and residual of the rows in flight."""
    carry = slots.carry
    result = self.iterate(carry.state, slots.context, slots.keys_B, carry, 0)
    state = result.state if result.mixed is None else result.mixed
    outputs = self.program.finish(self.params, state, slots.context)
    return outputs, carry.steps_B, carry.cause_B, result.residual_B

  def refill(self, work: _Work) -> _Work:
    """Gives every stopped slot the next row of the queue."""
    free_B = work.slots.carry.cause_B != Cause.LIVE
    rank_B = jnp.cumsum(free_B) - 1
    wanted_B = jnp.minimum(work.next + rank_B, self.total)
    index_B = jnp.where(free_B, wanted_B, work.slots.index_B)
    fresh = self.load(index_B.astype(jnp.int32))
    slots = select_rows(free_B, fresh, work.slots)
    upcoming = jnp.minimum(work.next + free_B.sum(), self.total)
    return work._replace(slots=slots, next=upcoming.astype(jnp.int32))

  def harvest(self, work: _Work, stopped_B: Array) -> _Work:
    """Stores what the rows that have just stopped computed."""
    place_B = jnp.where(stopped_B, work.slots.index_B, self.total)
    stored = jax.tree.map(
      lambda all_N, x: all_N.at[place_B].set(x, mode='drop'),
      tuple(work.out[:4]),
      self.read(work.slots),
    )
    return work._replace(out=Drained(*stored, work.out.slot_steps))

  def round(self, work: _Work) -> _Work:
    """Advances all slots, harvests the stopped rows, refills their slots."""
    slots = work.slots
    was_live_B = slots.carry.cause_B == Cause.LIVE
    carry = self.iterate(
      slots.carry.state, slots.context, slots.keys_B, slots.carry, self.every
    ).carry
    made = (carry.t - slots.carry.t) * was_live_B.shape[0]
    out = work.out._replace(slot_steps=work.out.slot_steps + made)
    work = work._replace(slots=slots._replace(carry=carry), out=out)
    stopped_B = was_live_B & (carry.cause_B != Cause.LIVE)
    return jax.lax.cond(
      jnp.any(stopped_B),
      lambda w: self.refill(self.harvest(w, stopped_B)),
      lambda w: w,
      work,
    )

  def run(self, work: _Work, floor: int) -> _Work:
    """Rounds until the queue is empty and at most `floor` rows are live."""

    def busy(work):
      live = jnp.sum(work.slots.carry.cause_B == Cause.LIVE)
      return (live > floor) | (work.next < self.total)

    return jax.lax.while_loop(busy, self.round, work)

  def shrink(self, work: _Work, size: int) -> _Work:
    """Moves the live rows into `size` slots."""
    live_B = work.slots.carry.cause_B == Cause.LIVE
    order_B = jnp.argsort(~live_B, stable=True)[:size]
    return work._replace(slots=take_rows(work.slots, order_B))


def select_rows(mask_B: Array, new: PyTree, old: PyTree) -> PyTree:
  """`rows.select` that leaves the loop's row-free counter `t` as it is."""

  def pick(n, o):
    return jnp.where(rows.expand(mask_B, n), n, o) if n.ndim else o

  return jax.tree.map(pick, new, old)


def take_rows(tree: PyTree, index_B: Array) -> PyTree:
  """Gathers rows of every array that has them."""
  return jax.tree.map(lambda x: x[index_B] if x.ndim else x, tree)
