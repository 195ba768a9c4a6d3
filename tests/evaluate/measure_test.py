"""Masked batches, one traced run and a refilled queue tell the same story."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.core import Cause, fixed_steps
from loopformer.evaluate import measure
from loopformer.evaluate.results import draw
from loopformer.evaluate.results import measure as measure_all
from loopformer.evaluate.results import measure_all as measure_variations
from loopformer.nn.config import BlockConfig
from loopformer.tasks import (
  GroupWords,
  GroupWordsConfig,
  Regression,
  RegressionConfig,
)
from loopformer.tasks.sudoku import Sudoku, SudokuConfig
from loopformer.zoo import FAMILIES, Plan, run
from loopformer.zoo.choices import LoopConfig
from loopformer.zoo.universal import Config
from tests.models import family_model

REASONER = {
  'vocab_size': 6,
  'seq_len': 16,
  'layers': 1,
  'puzzles': 5,
  'puzzle_width': 8,
  'prefix': 1,
  'block': BlockConfig(width=8, heads=2, hidden=8, norm_gain=False),
}
SPEC = {'name': 'fixed_point', 'rtol': 0.05}
ROWS, CAP = 22, 9


@functools.cache
def subject():
  family = FAMILIES['universal']
  cfg = Config(
    vocab_size=6,
    seq_len=16,
    injection='add',
    step_signal=False,
    start='zero',
    block=BlockConfig(width=8, heads=2, hidden=8, style='post', rotary='none'),
  )
  model = family.build(cfg, jax.random.key(0))
  return measure.Subject(model, family.heads(cfg), LoopConfig(max_steps=4))


@functools.cache
def reader():
  """A model of numbers, untrained."""
  family = FAMILIES['universal']
  cfg = Config(
    vocab_size=1,
    num_classes=1,
    features=3,
    seq_len=8,
    injection='add',
    start='zero',
    block=BlockConfig(width=8, heads=2, hidden=8, style='post', mask='causal'),
  )
  model = family_model('universal', cfg)
  return measure.Subject(model, family.heads(cfg), LoopConfig(max_steps=4))


@pytest.mark.slow
def test_numbers_are_measured_beside_least_squares(tmp_path):
  """Errors at every depth and point, the oracle's the same at each."""
  task = Regression(RegressionConfig(dims=3, points=4))
  results = measure_all(
    reader(), task, rows=ROWS, batch_size=8, depths=(1, 2, 4), cap=4,
    rules=(SPEC,),
  )  # fmt: skip
  assert 'study' not in results  # Numbers never repeat, so none saturates.
  batch = task.heldout(ROWS)
  model = reader().model
  for record in results['sweep'][:3]:
    plan = Plan(fixed_steps(), record['steps'])
    result, context = run(model, jnp.asarray(batch['inputs']), plan)
    guess_NT = np.asarray(model.readout(result.state, context))[..., 0]
    scores = task.score(guess_NT, batch)
    for name in ('error', 'error_1', 'least_squares', 'least_squares_4'):
      assert record[name] == pytest.approx(scores[name].mean(), rel=1e-4)
  assert len({record['error'] for record in results['sweep'][:3]}) == 3
  files = {path.name for path in draw(results, tmp_path)}
  assert files == {'depth_sweep.png', 'residual.png'}
  assert files == {path.name for path in tmp_path.glob('*.png')}


@functools.cache
def task():
  return Sudoku(SudokuConfig(min_clues=7, max_clues=8))


def test_masked_and_compacted_agree():
  runner = measure.Runner(subject(), SPEC, batch_size=8)
  batch = task().heldout(ROWS)
  masked, packed = runner.masked(batch, CAP), runner.compacted(batch, CAP)
  assert len(set(masked.steps_N)) > 1  # Or halting is not tried at all.
  for field in ('predictions_NT', 'steps_N', 'cause_N'):
    np.testing.assert_array_equal(
      getattr(masked, field), getattr(packed, field)
    )
  np.testing.assert_allclose(masked.residual_N, packed.residual_N, rtol=1e-4)
  assert masked.seconds > 0


@pytest.mark.parametrize('depth', [1, 4, CAP])
def test_a_cut_of_the_traced_run_is_the_capped_run(depth):
  runner = measure.Runner(subject(), SPEC, batch_size=8)
  batch = task().heldout(ROWS)
  capped = runner.masked(batch, depth)
  predictions, rows = runner.traced(batch, CAP)
  np.testing.assert_array_equal(predictions[depth - 1], capped.predictions_NT)
  np.testing.assert_array_equal(np.minimum(rows.steps_N, depth), capped.steps_N)


def test_rows_alone_equal_rows_in_a_batch():
  batch = task().heldout(ROWS)
  whole = measure.Runner(subject(), SPEC, batch_size=ROWS).masked(batch, CAP)
  alone = measure.Runner(subject(), SPEC, batch_size=1).masked(batch, CAP)
  np.testing.assert_array_equal(whole.steps_N, alone.steps_N)
  np.testing.assert_array_equal(whole.predictions_NT, alone.predictions_NT)


def test_everything_of_eval_json(tmp_path):
  rules = ({'name': 'fixed_steps', 'count': 4}, SPEC)
  results = measure_all(
    subject(), task(), rows=ROWS, batch_size=8, depths=(1, 4), cap=CAP,
    rules=rules,
  )  # fmt: skip
  always, fixed, halting = results['halting']
  assert always['mean_steps'] == always['max_steps'] == CAP
  assert fixed['mean_steps'] == fixed['max_steps'] == 4
  assert 1 <= halting['mean_steps'] <= halting['max_steps'] <= CAP
  assert {'seconds_masked', 'seconds_compacted'} <= set(halting)
  assert [row['steps'] for row in results['sweep']] == [1, 4, 1, 4]
  assert len(results['residual']) == CAP
  assert len(draw(results, tmp_path)) == len(list(tmp_path.glob('*.png'))) == 4


def test_rules_are_compared_with_where_answers_saturate():
  made = subject()._replace(loop=LoopConfig(max_steps=2))
  results = measure_all(
    made, task(), rows=ROWS, batch_size=8, depths=(1,), cap=CAP, rules=(SPEC,)
  )
  always, rule = results['halting']
  study, batch = results['study'], task().heldout(ROWS)
  watched = measure.watch(subject(), batch, steps=CAP)[0]
  same_RN = (watched == watched[-1]).all(-1)
  saturated_N = [
    1 + np.max(np.flatnonzero(~x), initial=-1) + 1 for x in same_RN.T
  ]
  assert study['saturation']['mean'] == pytest.approx(np.mean(saturated_N))
  late = rule['mean_steps'] - np.mean(saturated_N)
  assert rule['saturation_lag'] == pytest.approx(late)
  assert set(rule['spearman']) == {'blanks', 'rounds'}
  assert always['spearman'] == {'blanks': None, 'rounds': None}
  exact = [task().score(x, batch)['exact'].mean() for x in watched]
  assert [row['exact'] for row in study['fixed']] == pytest.approx(exact)
  assert study['overthinking'] == pytest.approx(max(exact) - exact[-1])
  change = study['change_at_4x_trained']
  assert change == pytest.approx(exact[7] - exact[1])


def test_variations_are_measured_with_the_same_model(tmp_path):
  length = {n: GroupWords(GroupWordsConfig(length=n)) for n in (3, 5)}
  block = BlockConfig(width=8, heads=2, hidden=8, mask='causal')
  cfg = Config(vocab_size=61, block=block, step_signal=False)
  heads = FAMILIES['universal'].heads(cfg)
  words = measure.Subject(
    family_model('universal', cfg), heads, LoopConfig(max_steps=2)
  )
  how = {'rows': 4, 'batch_size': 4, 'depths': (1, 2), 'cap': 2, 'rules': ()}
  results = measure_variations(words, length[3], {'length=5': length[5]}, **how)
  other = results['variations']['length=5']
  alone = measure_all(words, length[5], **how)
  assert other['sweep'] == alone['sweep'] and other['task'] == alone['task']
  files = [str(file.relative_to(tmp_path)) for file in draw(results, tmp_path)]
  assert 'variations.png' in files and 'length=5/halting.png' in files


def test_without_rules_there_is_nothing_to_compare():
  results = measure_all(
    subject(), task(), rows=4, batch_size=4, depths=(1,), cap=2, rules=()
  )
  assert 'study' not in results and 'rollouts' not in results


def test_watching_shows_every_recurrence():
  batch = measure.first_rows(task().heldout(ROWS), 3)
  predictions, confidence, residual = measure.watch(subject(), batch, steps=5)
  assert predictions.shape == confidence.shape == (5, 3, 16)
  assert residual.shape == (5, 3) and (confidence <= 1).all()
  runner = measure.Runner(subject(), {'name': 'fixed_steps'}, batch_size=3)
  last = runner.masked(batch, 5)
  np.testing.assert_array_equal(predictions[-1], last.predictions_NT)
  assert (last.cause_N == Cause.CAP).all()


def reasoner(name, loop, **fields):
  """A puzzle reasoner, and a batch whose rows are of several puzzles."""
  family = FAMILIES[name]
  cfg = family.config(**REASONER, **fields)
  batch = task().heldout(ROWS)
  puzzled = batch | {'puzzles': (np.arange(ROWS) % 5).astype(np.int32)}
  model = family_model(name, cfg, seed=1)
  return measure.Subject(model, family.heads(cfg), loop), puzzled


@pytest.mark.slow
def test_every_measurement_reads_the_puzzle_of_a_row():
  """Rows of one grid: their puzzles alone tell them apart."""
  cycles = {'high_cycles': 1, 'low_cycles': 1}
  subject, batch = reasoner('trm', LoopConfig(max_steps=3), **cycles)
  same = batch | {'inputs': np.repeat(batch['inputs'][:1], ROWS, 0)}
  never = {'name': 'fixed_point', 'rtol': 1e-6}
  runner = measure.Runner(subject, never, batch_size=8)
  masked, packed = runner.masked(same, 3), runner.compacted(same, 3)
  answers = masked.predictions_NT
  assert len(np.unique(answers, axis=0)) > 1
  np.testing.assert_array_equal(answers[:17], answers[5:])
  np.testing.assert_array_equal(packed.predictions_NT, answers)
  np.testing.assert_array_equal(packed.steps_N, masked.steps_N)
  np.testing.assert_array_equal(runner.traced(same, 3)[0][-1], answers)
  few = measure.first_rows(same, 5)
  watched, _, residual_RB = measure.watch(subject, few, steps=3)
  np.testing.assert_array_equal(watched[-1], answers[:5])
  curve = measure.residual_curve(subject, few, steps=3)
  medians = np.median(residual_RB, 1)
  np.testing.assert_allclose([c['median'] for c in curve], medians, rtol=1e-5)


def test_a_queue_measures_residuals_in_the_norm_of_the_loop():
  """The damping of FPRM reads them, so its steps would be others."""
  damped = {'name': 'patience_damped', 'decay': 0.5, 'patience': 0}
  loop = LoopConfig(max_steps=6, norm='token_max', solver=damped)
  subject, batch = reasoner('fprm', loop, conv='none', start_std=1.0)
  spec = {'name': 'fixed_point', 'rtol': 0.3, 'norm': 'token_max'}
  runner = measure.Runner(subject, spec, batch_size=8)
  masked, packed = runner.masked(batch, CAP), runner.compacted(batch, CAP)
  np.testing.assert_allclose(packed.residual_N, masked.residual_N, rtol=1e-3)
  np.testing.assert_array_equal(packed.steps_N, masked.steps_N)
