"""Rows shared between devices are the rows of one device."""

from tests.util import run_python

PROGRAM = """
import jax
import numpy as np

from loopformer.decode import Engine, Sampling, prompts_of
from loopformer.decode.spread import Replicas
from loopformer.zoo import FAMILIES
from tests.decode.engine_test import CONFIGS, V

FAMILY, CONFIG = FAMILIES['universal'], CONFIGS['universal']
MODEL = FAMILY.build(CONFIG, jax.random.key(0))
PROMPTS = [[1, 2, 3, 4, 5], [6], [7, 8, 9], [10, 11], [12], [2, 4]]


def written(rows, devices, **fields):
  choices = {'recurrences': 3, 'sampling': Sampling(temperature=1.0), **fields}
  engine = Engine(FAMILY, MODEL, devices=devices, **choices)
  prompts = prompts_of(PROMPTS[:rows], vocab_size=V)
  *looks, last = engine.stream(prompts, tokens=9, every=4)
  return (*looks[0], *last), engine.compiled


def check(rows, **fields):
  one, programs = written(rows, None, **fields)
  several, as_many = written(rows, jax.devices(), **fields)
  assert as_many == programs
  for a, b in zip(one, several, strict=True):
    np.testing.assert_array_equal(a, b)
  return one


assert jax.device_count() == 3
halt = {'name': 'fixed_point', 'rtol': 0.9}
*_, lengths_B, depth_BN = check(6, end=5, halt=halt)
assert len(set(lengths_B.tolist())) > 1, lengths_B
assert len(set(depth_BN.ravel().tolist())) > 2, depth_BN

for weight in jax.tree.leaves(Replicas(MODEL, jax.devices()).of(6)):
  shards = weight.addressable_shards
  assert len(shards) == 3
  assert len({shard.data.unsafe_buffer_pointer() for shard in shards}) == 1
"""


def test_rows_on_several_devices():
  """Ends, sampled tokens, depths and looks agree; a weight stands once."""
  run_python(PROGRAM, devices=3, timeout=300)
