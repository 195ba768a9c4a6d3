"""One train step on one device and on eight fake ones."""

import pathlib
import sys
import tempfile

import jax
import numpy as np

from loopformer.train.state import create, make_setup
from loopformer.train.step import make_train_step
from tests import util
from tests.conformance.tiny import experiment, task_of

ONE = {'data': 1, 'fsdp': 1, 'tensor': 1}
EIGHT = {'data': 2, 'fsdp': 2, 'tensor': 2}
CHILD = 'from tests.conformance import devices; devices.main()'


def train_once(name: str, mesh: dict[str, int]) -> dict[str, np.ndarray]:
  """Loss and updated parameters of one step, by path."""
  made = experiment(name, mesh=mesh)
  setup = make_setup(made)
  batch = dict(task_of(made).train_batch(0, 0, made.train.batch_size))
  state, metrics = make_train_step(setup)(create(setup), batch)
  leaves = jax.tree_util.tree_flatten_with_path(state.params)[0]
  arrays = {jax.tree_util.keystr(p): np.asarray(leaf) for p, leaf in leaves}
  return {**arrays, 'loss': np.asarray(metrics['loss'])}


def main() -> None:
  """In a process of eight devices: saves what `train_once` gives there."""
  name, path = sys.argv[1:]
  assert jax.device_count() == 8
  np.savez(path, **train_once(name, EIGHT))


def law(name: str) -> None:
  """One device and eight make the same step, within 1e-5."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'eight.npz'
    util.run_python(CHILD, name, str(path), devices=8)
    with np.load(path) as eight:
      theirs = dict(eight)
  ours = train_once(name, ONE)
  assert sorted(ours) == sorted(theirs)
  for key, value in ours.items():
    np.testing.assert_allclose(
      value, theirs[key], rtol=1e-5, atol=1e-5, err_msg=key
    )
