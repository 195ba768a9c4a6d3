"""Compile time at 64 recurrences over 4: a loop compiles once.

Command: python -m experiments.benchmarks.compile_time
"""

import time

import jax

from loopformer.zoo import FAMILIES

from . import common

DEPTHS = (4, 64)


def compile_seconds(calls: int) -> float:
  """Lowering and compiling the train step at that many recurrences."""
  model = FAMILIES['universal'].build(common.model_config(), jax.random.key(0))
  inputs, labels = common.tokens()
  step = jax.jit(jax.value_and_grad(common.loss_function(common.plan(calls))))
  begin = time.perf_counter()
  step.lower(model, inputs, labels).compile()
  return time.perf_counter() - begin


def main() -> None:
  """Prints one JSON line; depths alternate, the fastest of each counts."""
  compile_seconds(2)
  best = {depth: float('inf') for depth in DEPTHS}
  for _ in range(5):
    for depth in DEPTHS:
      best[depth] = min(best[depth], compile_seconds(depth))
  few, many = (best[depth] for depth in DEPTHS)
  common.report(
    'compile_time',
    {
      'seconds_at_4': few,
      'seconds_at_64': many,
      'ratio': many / few,
      'target': 1.1,
    },
  )


if __name__ == '__main__':
  # A cached program would compile in no time at all.
  jax.config.update('jax_enable_compilation_cache', False)
  main()
