"""Train step against the same mathematics in plain PyTorch.

Ratio: PyTorch's time over ours, our loop unrolled as PyTorch's Python loop is
(`ratio_rolled`: as one compiled loop). All run in this process, alternating,
with the same weights; losses and gradients are compared first. Needs the extra
`peers`; says so where torch is absent.
Command: python -m experiments.benchmarks.peer
"""

import importlib.util
import os

import jax
import numpy as np
from flax import nnx

from loopformer.zoo import FAMILIES

from . import common


def gradients_agree(ours, loss, module, torch_loss) -> float:
  """Largest relative difference of any weight's gradient; checks the loss."""
  theirs = module.gradients()
  if abs(float(loss) - float(torch_loss)) > 1e-5 * abs(float(loss)):
    raise ValueError(f'losses differ: {loss} and {torch_loss}.')
  worst = 0.0
  for name, grad in theirs.items():
    mine = np.asarray(ours[name])
    worst = max(worst, float(np.abs(mine - grad).max() / np.abs(grad).max()))
  return worst


def flat(tree) -> dict[str, np.ndarray]:
  """Arrays of a module or of its gradient by dotted path."""
  state = nnx.state(tree, nnx.Param)
  return {
    '.'.join(map(str, path)): np.asarray(variable[...])
    for path, variable in nnx.to_flat_state(state)
  }


def main() -> None:
  """Prints one JSON line."""
  if importlib.util.find_spec('torch') is None:
    print("skipped: PyTorch is not installed (pip install '.[peers]').")
    return
  import torch

  from . import torch_peer

  common.spread()
  model = FAMILIES['universal'].build(common.model_config(), jax.random.key(0))
  inputs, labels = common.tokens()
  placed = common.place(model, (inputs, labels))
  step, unrolled_step = (common.train_step(n) for n in (1, common.CALLS))
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  module = torch_peer.Looped(flat(model), common)
  batch = tuple(
    torch.from_numpy(np.array(x, np.int64)) for x in (inputs, labels)
  )
  loss, ours = step(*placed)
  error = gradients_agree(flat(ours), loss, module, module.train_step(*batch))
  calls = {
    'jax': lambda: step(*placed),
    'unrolled': lambda: unrolled_step(*placed),
    'eager': lambda: module.train_step(*batch),
  }
  compiled = module.compiled()
  calls['compile'] = lambda: compiled(*batch)
  best = dict.fromkeys(calls, float('inf'))
  for _ in range(4):
    for name, call in calls.items():
      best[name] = min(best[name], common.seconds(call, repeats=2))
  common.report(
    'peer',
    {
      **{f'{name}_seconds': value for name, value in best.items()},
      'ratio': best['eager'] / best['unrolled'],
      'ratio_rolled': best['eager'] / best['jax'],
      'compile_ratio': best['compile'] / best['unrolled'],
      'gradient_error': error,
      'torch': torch.__version__,
      'target': 1.0,
    },
  )


if __name__ == '__main__':
  main()
