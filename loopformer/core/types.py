"""The nouns of the loop: what a step is told, what a rule sees, what returns.

A *row* is what halts on its own: a sample (`row_ndim=1`, shape [B]) or a token
(`row_ndim=2`, shape [B, T]). Every array of a state has the row axes in front.
Below, the letter B in `steps_B` stands for those row axes.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

PyTree = Any
Keys = Any
StepFn = Callable[..., tuple[PyTree, PyTree]]


class Cause(enum.IntEnum):
  """Why a row stopped; `LIVE` while it runs."""

  LIVE = 0
  CONVERGED = 1  # a fixed point of the state
  RULE = 2  # any other halt rule
  CAP = 3  # out of steps: the only cause from which a loop can be continued
  NON_FINITE = 4  # the next state held NaN or infinity; the last finite is kept


class LoopInfo(NamedTuple):
  """What a step is told besides its state.

  Attributes:
    t: iterations of the loop so far, one number for all rows.
    steps_B: recurrences this row has made before this one. Equals `t` unless
      rows started at different times or were given different depths.
    live_B: rows whose new state will be kept.
    keys_B: one key per row, folded from the row's own key and `steps_B`, or
      None when the loop was given no keys.
  """

  t: Int[Array, '']
  steps_B: Int[Array, '*rows']
  live_B: Bool[Array, '*rows']
  keys_B: Keys


class Seen(NamedTuple):
  """What a halt rule sees of one recurrence.

  Attributes:
    old: the state z before the step.
    new: the state after the solver's update.
    mapped: f(z), the undamped map; equal to `new` for the Picard solver.
    residual_B: ||f(z) - z|| / ||f(z)||, of the undamped map.
    args: the step's differentiable arguments.
    info: the step's `LoopInfo`.
    solver: the solver's state after its update.
  """

  old: PyTree
  new: PyTree
  mapped: PyTree
  residual_B: Float[Array, '*rows']
  args: PyTree
  info: LoopInfo
  solver: PyTree


class HaltRule(NamedTuple):
  """When a row stops: two pure functions, as an optax transformation is.

  Attributes:
    init: `Seen` before the first step (old = new = mapped, residual infinite)
      to the rule state, an array tree with the rows in front.
    update: `(rule_state, Seen) -> (rule_state, halt_B, weight_B)`. `halt_B` is
      bool, or int32 `Cause`s where several rules are combined. `weight_B` is
      the share of this step in the mixed output, or None. The loop gives the
      step at which a row stops, for whatever cause, all that is left to one.
    cause: what a bool `halt_B` means.
    count: steps after which the rule stops a row for sure, where that is known
      before the loop: a number or one number per row.
    counts_only: whether `count` alone decides.
    period: behind `count` the rule stops a row for sure at every multiple.
  """

  init: Callable[[Seen], PyTree]
  update: Callable[[PyTree, Seen], tuple[PyTree, Any, Any]]
  cause: Cause = Cause.RULE
  count: Any = None
  counts_only: bool = False
  period: int = 1


class Solver(NamedTuple):
  """How the next iterate is made of f(z).

  Attributes:
    init: `(state, row_ndim) -> solver_state`, rows in front.
    update: `(solver_state, old, mapped, residual_B) -> (solver_state, new)`.
    best: None if the last iterate is the result; otherwise
      `solver_state -> (state, residual_B)`, the best iterate evaluated so far.
      The loop then evaluates f once more at the last iterate, which has no
      residual yet, and returns the better of the two with its residual.
  """

  init: Callable[[PyTree, int], PyTree]
  update: Callable[..., tuple[PyTree, PyTree]]
  best: Callable[[PyTree], tuple[PyTree, Any]] | None = None


class LoopCarry(NamedTuple):
  """All that a loop remembers between two recurrences; rows in front.

  Attributes:
    t: iterations so far.
    state: the current iterate.
    solver: solver state.
    rule: halt rule state.
    steps_B: recurrences made per row.
    cause_B: `Cause` per row, int32.
    residual_B: relative residual of the last recurrence each row made.
    mixed: weighted sum of the states so far, or None.
    weight_B: sum of the weights so far, or None.
  """

  t: Int[Array, '']
  state: PyTree
  solver: PyTree
  rule: PyTree
  steps_B: Int[Array, '*rows']
  cause_B: Int[Array, '*rows']
  residual_B: Float[Array, '*rows']
  mixed: PyTree
  weight_B: Any


class Trace(NamedTuple):
  """What a traced loop recorded, one entry per iteration in front.

  Attributes:
    values: what the trace function returned.
    live_RB: rows that made this recurrence.
    residual_RB: their relative residual; of halted rows, the last one made.
    weight_RB: the share of this step in the mixed output (zero once halted).
  """

  values: PyTree
  live_RB: Bool[Array, 'R *rows']
  residual_RB: Float[Array, 'R *rows']
  weight_RB: Any


class LoopResult(NamedTuple):
  """What a loop returns.

  Attributes:
    state: the final state of every row.
    mixed: sum_t w_t z_t with sum_t w_t = 1, or None if the rule has no weights.
    steps_B: recurrences each row made, int32.
    cause_B: why it stopped, int32 values of `Cause`.
    residual_B: relative residual of the undamped map, per row.
    aux: what the step threaded through the loop.
    trace: a `Trace`, or None.
    carry: a `LoopCarry`; `iterate(..., carry=carry)` goes on from here.
  """

  state: PyTree
  mixed: PyTree
  steps_B: Int[Array, '*rows']
  cause_B: Int[Array, '*rows']
  residual_B: Float[Array, '*rows']
  aux: PyTree
  trace: Any
  carry: LoopCarry
