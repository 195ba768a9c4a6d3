"""The loop: how to iterate, when to stop, how to differentiate.

    result = iterate(step, state, args, halt=fixed_point(1e-2), max_steps=64,
                     adjoint=last_k(4), solver=picard())

Pure functions on arrays trees; no layer, no model, no config.
"""

from loopformer.core import (
  adjoints,
  compact,
  exits,
  halting,
  ponder,
  q_halting,
  rows,
  sampling,
  solvers,
)
from loopformer.core.adjoints import (
  full,
  implicit,
  last_k,
  none,
  one_step,
  phantom,
)
from loopformer.core.exits import (
  argmax_stable,
  cdf_exceeds,
  entropy_below,
  entropy_stable,
  kl_stable,
)
from loopformer.core.halting import (
  after,
  all_of,
  any_of,
  at_multiples,
  cosine,
  fixed_point,
  fixed_steps,
  second_difference,
  step_size_below,
)
from loopformer.core.loop import iterate
from loopformer.core.ponder import act, ponder_cost
from loopformer.core.q_halting import explore, q_halts, q_halts_over_continue
from loopformer.core.rows import row_keys
from loopformer.core.solvers import anderson, damped, patience_damped, picard
from loopformer.core.types import (
  Cause,
  HaltRule,
  LoopCarry,
  LoopInfo,
  LoopResult,
  Seen,
  Solver,
  Trace,
)

__all__ = [
  'Cause',
  'HaltRule',
  'LoopCarry',
  'LoopInfo',
  'LoopResult',
  'Seen',
  'Solver',
  'Trace',
  'act',
  'adjoints',
  'after',
  'all_of',
  'anderson',
  'any_of',
  'argmax_stable',
  'at_multiples',
  'cdf_exceeds',
  'compact',
  'cosine',
  'damped',
  'entropy_below',
  'entropy_stable',
  'exits',
  'explore',
  'fixed_point',
  'fixed_steps',
  'full',
  'halting',
  'implicit',
  'iterate',
  'kl_stable',
  'last_k',
  'none',
  'one_step',
  'patience_damped',
  'phantom',
  'picard',
  'ponder',
  'ponder_cost',
  'q_halting',
  'q_halts',
  'q_halts_over_continue',
  'row_keys',
  'rows',
  'sampling',
  'solvers',
  'second_difference',
  'step_size_below',
]
