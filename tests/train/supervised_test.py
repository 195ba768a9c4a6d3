"""Training by segments: the table, the devices, a resumed run, its measure."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.core import Cause
from loopformer.evaluate import results
from loopformer.nn.variables import Table
from loopformer.tasks import TASKS
from loopformer.tasks.group_words import GroupWords
from loopformer.train import checkpoint, experiment, loop, restore, state, step
from tests.train import tiny
from tests.train.segments import sections
from tests.util import run_python


def tables(rest):
  """The puzzle table among the arrays that no gradient trains."""
  is_variable = lambda x: isinstance(x, Table)
  leaves = jax.tree.leaves(rest, is_leaf=is_variable)
  return [leaf for leaf in leaves if isinstance(leaf, Table)]


def with_table(now, table_NE):
  """The state with another puzzle table."""
  replaced = jax.tree.map(
    lambda v: v.replace(table_NE) if isinstance(v, Table) else v,
    now.rest,
    is_leaf=lambda x: isinstance(x, Table),
  )
  return now._replace(rest=replaced)


def offer(setup, seed, puzzles):
  """A batch of the trainer's, of the given puzzles."""
  ids_B = np.resize(np.array(puzzles, np.int32), 8)
  return loop.place(setup, tiny.batch(seed) | {'puzzles': ids_B})


@functools.cache
def trained(name, text='{}'):
  """Setup and jitted step of a case."""
  made = experiment.from_dict(sections(name, **json.loads(text)))
  setup = state.make_setup(made)
  return setup, step.make_train_step(setup)


TRAINED = {
  'ema': 0.5,
  'optimizer': {'name': 'adamw', 'warmup': 2, 'learning_rate': 1e-2},
  'table': {'learning_rate': 0.25, 'weight_decay': 0.5},
}


def test_the_table_moves_by_sign_descent_where_rows_are_in_flight():
  """w <- (1 - rate decay) w +- rate; every other row keeps its bits."""
  setup, step_fn = trained('capped', json.dumps(TRAINED))
  table_NE = np.random.default_rng(0).normal(size=(5, 8)).astype('f')
  now = with_table(state.create(setup), jnp.asarray(table_NE))
  shapes = [x.shape for x in jax.tree.leaves((now.ema, now.opt_state))]
  assert (5, 8) not in shapes
  # No row halts at the first step, so the second moves the same puzzles.
  for seed, (puzzles, share) in enumerate((((0, 3), 0.5), ((1, 2, 4), 1.0))):
    now, metrics = step_fn(now, offer(setup, seed, puzzles))
    assert all(np.isfinite(x) for x in jax.tree.leaves(metrics))
    (variable,) = tables(now.rest)
    new_NE, rate = np.asarray(variable[...]), 0.25 * share
    moved_NE = new_NE[[0, 3]] - (1 - rate * 0.5) * table_NE[[0, 3]]
    np.testing.assert_allclose(np.abs(moved_NE), rate, rtol=1e-5)
    assert len(np.unique(np.sign(moved_NE))) == 2
    assert tiny.bits(new_NE[[1, 2, 4]]) == tiny.bits(table_NE[[1, 2, 4]])
    table_NE = new_NE


@pytest.mark.parametrize('name', ['trm', 'fprm'])
def test_a_step_returns_the_types_it_takes(name):
  """Weak ones included: the second step of a run compiles nothing."""
  setup, step_fn = trained(name, json.dumps(SPLIT))
  now = jax.eval_shape(lambda: state.create(setup))
  after, _ = jax.eval_shape(step_fn, now, offer(setup, 0, (0,)))
  weak = lambda tree: [x.weak_type for x in jax.tree.leaves(tree)]
  assert weak(now) == weak(after)


def three_steps(setup):
  """The state after three steps, with rows in flight and a moved table."""
  step_fn, now = step.make_train_step(setup), state.create(setup)
  for seed in range(3):
    now, metrics = step_fn(now, offer(setup, seed, np.arange(8) % 5))
  kept = now._replace(
    key=jax.random.key_data(now.key),
    carry=jax.tree.map(
      lambda x: jax.random.key_data(x) if x.dtype == KEY else x, now.carry
    ),
  )
  return [np.asarray(x) for x in jax.tree.leaves((kept, metrics))]


KEY = jax.random.key(0).dtype
SPLIT = {'optimizer': {'name': 'sgd', 'learning_rate': 0.1}, 'ema': 0.5}
EIGHT = """
import sys
import jax, numpy as np
from loopformer.train import experiment, state
from tests.train import supervised_test as test
assert jax.device_count() == 8
mesh = {'data': 2, 'fsdp': 4}
made = test.sections('fprm', **test.SPLIT, mesh=mesh)
setup = state.make_setup(experiment.from_dict(made))
np.savez(sys.argv[1], *test.three_steps(setup))
"""


@pytest.mark.slow
def test_one_device_equals_eight(tmp_path):
  """Parameters, average, table, metrics and the rows in flight, to 1e-5."""
  run_python(EIGHT, str(tmp_path / 'eight.npz'), devices=8)
  one = three_steps(trained('fprm', json.dumps(SPLIT))[0])
  eight = np.load(tmp_path / 'eight.npz')
  assert len(eight.files) == len(one)
  for name, expected in zip(eight.files, one, strict=True):
    np.testing.assert_allclose(eight[name], expected, rtol=1e-5, atol=1e-5)


def test_a_row_that_fails_at_once_is_saved_and_read_back(tmp_path):
  """It has no residual yet, nor has its solver: both are infinite."""
  setup, step_fn = trained('fprm')
  now = state.create(setup)
  params = jax.tree.map(lambda x: jnp.full_like(x, 1e30), now.params)
  now, metrics = step_fn(now._replace(params=params), offer(setup, 0, (0,)))
  rows = now.carry.loop
  assert not metrics['finite'] and (rows.cause_B == Cause.NON_FINITE).all()
  assert not np.isfinite(rows.residual_B).any()
  assert not np.isfinite(rows.solver.best_B).any()
  with checkpoint.Checkpointer(tmp_path) as saver:
    saver.save(1, now, {})
    found = saver.restore(setup.abstract)
    assert tiny.bits(found.state) == tiny.bits(now)
    broken = jax.tree.map(lambda x: x * jnp.nan, now.params)
    saver.save(2, now._replace(params=broken), {})
    with pytest.raises(ValueError, match='infinity in params') as error:
      saver.restore(setup.abstract)
  assert 'carry' not in str(error.value)


class Puzzled(GroupWords):
  """Words that are told apart by the number of a puzzle."""

  causal, num_puzzles = False, 5

  def _batch(self, rng, size, *, heldout):
    batch = super()._batch(rng, size, heldout=heldout)
    return batch | {'puzzles': (batch['ids'] % 5).astype(np.int32)}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A run of six steps, and one that was stopped after three."""
  folder = tmp_path_factory.mktemp('runs')
  entry = TASKS['group']._replace(build=Puzzled)
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(TASKS, 'group', entry)
    fields = {**TRAINED, 'save_every': 100, 'log_every': 1}
    step_fns = []

    def shared(setup):
      if not step_fns:
        step_fns.append(step.make_train_step(setup))
      return step_fns[0]

    patch.setattr(loop, 'make_train_step', shared)
    for name, stops in (('whole', (6,)), ('parts', (3, 6))):
      for steps in stops:
        config = sections('trm', **fields, steps=steps)
        config['task'] = {'name': 'group', 'group': 's3', 'length': 3}
        config['eval'] = {
          'rows': 12,
          'batch_size': 4,
          'depths': (1, 3),
          'cap': 4,
          'rules': ({'name': 'q'},),
        }
        loop.train(experiment.from_dict(config), folder / name)
    yield folder


def test_a_resumed_run_is_the_run_that_was_not_stopped(runs):
  """Every array, the rows in flight and their keys too, and every metric."""
  kept = []
  for name in ('whole', 'parts'):
    config = json.loads((runs / name / 'config.json').read_text())
    made = experiment.from_dict(config)
    abstract = state.make_setup(made).abstract
    found = checkpoint.restore(runs / name / 'checkpoints', abstract)
    metrics = (runs / name / 'metrics.jsonl').read_bytes()
    kept.append((found.step, tiny.bits(found.state), metrics))
    assert found.state.carry.batch.puzzles_B.max() > 0
    assert np.any(tables(found.state.rest)[0][...])
  assert kept[0] == kept[1]
  assert [json.loads(line)['step'] for line in kept[0][2].splitlines()] == [
    *range(1, 7)
  ]


@pytest.mark.slow
def test_a_run_is_measured_from_its_workdir(runs):
  """As `loopformer-eval` does, with averaged weights and the table."""
  run = restore.restore_run(runs / 'whole')
  assert run.step == 6
  measured = results.measure(
    run.subject,
    run.task,
    rows=run.eval.rows,
    batch_size=run.eval.batch_size,
    depths=run.eval.depths,
    cap=run.eval.cap,
    rules=run.eval.rules,
    sweep_rules=(),
  )
  always, halted = measured['halting']
  assert always['mean_steps'] == 4
  assert 1 <= halted['mean_steps'] <= 4
  assert {record['steps'] for record in measured['sweep']} == {1, 3}


@pytest.mark.parametrize(
  ('said', 'section', 'field', 'value'),
  [
    ('accumulate must be 1 under', 'train', 'accumulate', 2),
    ('segment must be >= 1, got 0', 'train', 'segment', 0),
    ('needs loop.depth = None', 'loop', 'depth', {'name': 'fixed', 'count': 2}),
    ("and loop.rows = 'sample'", 'loop', 'rows', 'token'),
    ('loop.adjoint.name must be', 'loop', 'adjoint', {'name': 'one_step'}),
  ],
)
def test_what_supervision_cannot_do_is_one_line(said, section, field, value):
  config = sections('capped')
  config[section] = {**config[section], field: value}
  with pytest.raises(ValueError, match=said) as caught:
    experiment.from_dict(config)
  assert '\n' not in str(caught.value)
