"""What is read into a cache: prefixes, padding, mixtures, and its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer import core
from loopformer.core.ponder import ponder
from loopformer.decode import prompts_of
from loopformer.nn.place import place_of, tokens_of
from loopformer.zoo import FAMILIES, Plan, run
from loopformer.zoo.family import output_logits
from tests.decode.engine_test import (
  CONFIGS,
  NEW,
  PROMPTS,
  V,
  depth_of,
  engine_of,
  engine_of_halt,
)
from tests.models import family_model


def test_a_rule_that_mixes_states_writes_from_the_mixture():
  engine = engine_of_halt('ouro', {'name': 'ponder'})
  model = family_model('ouro', CONFIGS['ouro'])
  rule = ponder(FAMILIES['ouro'].heads(model.cfg)['halt'])
  plan = Plan(rule, 4, core.none())
  starts = [[t, u] for t in range(6) for u in (3, 7)]
  result, context = run(model, jnp.asarray(starts), plan)
  wanted = jnp.argmax(output_logits(model, result, context)[:, -1], -1)
  last = jnp.argmax(model.readout(result.state, context)[:, -1], -1)
  assert (wanted != last).any()
  found = engine.generate(prompts_of(starts, vocab_size=V), tokens=1)
  assert found.tokens_BN[:, 0].tolist() == wanted.tolist()


def test_a_prefix_is_read_in_both_directions():
  """The prompt as one block, what is written behind it causally."""
  model = family_model('hrm_text', CONFIGS['hrm_text'])
  prefix = [5, 0, 2]
  prompts = prompts_of(PROMPTS, vocab_size=V, prefix=prefix)
  found = engine_of('hrm_text').generate(prompts, tokens=NEW)

  @jax.jit
  def whole(tokens_BT, prefix_BT):
    keys = tokens_of(jnp.ones(tokens_BT.shape, bool), prefix_BT=prefix_BT)
    context = model.embed(tokens_BT, place_of(model.cfg.block, keys))
    state = model.init_state(context, None)
    plan = Plan(core.fixed_steps(), depth_of('hrm_text'), core.none())
    state = core.iterate(
      lambda s, aux, args, info: model.step(s, aux, context, info),
      state,
      (),
      halt=plan.halt,
      max_steps=plan.max_steps,
      adjoint=plan.adjoint,
    ).state
    return model.readout(state, context)

  for row, prompt in enumerate(PROMPTS):
    tokens = list(prompt)
    for _ in range(NEW):
      padded = jnp.asarray([tokens + [0] * (16 - len(tokens))])
      logits_BTV = whole(padded, jnp.arange(16)[None] < prefix[row])
      tokens.append(int(jnp.argmax(logits_BTV[0, len(tokens) - 1])))
    assert found.tokens_BN[row].tolist() == tokens[len(prompt) :]
  causal = engine_of('hrm_text').start(
    prompts_of(PROMPTS, vocab_size=V), tokens=NEW
  )
  read = engine_of('hrm_text').start(prompts, tokens=NEW)
  # The first row has a prefix, the second has none.
  keys = lambda s, row: [
    np.asarray(x)[..., row, :, :, :]
    for x in jax.tree.leaves(s.cache.stores['high'].keys)
  ]
  pairs = zip(keys(causal, 0), keys(read, 0), strict=True)
  assert not all(np.allclose(a, b) for a, b in pairs)
  for a, b in zip(keys(causal, 1), keys(read, 1), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('tokens', [1, 2, 20, 70])
@pytest.mark.parametrize('halt', [None, {'name': 'fixed_point', 'rtol': 0.1}])
def test_the_size_of_a_cache_is_known_before(halt, tokens):
  """Places are added as a text grows, or are all there where it may halt."""
  engine = engine_of_halt('huginn', halt)
  prompts = prompts_of(PROMPTS, vocab_size=V)
  *_, (session, count) = engine.sessions(prompts, tokens=tokens)
  made = sum(x.nbytes for x in jax.tree.leaves(session.cache.stores))
  assert engine.cache_bytes(3, 5, tokens) == made and count == tokens


@pytest.mark.parametrize('norm', ['l2', 'token_l2_mean'])
def test_a_longer_mate_moves_no_exit(norm):
  """Its prompt pads the others further; padding is in no norm."""
  halt = {'name': 'fixed_point', 'rtol': 0.14, 'norm': norm}
  engine = engine_of_halt('recurrent_depth', halt, 8)
  longer = list(range(1, 12)) * 4
  both = engine.generate(
    prompts_of([PROMPTS[0], longer], vocab_size=V), tokens=2
  )
  alone = engine.generate(prompts_of(PROMPTS[:1], vocab_size=V), tokens=2)
  assert both.depth_BN[0].tolist() == alone.depth_BN[0].tolist()
  assert both.tokens_BN[0].tolist() == alone.tokens_BN[0].tolist()
  assert 1 < int(alone.depth_BN[0, 0]) < 8
