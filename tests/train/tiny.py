"""A tiny model and batches, and setups shared by the tests of training."""

import functools
import json

import jax
import numpy as np

from loopformer.train import experiment, state, step

BLOCK = {'width': 8, 'heads': 2, 'hidden': 8, 'style': 'post'}
SECTIONS = {
  'model': {
    'family': 'universal',
    'vocab_size': 6,
    'num_classes': 6,
    'seq_len': 4,
    'block': BLOCK,
    'injection': 'add',
  },
  'task': {'name': 'sudoku'},
  'loop': {'max_steps': 3},
  'train': {'batch_size': 8, 'steps': 10, 'ema': 0.5, 'tensorboard': False},
  'eval': {},
}


def sections(**changes):
  """The tiny config as nested dicts, with `changes` merged into sections."""
  merged = json.loads(json.dumps(SECTIONS))
  for name, fields in changes.items():
    merged[name] |= fields
  return merged


def make(**changes):
  """The tiny experiment."""
  return experiment.from_dict(sections(**changes))


def setup(**changes):
  """Its setup, one for the same changes."""
  return _setup(json.dumps(changes, sort_keys=True))


@functools.cache
def _setup(text):
  return state.make_setup(make(**json.loads(text)))


def step_fn(**changes):
  """Its jitted train step, one for the same changes."""
  return _step_fn(json.dumps(changes, sort_keys=True))


@functools.cache
def _step_fn(text):
  return step.make_train_step(_setup(text))


@functools.cache
def _create(text):
  return state.create(_setup(text))


def create(**changes):
  """A fresh initial state, which may be donated."""
  made = _create(json.dumps(changes, sort_keys=True))
  return jax.tree.map(lambda x: x.copy(), made)


def batch(seed=0, rows=8, ignored=True):
  """Random rows; some labels are not scored."""
  rng = np.random.default_rng(seed)
  labels_BT = rng.integers(6, size=(rows, 4)).astype(np.int32)
  if ignored:
    labels_BT[rng.random((rows, 4)) < 0.3] = -100
  return {
    'inputs': rng.integers(6, size=(rows, 4)).astype(np.int32),
    'labels': labels_BT,
    'ids': np.arange(rows, dtype=np.uint32) + np.uint32(100 * seed),
  }


def bits(tree):
  """Every leaf as bytes, keys as their data: for equality bit for bit."""

  def raw(leaf):
    is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()

  return [raw(leaf) for leaf in jax.tree.leaves(tree)]
