"""Laws that hold for every task."""

import numpy as np

from loopformer.tasks.task import IGNORE


def assert_same(left, right):
  for key in ('inputs', 'labels', 'ids'):
    np.testing.assert_array_equal(left[key], right[key])


def assert_contract(task, *, size=8, heldout=12):
  """Shapes, dtypes, ranges, purity, and steps and seeds that differ."""
  batch = task.train_batch(3, 5, size)
  for rows, count in ((batch, size), (task.heldout(heldout), heldout)):
    assert rows['inputs'].shape == (count, task.seq_len)
    assert rows['labels'].shape == (count, task.seq_len)
    assert rows['ids'].shape == (count,)
    dtypes = [rows[key].dtype for key in ('inputs', 'labels', 'ids')]
    assert dtypes == [np.int32, np.int32, np.uint32]
    assert rows['inputs'].min() >= 0
    assert rows['inputs'].max() < task.vocab_size
    scored = rows['labels'][rows['labels'] != IGNORE]
    assert scored.size
    assert scored.min() >= 0
    assert scored.max() < task.num_classes
    for values in task.score(rows['labels'], rows).values():
      assert values.shape == (count,)
      assert (values == 1).all()
  assert_same(batch, task.train_batch(3, 5, size))
  assert_same(task.heldout(heldout), task.heldout(heldout))
  for other in (task.train_batch(3, 6, size), task.train_batch(4, 5, size)):
    assert (other['inputs'] != batch['inputs']).any()
  assert 1 <= len(task.describe().splitlines()) <= 2
