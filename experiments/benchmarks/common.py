"""What the benchmarks share: the measured model, timing, one JSON line."""

import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from loopformer import core, zoo
from loopformer.bin import host
from loopformer.core import adjoints
from loopformer.nn.config import BlockConfig
from loopformer.train import sharding
from loopformer.train.experiment import TrainConfig
from loopformer.zoo.universal import Config

# The block of the published puzzle reasoners: heads of 64, F = 512 at D = 128.
WIDTH, TOKENS, BATCH, LAYERS, CALLS, HEADS, HIDDEN = 128, 97, 16, 2, 21, 2, 512
CLASSES = 11


def model_config(**block: Any) -> Config:
  """The block that is timed: post-norm, SwiGLU, rotary, input at each step."""
  fields = {
    'width': WIDTH,
    'heads': HEADS,
    'hidden': HIDDEN,
    'style': 'post',
    'norm_gain': False,
    'rotary': 'half',
    **block,
  }
  return Config(
    vocab_size=CLASSES,
    seq_len=TOKENS,
    layers=LAYERS,
    injection='add',
    step_signal=False,
    start='zero',
    block=BlockConfig(**fields),
  )


def loss_function(plan: zoo.Plan) -> Callable[..., jax.Array]:
  """Cross-entropy of the last state on the model's own loop."""

  def loss(model, inputs_BT, labels_BT):
    result, context = zoo.run(model, inputs_BT, plan)
    logits_BTV = model.readout(result.state, context)
    logp_BTV = jax.nn.log_softmax(logits_BTV, -1)
    picked = jnp.take_along_axis(logp_BTV, labels_BT[..., None], -1)
    return -jnp.mean(picked)

  return loss


def plan(calls: int = CALLS, adjoint: Any = None) -> zoo.Plan:
  """A fixed number of recurrences."""
  return zoo.Plan(core.fixed_steps(), calls, adjoint)


def spread() -> None:
  """One CPU device per core and memory kept, as `loopformer-train` has them."""
  host.keep_memory()
  host.spread_over_cores(TrainConfig(batch_size=BATCH))


def train_step(unroll: int = 1) -> Callable[..., Any]:
  """The jitted value and gradient of the timed model, rows over the devices."""
  chosen = plan(adjoint=adjoints.full(unroll=unroll))
  return over_devices(loss_function(chosen))


def over_devices(loss: Callable[..., jax.Array]) -> Callable[..., Any]:
  """The jitted value and gradient of `loss(model, inputs, labels)`."""
  gradient = jax.value_and_grad(loss)
  mesh = sharding.make_mesh()

  def local(model, inputs_BT, labels_BT):
    return jax.lax.pmean(gradient(model, inputs_BT, labels_BT), 'data')

  split = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(P(), sharding.BATCH, sharding.BATCH),
    out_specs=P(),
    check_vma=False,
  )
  return jax.jit(split, compiler_options=sharding.compiler_options(mesh))


def place(model: Any, batch: Any) -> tuple[Any, ...]:
  """The model on every device, the batch over them."""
  mesh = sharding.make_mesh()
  specs = P(), sharding.BATCH
  placed = (
    jax.device_put(tree, NamedSharding(mesh, spec))
    for tree, spec in zip((model, batch), specs, strict=True)
  )
  model, batch = placed
  return model, *batch


def tokens(seed: int = 0, batch: int = BATCH) -> tuple[jax.Array, jax.Array]:
  """Random inputs and labels."""
  keys = jax.random.split(jax.random.key(seed))
  shape = (batch, TOKENS)
  draw = lambda key: jax.random.randint(key, shape, 0, CLASSES, jnp.int32)
  return draw(keys[0]), draw(keys[1])


def seconds(call: Callable[[], Any], *, repeats: int = 5) -> float:
  """The fastest of some calls, each waited for; one call warms up."""
  jax.block_until_ready(call())
  return min(_timed(call) for _ in range(repeats))


def _timed(call):
  begin = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - begin


def matmul_peak(*, sizes: tuple[int, ...] = (768, 1024, 1536)) -> float:
  """Best float32 FLOP/s of a square matrix product in this process."""
  product = jax.jit(jnp.matmul)
  best = 0.0
  for size in sizes:
    x = jax.random.normal(jax.random.key(size), (size, size))
    best = max(best, 2 * size**3 / seconds(lambda x=x: product(x, x)))
  return best


def against_peak(
  calls: Mapping[str, Callable[[], Any]], *, tries: int = 40
) -> tuple[dict[str, float], float]:
  """The fastest of many calls of each, and the best product between them.

  A step takes a second and a product a hundredth of it: on a shared machine a
  step needs many tries to meet as quiet a moment.
  """
  best, peak = dict.fromkeys(calls, float('inf')), matmul_peak()
  for call in calls.values():
    jax.block_until_ready(call())
  for _ in range(tries):
    for name, call in calls.items():
      best[name] = min(best[name], _timed(call))
    peak = max(peak, matmul_peak())
  return best, peak


def block_flops(batch: int = BATCH) -> int:
  """FLOPs of one forward call of the block: products and attention."""
  positions = batch * TOKENS
  weights = 4 * WIDTH * WIDTH + 3 * WIDTH * HIDDEN
  attention = 2 * 2 * batch * TOKENS * TOKENS * WIDTH
  return LAYERS * (2 * positions * weights + attention)


def report(name: str, figures: Mapping[str, Any]) -> None:
  """Prints the JSON line."""
  device = jax.devices()[0]
  print(
    json.dumps(
      {
        'benchmark': name,
        **figures,
        'date': datetime.date.today().isoformat(),
        'machine': f'{os.cpu_count()} cores {platform.machine()}',
        'device': device.device_kind,
        'jax': jax.__version__,
      }
    )
  )
