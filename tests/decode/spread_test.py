"""Batches shared between devices are those of one device."""

import pytest

from loopformer.decode.copies import columns_of
from tests.util import run_python

PROGRAM = """
import jax
import numpy as np

from loopformer.decode import Engine, Sampling, copies, prompts_of
from loopformer.decode.spread import Spread
from loopformer.zoo import FAMILIES
from tests.decode.engine_test import CONFIGS, V

FAMILY, CONFIG = FAMILIES['universal'], CONFIGS['universal']
MODEL = FAMILY.build(CONFIG, jax.random.key(0))
PROMPTS = [[1, 2, 3, 4, 5], [6], [7, 8, 9], [10, 11], [12], [2, 4]]


def written(rows, devices, **fields):
  choices = {'recurrences': 3, 'sampling': Sampling(temperature=1.0), **fields}
  engine = Engine(FAMILY, MODEL, devices=devices, **choices)
  prompts = prompts_of(PROMPTS[:rows], vocab_size=V)
  *looks, last = engine.stream(prompts, tokens=20, every=4)
  return (*looks[0], *last), engine.compiled


def check(rows, **fields):
  one, programs = written(rows, None, **fields)
  several, as_many = written(rows, jax.devices(), **fields)
  assert as_many == programs
  for a, b in zip(one, several, strict=True):
    np.testing.assert_array_equal(a, b)
  return one


assert jax.device_count() == 3
copies.host_columns = lambda: 16
halt = {'name': 'fixed_point', 'rtol': 0.9}
*_, lengths_B, depth_BN = check(6, end=5, halt=halt)
assert len(set(lengths_B.tolist())) > 1, lengths_B
assert len(set(depth_BN.ravel().tolist())) > 2, depth_BN

for weight in Spread(MODEL, jax.devices()).copies(6, 5).arrays:
  shards = weight.addressable_shards
  assert len(shards) == 3
  assert len({shard.data.unsafe_buffer_pointer() for shard in shards}) == 1
"""


HEADS = """
import sys

import jax
import numpy as np

from loopformer.decode import Engine, copies, prompts_of
from loopformer.decode import spread as spreading
from loopformer.decode.spread import Spread
from loopformer.zoo import FAMILIES
from tests.decode.engine_test import CONFIGS, PROMPTS, V, depth_of

HALT = {'name': 'fixed_point', 'rtol': 0.3}


def check(name):
  family, cfg = FAMILIES[name], CONFIGS[name]
  model = family.build(cfg, jax.random.key(0))
  for halt, policy in ((None, 'full'), (HALT, 'last')):
    copies.host_columns = lambda few=halt is None: 16 if few else 0
    choices = {'recurrences': depth_of(name), 'halt': halt, 'policy': policy}
    engines = [
      Engine(family, model, devices=devices, shared=shared, **choices)
      for devices, shared in ((None, 'rows'), (jax.devices(), 'heads'))
    ]
    found = [
      engine.generate(prompts_of(PROMPTS, vocab_size=V), tokens=20)
      for engine in engines
    ]
    for a, b in zip(*found, strict=True):
      np.testing.assert_array_equal(a, b)
  return model


for name in sys.argv[1:]:
  model = check(name)

spread = Spread(model, jax.devices(), 'heads')
rows = len(PROMPTS)
kept = sum(x.nbytes for x in jax.tree.leaves(model))
for placed in (spread.copies(rows), spread.copies(rows, 5)):
  own = sum(x.addressable_shards[0].data.nbytes for x in placed.arrays)
  assert kept / 2 < own < 0.8 * kept, (own, kept)
for least, shared in ((2**30, False), (0, True)):
  spreading.LEAST = least
  auto = Spread(model, jax.devices())
  assert auto.way(1).by_heads == shared and not auto.way(2).by_heads
assert Spread(model, jax.devices(), 'rows').way(1).mesh is None
for shared in ('auto', 'rows', 'heads'):
  assert Spread(model, (), shared).way(1).mesh is None
"""


def test_columns_of_panels_by_cpu():
  for flags, wanted in (
    ('flags\t\t: sse2 avx avx2 fma', 16),
    ('flags\t\t: avx2 avx512f avx512vl', 64),
    ('Features\t: fp asimd', 0),
    ('', 0),
  ):
    assert columns_of(flags) == wanted, flags


def test_rows_on_several_devices():
  """Ends, sampled tokens, depths and looks agree; a weight stands once."""
  run_python(PROGRAM, devices=3, timeout=300)


def test_heads_on_several_devices():
  """Tokens and depths agree, and a device has half of each layer.

  The texts outgrow the first places of their cache.
  """
  run_python(HEADS, 'huginn', 'hrm_text', devices=2, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['feedforward', 'universal', 'parcae'])
def test_heads_of_every_family(name):
  run_python(HEADS, name, devices=2, timeout=300)
