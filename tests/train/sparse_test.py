"""Sign descent on a table: rows by hand, untouched rows by their bits."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from loopformer.train.sparse import sign_sgd
from tests.util import run_python

TABLE = jnp.arange(12.0).reshape(6, 2) / 7
update = jax.jit(sign_sgd, static_argnames=('weight_decay', 'axes'))


def test_rows_with_one_id_are_added_before_the_sign():
  """Id 4: (3, -1) + (-1, -1) + (-1, 1) = (1, -1), signs (+, -)."""
  ids = jnp.array([4, 1, 4, 4])
  grads = jnp.array([[3.0, -1.0], [-0.2, 9.0], [-1.0, -1.0], [-1.0, 1.0]])
  new = update(TABLE, ids, grads, 0.1)
  step = np.zeros((6, 2))
  step[4], step[1] = (1, -1), (-1, 1)
  np.testing.assert_allclose(new, TABLE - 0.1 * step, rtol=1e-6)


def test_only_touched_rows_decay_and_the_others_keep_their_bits():
  ids = jnp.array([2, 5, 2])
  new = update(TABLE, ids, jnp.ones((3, 2)), 0.1, weight_decay=0.5)
  touched = np.array([2, 5])
  expected = TABLE[touched] * (1 - 0.1 * 0.5) - 0.1
  np.testing.assert_allclose(new[touched], expected, rtol=1e-6)
  untouched = np.array([0, 1, 3, 4])
  np.testing.assert_array_equal(new[untouched], TABLE[untouched])


def test_a_zero_gradient_moves_nothing_but_still_decays():
  """sign(0) = 0, also where two gradients cancel."""
  ids, grads = jnp.array([3, 0, 3]), jnp.array([[1.0, 0], [0, 0], [-1.0, 0]])
  plain = update(TABLE, ids, grads, 0.1)
  np.testing.assert_array_equal(plain, TABLE)
  decayed = update(TABLE, ids, grads, 0.1, weight_decay=1.0)
  np.testing.assert_allclose(decayed[3], 0.9 * TABLE[3], rtol=1e-6)


def test_every_row_at_once_and_one_id_for_all():
  """As many ids as rows, and the one id of a puzzle without a name."""
  every = update(TABLE, jnp.arange(6)[::-1], jnp.ones((6, 2)), 0.1)
  np.testing.assert_allclose(every, TABLE - 0.1, atol=1e-7)
  single = update(TABLE[:1], jnp.zeros(9, int), jnp.ones((9, 2)), 0.1)
  np.testing.assert_allclose(single, TABLE[:1] - 0.1, atol=1e-7)


def test_ids_outside_the_table_are_ignored():
  new = update(TABLE, jnp.array([6, -1, 99]), jnp.ones((3, 2)), 0.1)
  np.testing.assert_array_equal(new, TABLE)


def test_against_a_loop_over_ids():
  rng = np.random.default_rng(0)
  table, grads = rng.normal(size=(20, 5)), rng.normal(size=(64, 5))
  ids, expected = rng.integers(0, 20, 64), table.copy()
  for id_ in set(ids):
    sign = np.sign(grads[ids == id_].sum(0))
    expected[id_] = table[id_] * (1 - 0.01 * 0.3) - 0.01 * sign
  arrays = (jnp.float32(table), jnp.asarray(ids), jnp.float32(grads))
  new = update(*arrays, jnp.float32(0.01), weight_decay=0.3)
  np.testing.assert_allclose(new, expected, rtol=1e-5, atol=1e-6)


CODE = """
import json
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from loopformer.train.sparse import sign_sgd

rng = np.random.default_rng(1)
table = jnp.asarray(rng.normal(size=(10, 3)), jnp.float32)
ids = jnp.asarray(rng.integers(0, 8, 32))
grads = jnp.asarray(rng.normal(size=(32, 3)), jnp.float32)
names = 'data', 'fsdp'
mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), names)
split = P(names)
local = lambda *args: sign_sgd(*args, 0.1, weight_decay=0.2, axes=names)
many = jax.jit(jax.shard_map(
  local, mesh=mesh, in_specs=(P(), split, split), out_specs=P(),
  check_vma=False,
))(table, ids, grads)
one = jax.jit(lambda *args: sign_sgd(*args, 0.1, weight_decay=0.2))(
  table, ids, grads
)
print(json.dumps({
  'devices': jax.device_count(),
  'same': [np.array_equal(s.data, one) for s in many.addressable_shards],
  'moved': int((np.asarray(one) != np.asarray(table)).any(1).sum()),
}))
"""


def test_eight_devices_equal_one():
  """Ids repeat across devices; every device ends with the same bits."""
  found = json.loads(run_python(CODE, devices=8).stdout.splitlines()[-1])
  assert found == {'devices': 8, 'same': [True] * 8, 'moved': 8}
