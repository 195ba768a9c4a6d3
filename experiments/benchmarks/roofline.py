"""Train step against the machine's own matrix product.

Ratio: FLOP/s of value-and-gradient through 21 block calls (three times the
forward products, attention included) over the best square float32 product
seen in the same process. Command:
python -m experiments.benchmarks.roofline
"""

import jax

from loopformer.bin.host import keep_memory
from loopformer.zoo import FAMILIES

from . import common


def main() -> None:
  """Prints one JSON line."""
  keep_memory()
  model = FAMILIES['universal'].build(common.model_config(), jax.random.key(0))
  inputs, labels = common.tokens()
  step = jax.jit(jax.value_and_grad(common.loss_function(common.plan())))
  peak = common.matmul_peak()
  best = common.seconds(lambda: step(model, inputs, labels))
  peak = max(peak, common.matmul_peak())
  flops = 3 * common.CALLS * common.block_flops()
  common.report(
    'roofline',
    {
      'step_seconds': best,
      'gflops': flops / best / 1e9,
      'matmul_gflops': peak / 1e9,
      'ratio': flops / best / peak,
      'target': 0.65,
    },
  )


if __name__ == '__main__':
  main()
