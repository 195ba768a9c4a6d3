"""Train step against the machine's own matrix product.

Ratio: FLOP/s of value-and-gradient through 21 block calls (three times the
forward products, attention included) over the best square float32 product
seen in the same process; `ratio` for the loop unrolled by
`adjoints.full(unroll=21)`, `ratio_rolled` for the default. A step takes a
second and a product a hundredth of it, so on a shared machine the step needs
many tries to meet as quiet a moment. Rows are spread over one CPU device per
core, as `loopformer-train` does.
Command: python -m experiments.benchmarks.roofline
"""

import jax

from loopformer.zoo import FAMILIES

from . import common


def main() -> None:
  """Prints one JSON line; the loop rolled up and unrolled, alternating."""
  common.spread()
  model = FAMILIES['universal'].build(common.model_config(), jax.random.key(0))
  arguments = common.place(model, common.tokens())
  peak = common.matmul_peak()
  best = {1: float('inf'), common.CALLS: float('inf')}
  steps = {unroll: common.train_step(unroll) for unroll in best}
  for _ in range(12):
    for unroll, step in steps.items():
      call = lambda step=step: step(*arguments)
      best[unroll] = min(best[unroll], common.seconds(call, repeats=2))
    peak = max(peak, common.matmul_peak())
  flops = 3 * common.CALLS * common.block_flops()
  rolled, unrolled = (flops / best[unroll] for unroll in best)
  common.report(
    'roofline',
    {
      'step_seconds': best[common.CALLS],
      'step_seconds_rolled': best[1],
      'matmul_gflops': peak / 1e9,
      'ratio': unrolled / peak,
      'ratio_rolled': rolled / peak,
      'target': 0.65,
    },
  )


if __name__ == '__main__':
  main()
