"""The stability study: what is bad, one program for all rates, resuming."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loopformer.experiments.studies import stability
from loopformer.experiments.studies import stability_records as records
from loopformer.experiments.studies import stability_run as run
from loopformer.experiments.studies import stability_summary as summary

from loopformer.nn.injection import Injection
from loopformer.nn.variables import build
from loopformer.train.optimizers import OptimizerConfig, make_optimizer
from loopformer.train.reduced import reduced

REAL = stability.experiment_of
# Five steps at 5 nats and twenty at 2, of text whose single tokens have 3.
CALM = [5.0] * 5 + [2.0] * 20


def tiny(injection='concat', steps=3):
  """The study's experiment at the size of a test."""
  small = reduced(REAL(injection))
  train = dataclasses.replace(small.train, steps=steps)
  return dataclasses.replace(small, train=train)


def told(losses=CALM, **given):
  given = {'unigram': 3.0, 'norms': [1.0, 1000.0], **given}
  found = records.verdict(losses, **given)
  assert found['bad'] == any(found[word] for word in summary.WHY)
  return [word for word in summary.WHY if found[word]]


def test_a_calm_run_is_not_bad():
  assert told() == []


def test_a_run_that_learns_less_than_single_tokens_diverged():
  # The last twenty of the first have a mean of 3.05.
  assert told([5.0] * 5 + [2.0] * 10 + [4.1] * 10) == []
  assert told([5.0] * 5 + [3.09] * 20) == []
  assert told([5.0] * 5 + [3.11] * 20) == ['diverged']


@pytest.mark.parametrize('broken', [math.nan, math.inf])
def test_a_loss_that_is_not_finite_diverged(broken):
  assert 'diverged' in told([5.0, broken, *CALM])


def test_a_gradient_that_is_not_finite_diverged():
  assert told(nonfinite=1) == ['diverged']


def test_half_as_much_again_as_the_least_mean_before_is_a_spike():
  assert told([*CALM, 3.0, *CALM[5:]]) == []
  assert told([*CALM, 3.1, *CALM[5:]]) == ['spiked']
  # One lucky loss is no mean, and the first twenty have none before them.
  assert told([*CALM, 1.0, 2.9, *CALM[5:]]) == []
  assert told([2.0, 9.0, *CALM[5:]]) == []
  found = records.verdict([4.0] * 20 + [7.0, 4.0], unigram=9.0, norms=[])
  assert (found['rise'], found['rise_step']) == (1.75, 21)
  assert found['final_loss'] == 4.15


@pytest.mark.parametrize('norm', [1000.5, math.inf, math.nan])
def test_a_state_above_a_thousand_swelled(norm):
  assert told(norms=[1.0, norm, 1.0]) == ['swelled']


def test_entropy_of_counts():
  # Shares of 1/4, 1/4 and 1/2.
  assert records.entropy(np.array([1, 1, 0, 2])) == pytest.approx(
    1.5 * math.log(2)
  )


def injection(kind, width):
  return build(
    lambda rngs: Injection(kind, width, rngs=rngs), jax.random.key(0)
  )


def test_norm_of_the_map_on_the_state():
  mixed = injection('concat', 2)
  kernel = [[0.0, 3.0], [-2.0, 0.0], [90.0, 0.0], [0.0, 90.0]]
  mixed.mix.kernel[...] = jnp.array(kernel)
  assert run.map_norm(mixed) == pytest.approx(3.0)
  decaying = injection('diagonal_euler', 3)
  decaying.decay_log[...] = jnp.array([0.0, 1.0, -1.0])
  exponent = 0.5 * math.log(5.0) * math.exp(-1.0)
  assert run.map_norm(decaying) == pytest.approx(math.exp(-exponent))
  assert run.map_norm(injection('add', 2)) == 1.0


@pytest.fixture(scope='module')
def bench():
  return run.Bench(tiny())


def test_a_rate_given_to_an_optimiser_equals_one_compiled_in():
  params, names = {'kernel': jnp.ones((2, 2))}, {'kernel': ('embed', 'mlp')}
  grads = {'kernel': jnp.array([[1.0, -2.0], [0.5, 0.0]])}
  make = lambda rate: make_optimizer(
    OptimizerConfig(learning_rate=rate, warmup=2, weight_decay=0.1), 9, names
  )
  ours, theirs = run.scaled(make(1.0), jnp.float32(0.03)), make(0.03)
  states = [ours.init(params), theirs.init(params)]
  for _ in range(3):
    mine, states[0] = ours.update(grads, states[0], params)
    other, states[1] = theirs.update(grads, states[1], params)
    np.testing.assert_allclose(mine['kernel'], other['kernel'], rtol=1e-6)


@pytest.mark.slow
def test_twice_the_rate_moves_twice_as_far(bench):
  first = bench.first(0)
  trial = stability.Trial('concat', 1e-3, 0, 1)
  moved = []
  for rate in (1e-3, 2e-3):
    state, _ = bench.train(first, trial._replace(rate=rate), range(1))
    moved.append(jax.tree.map(jnp.subtract, state.params, first.params))
  doubled = jax.tree.map(lambda x: 2 * x, moved[0])
  close = functools.partial(np.testing.assert_allclose, atol=1e-6)
  jax.tree.map(close, doubled, moved[1])
  assert any(x.any() for x in jax.tree.leaves(moved[0]))


@pytest.mark.slow
def test_a_sweep_is_written_resumed_and_summarised(
  tmp_path, monkeypatch, bench
):
  monkeypatch.setattr(stability, 'Bench', lambda experiment: bench)
  path = tmp_path / 'new' / 'runs.jsonl'
  trials = stability.trials_of(['concat'], [1e-3, 1e-2], [0], 3)
  first = stability.sweep(path, trials)
  lines = path.read_text().splitlines()
  assert [json.loads(line) for line in lines] == first
  for record in first:
    assert len(record['losses']) == 3
    assert record['points'] == [0, 1, 2, 2, 3]
    assert len(record['map_norm_at']) == len(record['state_rms_at']) == 5
    assert record['state_rms'] > 0 and record['state_rms_deeper'] > 0
  assert first[0]['losses'][0] == first[1]['losses'][0]
  assert first[0]['losses'][2] != first[1]['losses'][2]

  path.write_text('\n'.join([*lines, lines[0][:40]]))  # killed in a write
  monkeypatch.setattr(stability, 'Bench', None)
  assert stability.sweep(path, trials) == first
  assert path.read_text().splitlines() == lines

  (row,) = summary.by_injection(first)
  assert (row['injection'], row['runs']) == ('concat', 2)
  assert summary.table([row]).count('\n') == 2
  image = summary.figure(path.with_suffix('.png'), first)
  assert image.read_bytes()[:4] == b'\x89PNG'


def test_a_summary_of_records_by_hand():
  one = {
    'injection': 'add',
    'rate': 0.1,
    'final_loss': 2.0,
    'heldout_loss': 2.5,
    'state_rms': 1.0,
    'state_rms_deeper': 4.0,
    'map_norm_at': [1.0, 3.0, 2.0],
    **dict.fromkeys(('diverged', 'spiked', 'swelled', 'bad'), False),
  }
  worse = one | {'heldout_loss': 3.5, 'state_rms': 3.0, 'state_rms_deeper': 6.0}
  lost = one | {
    'rate': 0.2,
    'heldout_loss': None,
    'state_rms': None,
    'state_rms_deeper': None,
    'swelled': True,
    'bad': True,
  }
  (row,) = summary.by_injection([one, worse, lost])
  assert (row['bad'], row['runs'], row['bad_by_rate']) == (1, 3, [0, 1])
  assert (row['loss'], row['rate']) == (3.0, 0.1)
  assert (row['state_rms'], row['state_rms_deeper']) == (3.0, 6.0)
  assert row['map_norm'] == 3.0


@pytest.mark.parametrize(
  ('injection', 'rate', 'seed', 'steps', 'field'),
  [
    ('no', 1e-3, 0, 0, 'injections'),
    ('add', 0.0, 0, 0, 'rates'),
    ('add', math.nan, 0, 0, 'rates'),
    ('add', 1e-3, -1, 0, 'seeds'),
    ('add', 1e-3, 0, -1, 'steps'),
  ],
)
def test_what_cannot_be_swept_is_refused(injection, rate, seed, steps, field):
  with pytest.raises(ValueError, match=f'^{field} must be'):
    stability.trials_of([injection], [rate], [seed], steps)
