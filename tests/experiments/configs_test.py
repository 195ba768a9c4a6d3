"""Every shipped config builds, and takes two reduced steps.

Here only the first of the families in `COMPILED`; all others in `make
test-slow`, and of each family the first is traced.
"""

import math
import runpy

import jax
import pytest

from loopformer.train.experiment import bind, build_task, from_dict
from loopformer.train.loop import place
from loopformer.train.reduced import reduced
from loopformer.train.state import create, make_setup
from loopformer.train.step import make_train_step
from tests.house import repo

FILES = sorted(
  path
  for path in (repo.ROOT / 'experiments').glob('*.py')
  if path.stem != '__init__'
)
MODULES = {path.stem: runpy.run_path(str(path)) for path in FILES}
COMPILED = ('feedforward', 'universal', 'trm')
VARIANTS = [
  (name, variant)
  for name, module in MODULES.items()
  for variant in module['VARIANTS']
]
FIRST = {name: next(iter(MODULES[name]['VARIANTS'])) for name in MODULES}
QUICK = [(name, FIRST[name]) for name in COMPILED]
STEPS = [
  pytest.param(*case, marks=[pytest.mark.slow] * (case not in QUICK))
  for case in VARIANTS
]


def made(name, variant):
  """Task and setup of a config at the size of a test."""
  config = MODULES[name]['get_config'](variant).to_dict()
  experiment = reduced(from_dict(config))
  assert experiment.family == name
  task = build_task(experiment)
  return task, make_setup(bind(experiment, task))


def batches(task, setup):
  """The first two."""
  rows = setup.experiment.train.batch_size
  return (place(setup, task.train_batch(0, step, rows)) for step in range(2))


@pytest.mark.parametrize(('name', 'variant'), VARIANTS)
def test_it_builds(name, variant):
  task, setup = made(name, variant)
  assert setup.experiment.model.vocab_size == task.vocab_size
  assert jax.tree.leaves(setup.abstract.params)


@pytest.mark.parametrize(('name', 'variant'), FIRST.items())
def test_a_reduced_step_is_traced(name, variant):
  task, setup = made(name, variant)
  batch = next(batches(task, setup))
  step_fn = make_train_step(setup)
  state, metrics = jax.eval_shape(step_fn, setup.abstract, batch)
  shapes = lambda tree: [(x.shape, x.dtype) for x in jax.tree.leaves(tree)]
  assert shapes(state) == shapes(setup.abstract)
  assert metrics['loss'].shape == ()


@pytest.mark.parametrize(('name', 'variant'), STEPS)
def test_two_reduced_steps(name, variant):
  task, setup = made(name, variant)
  state, step_fn = create(setup), make_train_step(setup)
  first = jax.device_get(jax.tree.leaves(state.params))
  for batch in batches(task, setup):
    state, metrics = step_fn(state, batch)
    assert math.isfinite(float(metrics['loss'])) and bool(metrics['finite'])
  last = jax.device_get(jax.tree.leaves(state.params))
  assert int(state.step) == 2
  assert any((a != b).any() for a, b in zip(first, last, strict=True))


@pytest.mark.parametrize('name', sorted(MODULES))
def test_an_unknown_variant_is_refused(name):
  with pytest.raises(ValueError, match=r"variant must be one of .* got 'no'"):
    MODULES[name]['get_config']('no')
