"""The reasoners' chassis: start, layers, heads and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loopformer.nn.puzzle_embedding import CUT_AT_TWO
from loopformer.nn.reasoner import (
  Reasoner,
  ReasonerConfig,
  ReasonerStack,
  published_block,
  repeat,
)
from loopformer.nn.variables import abstract, count_parameters
from tests.models import f64, made, normal, random, row_keys
from tests.reasoners import BLOCK, INPUTS, TINY, D, L, P, S, assert_zero

CFG = ReasonerConfig(**TINY)
NOISE = dataclasses.replace(CFG, start='normal')
ACROSS = dataclasses.replace(CFG, mixer='mlp', mixer_hidden=6)
STDS = {'low': 2.0, 'high': 1.0}
begin = jax.jit(lambda m, x, keys: m.init_state(x, keys))


def reasoner(cfg, make=random):
  return make(lambda rngs: Reasoner(cfg, STDS, rngs=rngs))


@pytest.mark.parametrize('vocab_size, width', [(11, 512), (6, 128)])
def test_widths_of_the_published_block(vocab_size, width):
  """8 D / 3 rounded up to a multiple of 256; no gains, one head."""
  block = published_block(width=width)
  assert block.hidden_width == {512: 1536, 128: 512}[width]
  cfg = ReasonerConfig(vocab_size=vocab_size, block=block)
  count = count_parameters(reasoner(cfg, abstract))
  assert count == 2 * vocab_size * width + 2 * width + 2


@pytest.mark.parametrize(
  'seq_len, prefix, hidden', [(81, 16, 512), (81, 1, 256), (900, 16, 2560)]
)
def test_widths_across_the_tokens(seq_len, prefix, hidden):
  cfg = ReasonerConfig(seq_len=seq_len, prefix=prefix, mixer='mlp')
  assert cfg.mixer_block.hidden_width == hidden


def test_a_stored_start_is_the_same_vector_everywhere():
  model, x_BLD = reasoner(CFG), normal(2, L, D)
  for name, state in begin(model, x_BLD, None).items():
    want = np.broadcast_to(model.start[name][...], state.shape)
    np.testing.assert_array_equal(state, want)


def test_a_noisy_start_is_fresh_cut_and_of_its_size():
  model, x_BLD = reasoner(NOISE), jnp.zeros((32, 16, D))
  state = begin(model, x_BLD, row_keys(32))
  for name, std in STDS.items():
    noise = f64(state[name])
    assert noise.std() == pytest.approx(std, rel=0.03)
    assert np.abs(noise).max() <= 2 * std / CUT_AT_TWO
  together = np.corrcoef(state['low'].ravel(), state['high'].ravel())
  assert abs(together[0, 1]) < 0.05
  alone = begin(model, x_BLD[:1, :5], row_keys(32)[9:10])
  np.testing.assert_array_equal(alone['high'][0], state['high'][9, :5])


def test_a_noisy_start_needs_keys():
  with pytest.raises(ValueError, match='^keys must be given for a normal'):
    reasoner(NOISE).init_state(jnp.zeros((2, L, D)), None)


def test_the_answer_is_the_last_state_without_the_prefix():
  model = reasoner(CFG)
  state = {'low': normal(2, L, D), 'high': normal(2, L, D, seed=1)}
  high = f64(state['high'])
  logits = model.readout(state, state['low'])
  want = high[:, P:] @ f64(model.head.kernel)
  np.testing.assert_allclose(logits, want, atol=1e-5)
  want = high[:, 0] @ f64(model.q_head.kernel) + f64(model.q_head.bias)
  np.testing.assert_allclose(model.q_values(state), want, atol=1e-5)


def test_at_the_start_nothing_wants_to_halt():
  model = reasoner(CFG, made)
  q_B2 = model.q_values({'high': 100 * normal(3, L, D)})
  np.testing.assert_array_equal(q_B2, -5.0)


def test_a_probability_of_stopping_takes_the_place_of_the_values():
  cfg = dataclasses.replace(CFG, halting='probability', halting_bias=0.0)
  model, state = reasoner(cfg), {'high': normal(3, L, D)}
  head = model.halt_head
  logit_B1 = f64(state['high'])[:, 0] @ f64(head.kernel) + f64(head.bias)
  want_B = 1 / (1 + np.exp(-logit_B1[:, 0]))
  np.testing.assert_allclose(model.halt_probability(state), want_B, rtol=1e-5)
  np.testing.assert_array_equal(
    reasoner(cfg, made).halt_probability(state), 0.5
  )
  assert not hasattr(model, 'q_head')


def rms(x, axis):
  return x / np.sqrt(np.mean(x**2, axis, keepdims=True) + 1e-5)


def swiglu(mlp, x):
  gate, value = np.split(x @ f64(mlp.up.kernel)[0], 2, -1)
  return gate / (1 + np.exp(-gate)) * value @ f64(mlp.down.kernel)[0]


def test_an_mlp_across_the_tokens_by_hand():
  """Its norm too is over the tokens, channel by channel."""
  stack = random(lambda rngs: ReasonerStack(ACROSS, 1, rngs=rngs))
  z_BLD, x_BLD = normal(2, L, D), normal(2, L, D, seed=1)
  h = f64(z_BLD) + f64(x_BLD)
  mixed = swiglu(stack.layers.mixer.layer, h.swapaxes(1, 2))
  h = rms(h + mixed.swapaxes(1, 2), 1)
  want = rms(h + swiglu(stack.layers.mlp.layer, h), 2)
  got = jax.jit(lambda f, z, x: f(z, x))(stack, z_BLD, x_BLD)
  np.testing.assert_allclose(got, want, atol=2e-5)


def test_what_is_injected_is_added_once():
  cfg = dataclasses.replace(CFG, block=dataclasses.replace(BLOCK, style='pre'))
  stack = random(lambda rngs: ReasonerStack(cfg, 2, rngs=rngs))
  silent = jax.tree.map(jnp.zeros_like, stack)
  z_BLD, x_BLD = normal(2, L, D), normal(2, L, D, seed=1)
  np.testing.assert_array_equal(silent(z_BLD, x_BLD), z_BLD + x_BLD)


def test_repeat_counts_from_the_start():
  add = lambda s, i: 10 * s + i
  assert repeat(add, jnp.int32(0), 3, 4) == 456
  assert repeat(add, 7, 0) == 7


@pytest.mark.parametrize('fields', [{'mixer': 'mlp'}, {'positions': 'learned'}])
@pytest.mark.parametrize('length', [1, S + 1])
def test_weights_tied_to_a_length_refuse_another(fields, length):
  cfg = dataclasses.replace(CFG, **fields)
  with pytest.raises(ValueError, match=f'^inputs .* = 4 tokens.* got {length}'):
    reasoner(cfg).embed(jnp.ones((2, length), int))


def test_attention_takes_any_length():
  x_BLD = reasoner(CFG).embed(INPUTS[:, :3])
  assert x_BLD.shape == (2, P + 3, D)
  assert_zero(x_BLD[:, 1, TINY['puzzle_width'] - D :])


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'vocab_size': 0}, 'vocab_size must be >= 1, got 0.'),
    ({'seq_len': 0}, 'seq_len must be >= 1, got 0.'),
    ({'layers': 0}, 'layers must be >= 1, got 0.'),
    ({'puzzles': 0}, 'puzzles must be >= 1, got 0.'),
    ({'num_classes': -1}, 'num_classes must be >= 0, got -1.'),
    ({'mixer_hidden': -1}, 'mixer_hidden must be >= 0, got -1.'),
    ({'mlp_taps': -1}, 'mlp_taps must be >= 0, got -1.'),
    ({'start_std': -1.0}, 'start_std must be >= 0, got -1.0.'),
    (
      {'mixer': 'conv'},
      "mixer must be one of ('attention', 'mlp'), got 'conv'.",
    ),
    (
      {'positions': 'rope'},
      "positions must be one of ('none', 'learned'), got 'rope'.",
    ),
    (
      {'start': 'zero'},
      "start must be one of ('stored', 'normal'), got 'zero'.",
    ),
    (
      {'halting': 'act'},
      "halting must be one of ('q', 'probability'), got 'act'.",
    ),
    (
      {'puzzle_width': 1025, 'prefix': 2},
      'puzzle_width must be <= prefix * width = 1024, got 1025.',
    ),
  ],
)
def test_errors_name_the_field(fields, message):
  with pytest.raises(ValueError) as error:
    ReasonerConfig(**fields)
  assert str(error.value) == message
