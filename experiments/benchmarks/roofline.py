"""Train step against the machine's own matrix product.

Ratio: FLOP/s of value-and-gradient through 21 block calls (three times the
forward products, attention included) over the best square float32 product
seen in the same process; `ratio` for the loop unrolled by
`adjoints.full(unroll=21)`, `ratio_rolled` for the default. Rows are spread over
one CPU device per core, as `loopformer-train` does.
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
  rolled, unrolled = (common.train_step(n) for n in (1, common.CALLS))
  best, peak = common.against_peak(
    {
      'rolled': lambda: rolled(*arguments),
      'unrolled': lambda: unrolled(*arguments),
    }
  )
  flops = 3 * common.CALLS * common.block_flops()
  common.report(
    'roofline',
    {
      'step_seconds': best['unrolled'],
      'step_seconds_rolled': best['rolled'],
      'matmul_gflops': peak / 1e9,
      'ratio': flops / best['unrolled'] / peak,
      'ratio_rolled': flops / best['rolled'] / peak,
      'target': 0.65,
    },
  )


if __name__ == '__main__':
  main()
