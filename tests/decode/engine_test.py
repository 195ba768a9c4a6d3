"""Cached decoding: equal to the full pass, row by row, for every family."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core import devices
from loopformer.decode import Engine, Sampling, prompts_of
from loopformer.nn.cache import Store
from loopformer.nn.config import BlockConfig
from loopformer.nn.place import place_of, tokens_of
from loopformer.zoo import (
  FAMILIES,
  Plan,
  feedforward,
  hrm_text,
  huginn,
  ouro,
  parcae,
  recurrent_depth,
  run,
  universal,
)
from tests.models import family_model

V, NEW = 13, 6
SIZE = {'width': 8, 'heads': 2, 'hidden': 8}
PLAIN = BlockConfig(mask='causal', **SIZE)
WIDE = {'width': 32, 'heads': 2, 'hidden': 8}
THREE = {'prelude': 1, 'core': 1, 'coda': 1}
CONFIGS = {
  'feedforward': feedforward.Config(
    vocab_size=V, block=PLAIN, layers=2, positions='learned', seq_len=64
  ),
  'universal': universal.Config(
    vocab_size=V, block=PLAIN, injection='concat', positions='sinusoidal'
  ),
  'recurrent_depth': recurrent_depth.Config(
    vocab_size=V, block=BlockConfig(mask='window', window=4, **SIZE), core=1
  ),
  'huginn': huginn.Config(
    vocab_size=V, block=huginn.published_block(**SIZE), **THREE
  ),
  'parcae': parcae.Config(
    vocab_size=V, block=parcae.published_block(**WIDE), **THREE
  ),
  'ouro': ouro.Config(
    vocab_size=V, block=ouro.published_block(kv_heads=1, **SIZE), layers=2
  ),
  'hrm_text': hrm_text.Config(
    vocab_size=V,
    block=hrm_text.published_block(head_size=6, **SIZE),
    layers=1,
    low_cycles=2,
  ),
}
PROMPTS = [[1, 2, 3, 4, 5], [6], [7, 8, 9]]


def marked(names, slow):
  """Test parameters, some of them left to `make test-slow`."""
  return [
    pytest.param(name, marks=[pytest.mark.slow] if name in slow else [])
    for name in names
  ]


def depth_of(name):
  return 1 if name == 'feedforward' else 3


@functools.cache
def engine_of(name, **fields):
  model = family_model(name, CONFIGS[name])
  given = {'recurrences': depth_of(name), **fields}
  return Engine(FAMILIES[name], model, **given)


def policy_engine(policy):
  return engine_of('huginn', policy=policy)


@functools.cache
def full_pass(name, depth):
  """The jitted logits of a row without padding or cache."""

  def logits(model, tokens_BT, keys_B):
    plan = Plan(core.fixed_steps(), depth, core.none())
    result, context = run(model, tokens_BT, plan, keys_B=keys_B)
    return model.readout(result.state, context)

  return jax.jit(logits)


def continued(name, prompt, row, depth=None, count=NEW):
  """Greedy tokens of one row by full passes."""
  model = family_model(name, CONFIGS[name])
  read = full_pass(name, depth or depth_of(name))
  keys_B = core.row_keys(jax.random.key(0), jnp.arange(row, row + 1))
  tokens = list(prompt)
  for _ in range(count):
    padded = jnp.asarray([tokens + [0] * (16 - len(tokens))])
    logits_TV = read(model, padded, keys_B)[0]
    tokens.append(int(jnp.argmax(logits_TV[len(tokens) - 1])))
  return tokens[len(prompt) :]


SLOW = ('recurrent_depth', 'parcae')


@pytest.mark.parametrize('name', marked(CONFIGS, SLOW))
def test_cached_decoding_equals_the_full_pass(name):
  found = engine_of(name).generate(
    prompts_of(PROMPTS, vocab_size=V), tokens=NEW
  )
  for row, prompt in enumerate(PROMPTS):
    assert found.tokens_BN[row].tolist() == continued(name, prompt, row)
  assert (found.depth_BN[:, : NEW - 1] == depth_of(name)).all()
  assert found.lengths_B.tolist() == [NEW] * 3


@pytest.mark.parametrize('name', ['huginn', 'hrm_text'])
def test_padding_never_moves_a_logit(name):
  model, depth = family_model(name, CONFIGS[name]), depth_of(name)
  keys_B = core.row_keys(jax.random.key(0), jnp.arange(1))
  plan = Plan(core.fixed_steps(), depth, core.none())

  @jax.jit
  def padded(tokens_BT, real_BT):
    place = place_of(model.cfg.block, tokens_of(real_BT))
    context = model.embed(tokens_BT, place)
    state = model.init_state(context, keys_B)
    for _ in range(depth):
      info = core.LoopInfo(
        jnp.int32(0), jnp.zeros(1, jnp.int32), jnp.ones(1, bool), None
      )
      state, _ = model.step(state, (), context, info)
    return model.readout(state, context)

  result, context = run(model, jnp.asarray([PROMPTS[0]]), plan, keys_B=keys_B)
  want = model.readout(result.state, context)
  for left, right in ((3, 0), (0, 3), (2, 1)):
    tokens = jnp.asarray([[9] * left + PROMPTS[0] + [9] * right])
    real = jnp.asarray([[False] * left + [True] * 5 + [False] * right])
    found = padded(tokens, real)[:, left : left + 5]
    np.testing.assert_allclose(found, want, atol=1e-5)


@pytest.mark.parametrize('fields', [{}, {'halt': 'fixed point'}])
def test_batch_mates_never_change_a_row(fields):
  halt = {'name': 'fixed_point', 'rtol': 0.5} if fields else None
  engine = engine_of_halt('ouro', halt)
  whole = engine.generate(prompts_of(PROMPTS, vocab_size=V), tokens=NEW)
  for row, prompt in enumerate(PROMPTS):
    alone = engine.generate(
      prompts_of([prompt], vocab_size=V), tokens=NEW, ids=[row]
    )
    assert alone.tokens_BN[0].tolist() == whole.tokens_BN[row].tolist()
    assert alone.depth_BN[0].tolist() == whole.depth_BN[row].tolist()


@functools.cache
def _engine_of_halt(name, text, recurrences):
  halt = dict(text) if text else None
  model = family_model(name, CONFIGS[name])
  return Engine(FAMILIES[name], model, recurrences=recurrences, halt=halt)


def engine_of_halt(name, halt, recurrences=4):
  text = tuple(sorted(halt.items())) if halt else None
  return _engine_of_halt(name, text, recurrences)


def test_fewer_recurrences_are_those_of_a_shallower_model():
  found = engine_of('ouro').generate(
    prompts_of([PROMPTS[0]], vocab_size=V), tokens=NEW, recurrences=2
  )
  assert found.tokens_BN[0].tolist() == continued('ouro', PROMPTS[0], 0, 2)
  assert found.depth_BN[0, : NEW - 1].tolist() == [2] * (NEW - 1)


def test_written_out_recurrences_are_those_of_the_loop():
  prompts = prompts_of(PROMPTS, vocab_size=V)
  never = {'name': 'fixed_point', 'rtol': 1e-6}
  written = engine_of_halt('ouro', None)
  looped = engine_of_halt('ouro', never)
  assert written.rule.unrolled and not looped.rule.unrolled
  ours, theirs = (e.start(prompts, tokens=NEW) for e in (written, looped))
  step = lambda e, s: e._advance(
    e.spread.copies(3).arrays, s, jnp.int32(18), e._limit(None), span=32
  )
  ours, theirs = step(written, ours), step(looped, theirs)
  stores = {
    name: Store(*(jnp.stack([jnp.stack(x) for x in grid]) for grid in store))
    for name, store in ours.cache.stores.items()
  }
  cache = dataclasses.replace(ours.cache, stores=stores)
  ours = ours._replace(cache=cache)
  for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
    if jnp.issubdtype(a.dtype, jnp.floating):
      np.testing.assert_allclose(a, b, atol=1e-5)
    elif not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  'policy',
  marked(['modulo:3', 'stride:1', 'anchor:3'], ['stride:1', 'anchor:3']),
)
def test_a_policy_with_a_slot_for_each_call_is_full(policy):
  prompts = prompts_of(PROMPTS, vocab_size=V)
  found = policy_engine(policy).generate(prompts, tokens=NEW)
  want = policy_engine('full').generate(prompts, tokens=NEW)
  np.testing.assert_array_equal(found.tokens_BN, want.tokens_BN)


def test_a_cheaper_policy_changes_what_later_tokens_read_alone():
  prompts = prompts_of(PROMPTS, vocab_size=V)
  sessions = {
    policy: policy_engine(policy).start(prompts, tokens=NEW)
    for policy in ('full', 'last')
  }
  # Prefill reads each recurrence before it is overwritten: the same token.
  np.testing.assert_array_equal(
    sessions['last'].next_B, sessions['full'].next_B
  )
  kept = {p: s.cache.stores['core'].keys for p, s in sessions.items()}
  np.testing.assert_array_equal(kept['last'][0], kept['full'][-1])
  size = {p: sum(x.size for x in jax.tree.leaves(kept[p])) for p in kept}
  assert size['last'] * 3 == size['full']


def test_an_exit_after_one_recurrence_saves_the_others():
  always = {'name': 'fixed_point', 'rtol': 1e6}
  shallow = engine_of_halt('ouro', always).generate(
    prompts_of(PROMPTS, vocab_size=V), tokens=NEW
  )
  assert (shallow.depth_BN[:, : NEW - 1] == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize('quantile, depth', [(1.0, 4), (0.0, 1)])
def test_the_exit_gate_at_its_ends(quantile, depth):
  halt = {'name': 'cdf', 'quantile': quantile}
  found = engine_of_halt('ouro', halt).generate(
    prompts_of(PROMPTS, vocab_size=V), tokens=3
  )
  assert (found.depth_BN[:, :2] == depth).all()


@pytest.mark.slow
def test_an_exit_on_logits_reads_them_through_the_coda():
  halt = {'name': 'kl', 'threshold': 1e9}
  found = engine_of_halt('huginn', halt).generate(
    prompts_of(PROMPTS, vocab_size=V), tokens=3
  )
  assert (found.depth_BN[:, :2] == 1).all()


def test_the_end_of_a_text_stops_its_row():
  prompts = prompts_of(PROMPTS, vocab_size=V)
  free = engine_of('ouro').generate(prompts, tokens=NEW)
  end = int(free.tokens_BN[0, 1])
  found = engine_of('ouro', end=end).generate(prompts, tokens=NEW)
  for row in range(3):
    tokens = free.tokens_BN[row].tolist()
    length = tokens.index(end) + 1 if end in tokens else NEW
    assert found.lengths_B[row] == length
    assert found.tokens_BN[row, :length].tolist() == tokens[:length]
    assert not found.tokens_BN[row, length:].any()


def test_streaming_grows_to_the_same_text():
  prompts = prompts_of(PROMPTS, vocab_size=V)
  whole = engine_of('ouro').generate(prompts, tokens=NEW)
  parts = list(engine_of('ouro').stream(prompts, tokens=NEW, every=2))
  assert [p.tokens_BN.shape[1] for p in parts] == [1, 3, 5, 6]
  for part in parts:
    width = part.tokens_BN.shape[1]
    np.testing.assert_array_equal(part.tokens_BN, whole.tokens_BN[:, :width])


def test_programs_are_counted_and_reused():
  engine = Engine(
    FAMILIES['ouro'],
    family_model('ouro', CONFIGS['ouro']),
    recurrences=2,
    halt={'name': 'fixed_point', 'rtol': 0.1},
    sampling=Sampling(temperature=1.0),
  )
  prompts = prompts_of(PROMPTS, vocab_size=V)
  engine.generate(prompts, tokens=4)
  count = engine.compiled
  engine.generate(prompts, tokens=9, key=jax.random.key(1), recurrences=1)
  assert engine.compiled == count == 2


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'recurrences': 4}, r'recurrences must be in \[1, 3\], the depth of the'),
    ({'tokens': 0}, 'tokens must be >= 1, got 0.'),
  ],
)
def test_wrong_requests_are_refused(given, message):
  with pytest.raises(ValueError, match=message):
    engine_of('ouro').generate(
      prompts_of(PROMPTS, vocab_size=V), **{'tokens': 2, **given}
    )


def test_a_cache_larger_than_the_memory_is_refused(monkeypatch):
  engine = engine_of.__wrapped__('ouro')
  prompts = prompts_of(PROMPTS, vocab_size=V)
  length = prompts.tokens_BT.shape[1]
  needed = engine.cache_bytes(len(PROMPTS), length, 2)
  monkeypatch.setattr(devices, 'memory', lambda _: needed - 1)
  with pytest.raises(ValueError, match='recurrences = 3, .* must fit'):
    engine.generate(prompts, tokens=2)
  assert not engine.compiled
  monkeypatch.setattr(devices, 'memory', lambda _: needed)
  engine.start(prompts, tokens=2)


def test_a_text_must_fit_the_learned_positions():
  with pytest.raises(ValueError, match='must fit seq_len = 64, got 65'):
    engine_of('feedforward').generate(
      prompts_of(PROMPTS, vocab_size=V), tokens=60
    )


def test_padding_takes_no_learned_positions():
  cfg = dataclasses.replace(CONFIGS['feedforward'], seq_len=9)
  engine = Engine(
    FAMILIES['feedforward'], family_model('feedforward', cfg), recurrences=1
  )
  found = engine.generate(prompts_of(PROMPTS[1:], vocab_size=V), tokens=6)
  assert found.lengths_B.tolist() == [6, 6]


def test_models_that_do_not_read_text_are_refused():
  cfg = feedforward.Config(vocab_size=V, block=BlockConfig(**SIZE))
  with pytest.raises(ValueError, match="block.mask must be 'causal'"):
    Engine(
      FAMILIES['feedforward'], family_model('feedforward', cfg), recurrences=1
    )
