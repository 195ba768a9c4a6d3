"""TRM's train step against the machine's own matrix product, and its memory.

One segment at width 128, 81 + 16 tokens, batch 16, 3 x 6 cycles: 21 calls of
the two-layer block forward, of which the last 7 are differentiated, 21 + 2 * 7
times the FLOPs of a call. `memory_ratio` is the compiled temporary memory at
high_cycles = 8 over that at 2.
Command: python -m experiments.benchmarks.reasoner_step
"""

import dataclasses

import jax
import jax.numpy as jnp

from loopformer import core
from loopformer.nn.losses import stablemax_cross_entropy
from loopformer.nn.reasoner import published_block
from loopformer.zoo import FAMILIES, Plan, run, trm

from . import common

CFG = trm.Config(
  vocab_size=common.CLASSES,
  seq_len=81,
  block=published_block(width=common.WIDTH, heads=common.HEADS),
  puzzle_width=common.WIDTH,
  prefix=16,
)


def loss(model, inputs_BT, labels_BT) -> jax.Array:
  """Stablemax cross-entropy of one segment."""
  plan = Plan(core.fixed_steps(), 1)
  result, context = run(model, inputs_BT, plan)
  logits_BTV = model.readout(result.state, context)
  return jnp.mean(stablemax_cross_entropy(logits_BTV, labels_BT))


def memory(cycles: int) -> int:
  """Bytes of temporaries of the compiled step."""
  cfg = dataclasses.replace(CFG, high_cycles=cycles)
  model = FAMILIES['trm'].abstract(cfg)
  grid = jax.ShapeDtypeStruct((common.BATCH, CFG.seq_len), jnp.int32)
  compiled = jax.jit(jax.grad(loss)).lower(model, grid, grid).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
  """Prints one JSON line; step and product alternate."""
  common.spread()
  model = FAMILIES['trm'].build(CFG, jax.random.key(0))
  grids = tuple(x[:, : CFG.seq_len] for x in common.tokens())
  arguments = common.place(model, grids)
  step = common.over_devices(loss)
  best, peak = common.against_peak({'step': lambda: step(*arguments)})
  flops = 35 * common.block_flops()
  common.report(
    'reasoner_step',
    {
      'step_seconds': best['step'],
      'matmul_gflops': peak / 1e9,
      'ratio': flops / best['step'] / peak,
      'target': 0.65,
      'memory_ratio': memory(8) / memory(2),
      'memory_target': 1.05,
    },
  )


if __name__ == '__main__':
  main()
