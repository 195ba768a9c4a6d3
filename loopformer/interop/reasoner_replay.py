"""How the published evaluation and training of the reasoners are replayed."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loopformer import core
from loopformer.interop.fields import Fields
from loopformer.interop.reasoners import model_part
from loopformer.interop.replayed import Arrays, Replayed, jit, token_ids
from loopformer.nn.losses import CROSS_ENTROPIES, IGNORE
from loopformer.zoo.family import step

LOSSES = {f'{name}_cross_entropy': f for name, f in CROSS_ENTROPIES.items()}
# The states as the published code names them.
STATES = {
  'z_H': 'high',
  'z_L': 'low',
  'current_hidden': 'hidden',
  'hidden': 'hidden',
  'y': 'y',
}


def segments(
  model: Any, config: Mapping[str, Any], given: Arrays, wanted: Arrays
) -> Replayed:
  """Consecutive segments in evaluation mode from a fresh carry.

  A row halts when it has made as many segments as allowed, and starts anew
  after it. The loss is that of the first segment.
  """
  batch = _batch(model, given)
  fields = Fields(model_part(config))
  longest = fields.size('halt_max_steps', 0) or fields.size('loops', 0)

  def segment(model, state=None):
    context = _context(model, batch)
    state = _start(model, context, given) if state is None else state
    result = core.iterate(
      step,
      state,
      (model, context),
      halt=core.fixed_steps(),
      max_steps=1,
      adjoint=core.full(),
      keys=_keys(batch),
    )
    return result.state, _read(model, result.state, context)

  run = jit(segment)
  state, steps, out = None, 0, {}
  for index in range(_last(wanted, 'seg') + 1):
    state, read = run(model, state)
    steps += 1
    halted = steps == longest
    rows = {'halted': halted, 'steps': np.int32(steps)}
    read |= {
      name: np.full(batch.labels_BS.shape[0], x) for name, x in rows.items()
    }
    out |= {f'seg{index}/{name}': value for name, value in read.items()}
    state, steps = (None, 0) if halted else (state, steps)

  def losses(model):
    return _losses(segment(model)[1]['logits'], batch)

  return Replayed(out, losses, tuple(LOSSES))


def fixed_point(
  model: Any, config: Mapping[str, Any], given: Arrays, wanted: Arrays
) -> Replayed:
  """FPRM's solver from a given y0, read after some of its iterations.

  Evaluation decays the step size by `stepsize_decay_eval`; the loss is that of
  one training window, which decays it by `stepsize_decay_train`.
  """
  batch, fields = _batch(model, given), Fields(model_part(config))
  window = fields.size('n_backwards_L', 1)
  patience = {
    'patience': fields.size('decay_patience', 5),
    'threshold': fields.number('fp_thresh', 0.1),
    'rate': fields.number('stepsize', 1.0),
  }
  training = core.patience_damped(
    decay=fields.number('stepsize_decay_train', 0.9), **patience
  )
  evaluation = core.patience_damped(
    decay=fields.number('stepsize_decay_eval', 0.99), **patience
  )

  def solve(model, solver, steps, carry=None, adjoint=None):
    context = _context(model, batch)
    result = core.iterate(
      step,
      _start(model, context, given),
      (model, context),
      halt=core.fixed_steps(),
      max_steps=steps,
      adjoint=adjoint,
      solver=solver,
      norm='token_max',
      keys=_keys(batch),
      carry=carry,
    )
    return result.carry, _read_solver(model, result, context)

  @jit
  def advance(model, carry, steps):
    return solve(model, evaluation, steps, carry, core.none())

  out: dict[str, Any] = {}
  carry, made = None, 0
  for index in range(1, _last(wanted, 'iter') + 1):
    if any(name.startswith(f'iter{index}/') for name in wanted):
      carry, read = advance(model, carry, index - made)
      made = index
      out |= {f'iter{index}/{name}': value for name, value in read.items()}

  def losses(model):
    return _losses(solve(model, training, window)[1]['logits'], batch)

  return Replayed(out, losses, tuple(LOSSES))


class _Batch(NamedTuple):
  """What the model is run on."""

  inputs_BS: jax.Array
  labels_BS: jax.Array
  puzzles_B: jax.Array


def _batch(model, given):
  """The inputs, checked against the model."""
  cfg = model.cfg
  shape = np.shape(given.get('inputs', ()))
  batch, grid = shape[:1], (*shape[:1], _length(cfg, shape))
  classes = cfg.num_classes or cfg.vocab_size
  rows = {'puzzle_identifiers': np.zeros(batch, np.int32)}
  rows |= given if cfg.puzzle_width else {}
  puzzles = range(cfg.puzzles if cfg.puzzle_width else 1)
  return _Batch(
    token_ids(given, 'inputs', grid, range(cfg.vocab_size)),
    token_ids(given, 'labels', grid, [IGNORE, *range(classes)]),
    token_ids(rows, 'puzzle_identifiers', batch, puzzles),
  )


def _length(cfg, shape):
  """S, or fewer tokens as given where nothing is tied to S."""
  tied = cfg.mixer == 'mlp' or cfg.positions == 'learned'
  if tied or cfg.block.rotary == 'grid' or len(shape) != 2:
    return cfg.seq_len
  return min(shape[1], cfg.seq_len)


def _context(model, batch):
  return model.embed(batch.inputs_BS, model.puzzle_rows(batch.puzzles_B))


def _keys(batch):
  rows = jnp.arange(batch.labels_BS.shape[0])
  return core.row_keys(jax.random.key(0), rows)


def _start(model, context, given):
  """The states as given, or stored; noise cannot be replayed."""
  named = {'y0': 'y', **STATES}
  found = {
    ours: _state(theirs, given[theirs], context.shape)
    for theirs, ours in named.items()
    if theirs in given and ours in model.states
  }
  if set(found) == set(model.states):
    return found
  if model.cfg.start != 'stored':
    raise ValueError(
      f'in/ must hold the initial states {sorted(model.states)}, which are '
      f'drawn at random, got {sorted(found)}.'
    )
  return model.init_state(context, None)


def _state(name, value, shape):
  if value.shape != shape:
    raise ValueError(f'in/{name} must have shape {shape}, got {value.shape}.')
  return jnp.asarray(value, jnp.float32)


def _read(model, state, context):
  q_B2 = model.q_values(state)
  read = {
    'logits': model.readout(state, context),
    'q_halt_logits': q_B2[:, 0],
    'q_continue_logits': q_B2[:, 1],
  }
  states = {
    theirs: state[ours] for theirs, ours in STATES.items() if ours in state
  }
  return {**read, **states}


def _read_solver(model, result, context):
  solver = result.carry.solver
  return {
    **_read(model, result.state, context),
    'residual': result.carry.residual_B,
    'best_residual': solver.best_B,
    'patience': solver.patience_B,
    'stepsize': solver.rate_B,
  }


def _last(wanted, stem):
  """The largest number n of the outputs `<stem><n>/...`; -1 for none."""
  found = [re.match(rf'{stem}(\d+)/', name) for name in wanted]
  return max((int(match[1]) for match in found if match), default=-1)


def _losses(logits_BSV, batch):
  """Sums over the batch."""
  return {
    name: jnp.sum(loss(logits_BSV, batch.labels_BS))
    for name, loss in LOSSES.items()
  }
