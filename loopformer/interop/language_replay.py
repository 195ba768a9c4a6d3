"""How the published forward passes of the language models are replayed."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loopformer import core
from loopformer.interop.fields import Fields
from loopformer.interop.replayed import Arrays, Replayed, jit, token_ids
from loopformer.nn.losses import IGNORE
from loopformer.nn.place import place_of, tokens_of
from loopformer.zoo.family import step

STEP = re.compile(r'r(\d+)/')


def recurrences(
  model: Any, config: Mapping[str, Any], given: Arrays, wanted: Arrays
) -> Replayed:
  """`out/r{t}/logits` after t recurrences from `in/state0`."""
  del config
  steps = _after(model, given, sorted({_depth(name) for name in wanted}))
  return Replayed(_by_name(steps), lambda model: {})


def gated_recurrences(
  model: Any, config: Mapping[str, Any], given: Arrays, wanted: Arrays
) -> Replayed:
  """Ouro's logits and exit gates after every recurrence, and what they make.

  `out/exit_pdf` [B, T, R], `out/exit_step`, the first step at which its sum
  reaches `early_exit_threshold` (R if none does, or for a threshold of 1), and
  `out/weighted_logits`, the mean of all logits under it.
  """
  last = model.cfg.recurrences
  threshold = Fields(config).number('early_exit_threshold', 1.0)
  deepest = max(map(_depth, filter(STEP.match, wanted)), default=0)
  steps = _after(model, given, range(1, max(last, deepest) + 1))
  counted = [steps[depth] for depth in range(1, last + 1)]
  pdf_BTR = _exit_pdf(np.stack([found['gate'] for found in counted], -1))
  logits = np.stack([found['logits'] for found in counted], -2)
  reached_BTR = (np.cumsum(pdf_BTR, -1) >= threshold) & (threshold < 1)
  reached_BTR[..., -1] = True
  out = {
    **_by_name(steps),
    'exit_pdf': pdf_BTR,
    'exit_step': np.argmax(reached_BTR, -1) + 1,
    'weighted_logits': np.sum(pdf_BTR[..., None] * logits, -2),
  }
  return Replayed(out, lambda model: {})


def _exit_pdf(gates_BTR):
  """p_t = lambda_t prod_{j<t} (1 - lambda_j), the last what is left."""
  stay_BTR = np.cumprod(1 - gates_BTR, -1)
  before_BTR = np.roll(stay_BTR, 1, -1)
  before_BTR[..., 0] = 1
  return np.concatenate(
    [(before_BTR * gates_BTR)[..., :-1], before_BTR[..., -1:]], -1
  )


def _depth(name):
  found = STEP.match(name)
  if not found:
    raise ValueError(f'out/{name} must be of the form out/r1/logits.')
  return int(found[1])


@jit
def _read(model, tokens_BT, start, depth):
  """Logits, and a gate, after a traced number of recurrences."""
  context = model.embed(tokens_BT)
  state = model.init_state(context, None) if start is None else start
  state = _iterate(model, state, context, depth, core.none())
  read = {'logits': model.readout(state, context)}
  if hasattr(model, 'exit_per_token'):
    read['gate'] = model.exit_per_token(state)
  return read


def _after(model, given, depths) -> dict[int, dict[str, Any]]:
  """What is read after each number of recurrences."""
  tokens_BT = _tokens(model, given)
  start = _start(model, given, tokens_BT)
  return {
    depth: _read(model, tokens_BT, start, jnp.int32(depth)) for depth in depths
  }


def _by_name(steps):
  return {
    f'r{depth}/{name}': value
    for depth, read in steps.items()
    for name, value in read.items()
  }


def _start(model, given, tokens_BT):
  """The initial state on file, for models that draw theirs at random."""
  start = getattr(model.cfg, 'start', None)
  if start is None or (start != 'normal' and 'state0' not in given):
    return None
  if 'state0' not in given:
    raise ValueError('in/state0 must be given, got none.')
  shape = (*tokens_BT.shape, model.cfg.loop_block.width)
  if given['state0'].shape != shape:
    raise ValueError(
      f'in/state0 must have shape {shape}, got {given["state0"].shape}.'
    )
  return jnp.asarray(given['state0'], jnp.float32)


def _iterate(model, state, context, steps, adjoint):
  return core.iterate(
    step,
    state,
    (model, context),
    halt=core.fixed_steps(),
    max_steps=steps,
    adjoint=adjoint,
  ).state


def passes(
  model: Any, config: Mapping[str, Any], given: Arrays, wanted: Arrays
) -> Replayed:
  """HRM-Text under its two masks.

  `out/logits_causal`, and `out/logits_types` or `out/logits_prefix{n}` with the
  tokens of type 1 reading each other in both directions. `out/greedy_causal`
  and `out/greedy_types` [B, N] go on from the whole input: each token is the
  best one after those on file before it, and `.._logits` follow the last. The
  loss is the mean cross-entropy of the causal logits under the published
  gradient rule.
  """
  text = _text(model, config, given)
  for name in wanted:
    if re.search('prefix|types', name) and 'types' not in text.prefixes:
      raise ValueError(f'in/token_type_ids must be given for out/{name}.')
  longest = max(
    (wanted[name].shape[1] for name in GREEDY if name in wanted), default=0
  )
  out: dict[str, Any] = {}
  for kind in text.prefixes:
    further_BN = _further(model, wanted, f'greedy_{kind}', text)
    logits = _forward(model, *_continued(text, kind, further_BN, longest))
    length = text.tokens_BT.shape[1]
    out |= _named(kind, np.asarray(logits), length, further_BN.shape[1])
  out |= {
    name: out['logits_types']
    for name in wanted
    if name.startswith('logits_prefix')
  }

  def losses(model):
    labels_BT = _labels(model, given, text)
    masks = jnp.asarray(text.real_BT), jnp.asarray(text.prefixes['causal'])
    logits = _logits(model, text.tokens_BT, *masks, core.full())
    return {'cross_entropy': _cross_entropy(logits, labels_BT)}

  compared_BT = None if text.real_BT.all() else text.real_BT
  return Replayed(out, losses, ('cross_entropy',), compared_BT)


class _Text(NamedTuple):
  """Tokens, which of them are no padding, and blocks by name of the mask."""

  tokens_BT: jax.Array
  real_BT: np.ndarray
  prefixes: Mapping[str, np.ndarray]


def _text(model, config, given):
  tokens_BT = _tokens(model, given)
  shape = tokens_BT.shape
  real_BT = np.ones(shape, bool)
  if 'attention_mask' in given:
    real_BT = _shaped(given, 'attention_mask', shape) != 0
  prefixes = {'causal': np.zeros(shape, bool)}
  if 'token_type_ids' in given:
    types_BT = _shaped(given, 'token_type_ids', shape)
    seen = Fields(config).flag('prefix_lm', True)
    prefixes['types'] = (types_BT == 1) & seen
  return _Text(tokens_BT, real_BT, prefixes)


def _continued(text, kind, further_BN, longest):
  """A text with further tokens, of one length for all masks."""
  spare = longest - further_BN.shape[1]
  tokens_BT = jnp.concatenate([text.tokens_BT, further_BN], 1)
  wider = lambda x, size, value: jnp.pad(
    x, ((0, 0), (0, size)), constant_values=value
  )
  return (
    wider(tokens_BT, spare, 0),
    wider(text.real_BT, longest, True),
    wider(text.prefixes[kind], longest, False),
  )


@jit
def _forward(model, tokens_BT, real_BT, prefix_BT):
  return _logits(model, tokens_BT, real_BT, prefix_BT, core.none())


GREEDY = ('greedy_causal', 'greedy_types')


def _named(kind, logits, length, further):
  """Outputs of one mask: those of the input, and those that go on from it."""
  last = length - 1
  return {
    f'logits_{kind}': logits[:, :length],
    f'greedy_{kind}': np.argmax(logits[:, last : last + further], -1),
    f'greedy_{kind}_logits': logits[:, last + further],
  }


def _logits(model, tokens_BT, real_BT, prefix_BT, adjoint):
  """Logits with padding, which takes positions in the published code."""
  keys = tokens_of(real_BT, prefix_BT=prefix_BT)
  row_T = jnp.arange(tokens_BT.shape[1])
  place = place_of(model.cfg.block, keys).at(
    model.cfg.block, jnp.broadcast_to(row_T, tokens_BT.shape)
  )
  context = model.embed(tokens_BT, place)
  state = model.init_state(context, None)
  state = _iterate(model, state, context, model.cfg.high_cycles, adjoint)
  return model.readout(state, context)


def _shaped(given, name, shape):
  if given[name].shape != shape:
    raise ValueError(
      f'in/{name} must have shape {shape}, got {given[name].shape}.'
    )
  return given[name]


def _further(model, wanted, name, text):
  """Tokens on file that go on from the input; none if there are none."""
  rows = text.tokens_BT.shape[0]
  if name not in wanted:
    return jnp.zeros((rows, 0), jnp.int32)
  shape = (rows, *wanted[name].shape[1:])
  return token_ids(wanted, name, shape, range(model.cfg.vocab_size), at='out')


def _labels(model, given, text):
  allowed = [IGNORE, *range(model.cfg.vocab_size)]
  return token_ids(given, 'labels', text.tokens_BT.shape, allowed)


def _cross_entropy(logits_BTV, labels_BT):
  """Mean over all tokens with a label."""
  labelled_BT = labels_BT != IGNORE
  log_p_BTV = jax.nn.log_softmax(logits_BTV.astype(jnp.float32), -1)
  place_BT1 = jnp.where(labelled_BT, labels_BT, 0)[..., None]
  picked_BT = jnp.take_along_axis(log_p_BTV, place_BT1, -1)[..., 0]
  return -jnp.mean(picked_BT, where=labelled_BT)


def _tokens(model, given) -> jax.Array:
  shape = np.shape(given.get('input_ids', ()))
  if len(shape) != 2:
    raise ValueError(f'in/input_ids must have shape [B, T], got {shape}.')
  return token_ids(given, 'input_ids', shape, range(model.cfg.vocab_size))
