"""Compiled temporary memory at 64 recurrences over 4, by adjoint.

Constant for `last_k` and `implicit`; for `full` with every step recomputed it
grows by one state a recurrence.
Command: python -m experiments.benchmarks.memory
"""

import jax

from loopformer import core, zoo
from loopformer.core import adjoints
from loopformer.zoo import FAMILIES

from . import common

DEPTHS = (4, 64)
TARGETS = {
  'last_k': 1.1,
  'implicit': 1.1,
  'full_remat_1': 3.0,
  'full_remat_8': 3.0,
}


def plan(name: str, calls: int) -> zoo.Plan:
  """A plan of that adjoint."""
  if name == 'implicit':
    return zoo.Plan(core.fixed_point(1e-3), calls, adjoints.implicit())
  chosen = {
    'last_k': lambda: adjoints.last_k(4),
    'full_remat_1': lambda: adjoints.full(remat=1),
    'full_remat_8': lambda: adjoints.full(remat=8),
    'full': adjoints.full,
  }[name]()
  return common.plan(calls, chosen)


def temporary_bytes(name: str, calls: int) -> int:
  """What the compiled train step allocates besides inputs and outputs."""
  model = FAMILIES['universal'].abstract(common.model_config())
  shape = jax.ShapeDtypeStruct((common.BATCH, common.TOKENS), 'int32')
  step = jax.jit(jax.value_and_grad(common.loss_function(plan(name, calls))))
  compiled = step.lower(model, shape, shape).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
  """Prints one JSON line."""
  figures = {}
  for name in (*TARGETS, 'full'):
    few, many = (temporary_bytes(name, depth) for depth in DEPTHS)
    figures[name] = {
      'megabytes_at_4': few / 1e6,
      'megabytes_at_64': many / 1e6,
      'ratio': many / few,
      'target': TARGETS.get(name),
    }
  common.report('memory', figures)


if __name__ == '__main__':
  main()
