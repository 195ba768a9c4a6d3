"""Losses of text by depth: the fit, the sums and what is written of them."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopformer import core
from loopformer.evaluate import plots, results, text
from loopformer.evaluate.measure import Subject, batches, plan_of, run_rows
from loopformer.nn.config import BlockConfig
from loopformer.tasks import IGNORE
from loopformer.tasks.text import Text, TextConfig
from loopformer.zoo import FAMILIES
from loopformer.zoo.choices import LoopConfig
from loopformer.zoo.universal import Config
from tests.evaluate.plots_test import png_size

LONG = np.arange(1.0, 25.0)
SPARSE = np.array([1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 24.0])


@pytest.mark.parametrize('steps', [LONG, SPARSE])
@settings(derandomize=True, max_examples=30, deadline=None)
@given(
  limit=st.floats(0.5, 5),
  scale=st.floats(0.1, 3),
  rate=st.floats(0.05, 2),
  sign=st.sampled_from([1, -1]),
)
def test_known_constants_come_back(steps, limit, scale, rate, sign):
  scale = sign * scale
  found = text.fit(steps, limit + scale * np.exp(-rate * steps))
  np.testing.assert_allclose(found[:3], (limit, scale, rate), rtol=1e-4)
  assert found.rms < 1e-6


def test_noise_moves_the_curve_by_as_much():
  noise = np.random.default_rng(0).normal(0, 1e-2, len(LONG))
  found = text.fit(LONG, 1.5 + 0.8 * np.exp(-0.4 * LONG) + noise)
  assert found.limit == pytest.approx(1.5, abs=0.02)
  assert found.rate == pytest.approx(0.4, abs=0.1)
  assert 0.005 < found.rms < 0.02
  way = (found.at(1) - found.at(3)) / (found.at(1) - found.limit)
  assert found.covered(1, 3) == pytest.approx(way)
  assert found.at(0.0) == pytest.approx(found.limit + found.scale)


def test_odd_losses():
  flat = text.fit(LONG, np.full(len(LONG), 2.0))
  assert (flat.limit, flat.scale) == pytest.approx((2.0, 0.0), abs=1e-9)
  line = text.fit(LONG, 3.0 - 0.01 * LONG)
  assert all(math.isfinite(x) for x in line) and line.rms < 1e-3
  holes = 1.5 + 0.8 * np.exp(-0.4 * LONG)
  holes[[3, 20]] = np.nan, np.inf
  assert text.fit(LONG, holes).limit == pytest.approx(1.5)
  assert text.fit(LONG[:3], LONG[:3]) is None
  assert text.fit(LONG, np.full(len(LONG), np.nan)) is None


@functools.cache
def subject():
  family = FAMILIES['universal']
  block = BlockConfig(width=8, heads=2, hidden=8, mask='causal')
  cfg = Config(vocab_size=256, seq_len=16, block=block)
  model = family.build(cfg, jax.random.key(0))
  return Subject(model, family.heads(cfg), LoopConfig(max_steps=2))


@pytest.fixture
def task(tmp_path):
  path = tmp_path / 'text.txt'
  lines = (f'Zeile {i} ist {"länger " * (i % 3)}' for i in range(60))
  path.write_text('\n\n'.join(lines), encoding='utf-8')
  return Text(
    TextConfig(path=str(path), length=16, pack=True, documents='blank_line')
  )


def test_losses_are_those_of_the_capped_run(task):
  """Row by row and depth by depth, whatever the size of the batches."""
  batch = task.heldout(5)
  found = text.nats_by_depth(subject(), batch, depth=3, batch_size=2)
  assert found.shape == (3, 5)
  (rows,) = batches(batch, 5)

  @jax.jit
  def run(model, rows, depth):
    plan = plan_of(subject(), core.fixed_steps(), depth, 'sample')
    result, context = run_rows(model, rows, plan)
    return model.readout(result.state, context)

  for depth in (1, 3):
    logits = run(subject().model, rows, jnp.int32(depth))
    log_p = np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32), -1))
    for n, labels in enumerate(batch['labels']):
      total = -sum(
        log_p[n, t, label] for t, label in enumerate(labels) if label != IGNORE
      )
      np.testing.assert_allclose(found[depth - 1, n], total, rtol=1e-4)


def test_a_model_that_knows_nothing_has_eight_bits_per_byte(task):
  """Zero logits: ln 256 a token, and the ends of documents have no bytes."""
  model = jax.tree.map(jnp.zeros_like, subject().model)
  batch = task.heldout(4)
  found = text.measure(
    subject()._replace(model=model), task, batch, depth=5, batch_size=4
  )
  labels = batch['labels']
  assert found['tokens'] == (labels != IGNORE).sum()
  assert found['bytes'] == ((labels != IGNORE) & (labels != 255)).sum()
  ratio = found['tokens'] / found['bytes']
  for row in found['losses']:
    assert row['nats'] == pytest.approx(math.log(256))
    assert row['bits_per_byte'] == pytest.approx(8 * ratio)
  assert text.curve_of(found).limit == pytest.approx(math.log(256))


def test_losses_that_are_not_finite_are_none(task):
  model = jax.tree.map(lambda x: jnp.full_like(x, np.nan), subject().model)
  found = text.measure(
    subject()._replace(model=model),
    task,
    task.heldout(2),
    depth=4,
    batch_size=2,
  )
  assert found['fit'] is None and text.curve_of(found) is None
  assert {row['nats'] for row in found['losses']} == {None}
  json.dumps(found, allow_nan=False)


def test_eval_json_and_its_plots(task, tmp_path):
  found = results.measure(
    subject(), task, rows=4, batch_size=4, depths=(1, 5), cap=2, rules=()
  )
  losses = found['text']['losses']
  assert [row['steps'] for row in losses] == [1, 2, 3, 4, 5]
  json.dumps(found, allow_nan=False)
  for fitted in (found['text']['fit'], None):
    shown = {**found, 'text': {**found['text'], 'fit': fitted}}
    assert tmp_path / 'loss.png' in results.draw(shown, tmp_path)
    assert png_size(tmp_path / 'loss.png') == (900, 600)
    (tmp_path / 'loss.png').unlink()


@pytest.mark.parametrize('scale, drawn', [(2.0, True), (-2.0, False)])
def test_the_fit_is_drawn_where_losses_fall(
  scale, drawn, tmp_path, monkeypatch
):
  asked = {}

  def loss_curve(path, rows, **given):
    asked.update(given)
    return path

  monkeypatch.setattr(plots, 'loss_curve', loss_curve)
  curve = text.Curve(limit=3.0, scale=scale, rate=0.5, rms=0.0)
  losses = [{'steps': r, 'nats': float(curve.at(r))} for r in range(1, 9)]
  measured = {'losses': losses, 'fit': curve._asdict()}
  results._draw_losses(
    {'text': measured, 'trained_depth': 4}, tmp_path / 'loss.png'
  )
  assert ('fitted' in asked) == drawn


def test_an_empty_plot(tmp_path):
  path = plots.loss_curve(tmp_path / 'a.png', [])
  assert png_size(path) == (900, 600)
