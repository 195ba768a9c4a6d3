"""Reading tokens into a cache and out of a model: pure functions.

    prefill   all tokens of the prompts at once, in rows padded in front
    advance   one token after another in a compiled loop

Each token runs the model's whole loop, every recurrence with the keys and
values that earlier tokens left at that recurrence. Rows stop looping, and stop
writing, on their own; nothing a row computes depends on its batch mates.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from loopformer import core
from loopformer.decode.sampling import Sampling, choose
from loopformer.nn.cache import Cache, allocate, fill_skipped
from loopformer.nn.place import Keys, place_of, tokens_of
from loopformer.nn.slots import Part, Policy


class Rule(NamedTuple):
  """How deep a token goes.

  Attributes:
    halt: when a row stops; heads get `(model, context, cache)`.
    recurrences: the cap, for which the cache has slots.
    adaptive: whether rows may stop before the cap.
    unrolled: whether the recurrences of a token are written out one by one, so
      that each reads its own arrays of a cache that keeps them apart, without a
      copy; the limit is then a Python number.
    norm: of the residual.
  """

  halt: core.HaltRule
  recurrences: int
  adaptive: bool
  unrolled: bool = False
  norm: str = 'l2'


class Session(NamedTuple):
  """Everything a batch of texts in progress is made of.

  Attributes:
    cache: keys and values of the tokens read.
    tokens_BS: tokens read and written, by index in the cache.
    keys: positions of these tokens, and which of them are real.
    next_B: the token of each row that was drawn and not read yet.
    cursor: its index in the cache.
    keys_B: one key per row.
    done_B: rows that have drawn the end of their text.
    depth_BS: recurrences made for each token.
  """

  cache: Cache
  tokens_BS: Int[Array, 'B S']
  keys: Keys
  next_B: Int[Array, ' B']
  cursor: Int[Array, '']
  keys_B: Any
  done_B: Bool[Array, ' B']
  depth_BS: Int[Array, 'B S']


def read_tokens(
  model: Any,
  tokens_BT: Int[Array, 'B T'],
  place: Any,
  cache: Cache,
  rule: Rule,
  keys_B: Any,
  limit: Any,
  live_B: Array,
  real_BT: Array | None = None,
) -> tuple[Float[Array, 'B V'], Cache, Int[Array, ' B']]:
  """Logits after the last token, the cache with all, recurrences per row.

  Rows that are not live make one recurrence, of which nothing is kept. Padding,
  where `real_BT` is false, is held at zero, so that no rule sees it move.
  """
  context, cache = model.read(tokens_BT, place, cache)
  state = _held(model.init_state(context, keys_B), real_BT)
  parts = model.cache_parts()
  looped = {name for name, part in parts.items() if part.calls}
  # What the loop carries must stand in no other of its arguments, or every
  # recurrence would copy it.
  around, inner = cache.only(parts.keys() - looped), cache.only(looped)
  args = model, context, around, real_BT
  if rule.unrolled:
    state, inner, steps_B = _one_by_one(state, inner, args, keys_B, limit)
  else:
    most_B = jnp.where(live_B, limit, 1)
    state, inner, steps_B = _until(rule, state, inner, args, keys_B, most_B)
  if rule.adaptive:
    inner = fill_skipped(
      inner,
      {name: parts[name] for name in looped},
      steps_B,
      recurrences=rule.recurrences,
    )
  logits_BTV, around = model.write(state, context, around)
  return logits_BTV[:, -1], cache.joined(inner).joined(around), steps_B


def _until(rule, state, inner, args, keys_B, most_B):
  """Recurrences until each row stops, in a compiled loop."""
  result = core.iterate(
    _step,
    state,
    args,
    halt=core.any_of(rule.halt, core.fixed_steps(most_B)),
    max_steps=rule.recurrences,
    adjoint=core.none(),
    aux=inner,
    keys=keys_B,
    norm=rule.norm,
  )
  state = result.state if result.mixed is None else result.mixed
  return state, result.aux, result.steps_B


def _one_by_one(state, inner, args, keys_B, count):
  """So many recurrences of every row, written out."""
  live_B = jnp.ones(keys_B.shape, bool)
  for t in range(count):
    steps_B = jnp.full(keys_B.shape, t)
    step_keys_B = core.rows.fold_rows(keys_B, steps_B)
    info = core.LoopInfo(t, steps_B, live_B, step_keys_B)
    state, inner = _step(state, inner, args, info)
  return state, inner, jnp.full(keys_B.shape, count)


def _step(state, aux, args, info):
  model, context, _, real_BT = args
  state, aux = model.step(state, aux, context, info)
  return _held(state, real_BT), aux


def _held(state, real_BT):
  """The state with padding at zero."""
  if real_BT is None:
    return state
  keep = lambda x: jnp.where(core.rows.expand(real_BT, x), x, 0)
  return jax.tree.map(keep, state)


def read_logits(state: Any, args: Any) -> Float[Array, 'B V']:
  """The head that exits read: logits after the last token, coda included."""
  model, context, cache, _ = args
  return model.write(state, context, cache)[0][:, -1]


def prefill(
  model: Any,
  tokens_BT: Int[Array, 'B T'],
  real_BT: Bool[Array, 'B T'],
  prefix_BT: Bool[Array, 'B T'],
  ids_B: Int[Array, ' B'],
  key: Any,
  limit: Any,
  *,
  rule: Rule,
  sampling: Sampling,
  policy: Policy,
  parts: Mapping[str, Part],
  room: int,
  kept: int,
  dtype: Any,
) -> Session:
  """Reads the prompts, padded in front, and draws the first token.

  Tokens of the prefix read each other in both directions.

  The cache of these parts, for `kept` of the `room` tokens that texts may have,
  is made here: where it will be used, and without a copy.
  """
  batch, length = tokens_BT.shape
  keys_B = core.row_keys(key, ids_B)
  keys = tokens_of(real_BT, prefix_BT=prefix_BT)
  place = place_of(model.cfg.block, keys)
  cache = allocate(
    parts,
    policy,
    rows=batch,
    length=kept,
    recurrences=rule.recurrences,
    dtype=dtype,
  )
  cache = cache.apart() if rule.unrolled else cache
  cache = cache.opened(length, fresh=True, span=0)
  live_B = jnp.ones(batch, bool)
  logits_BV, cache, steps_B = read_tokens(
    model, tokens_BT, place, cache, rule, keys_B, limit, live_B, real_BT
  )
  spare = ((0, 0), (0, room - length))
  count_B = real_BT.sum(-1, dtype=jnp.int32)
  return Session(
    cache=cache.commit(0),
    tokens_BS=jnp.pad(tokens_BT, spare),
    keys=Keys(jnp.pad(keys.positions_BS, spare), jnp.pad(real_BT, spare)),
    next_B=choose(logits_BV, _draw_keys(keys_B, count_B), sampling),
    cursor=jnp.int32(length),
    keys_B=keys_B,
    done_B=jnp.zeros(batch, bool),
    depth_BS=jnp.pad(jnp.where(real_BT, steps_B[:, None], 0), spare),
  )


def advance(
  model: Any,
  session: Session,
  until: Int[Array, ''],
  limit: Any,
  *,
  rule: Rule,
  sampling: Sampling,
  end: int,
  span: int,
) -> Session:
  """Reads the drawn token and draws another until the cursor is at `until`.

  Ends sooner once every row is done. Only the first `span` entries of the cache
  are read, so the time of a token does not grow with what is allocated; none of
  those behind `until` may be needed. A cache whose slots and layers are apart
  has no others.
  """
  body = functools.partial(
    _write_one,
    model,
    limit=limit,
    rule=rule,
    sampling=sampling,
    end=end,
    span=span,
  )
  going = lambda s: (s.cursor < until) & ~jnp.all(s.done_B)
  return jax.lax.while_loop(going, body, session)


def _write_one(model, session, *, limit, rule, sampling, end, span):
  """One token of every row."""
  at, kept = session.cursor, session.cache
  done_B = session.done_B | (session.next_B == end)
  past = Keys(*(x[:, :span] for x in session.keys[:2]))
  count_B = session.keys.real_BS.sum(-1, dtype=jnp.int32)
  token = Keys(count_B[:, None], ~done_B[:, None])
  logits_BV, cache, steps_B = read_tokens(
    model,
    session.next_B[:, None],
    place_of(model.cfg.block, token, past),
    kept.opened(1, fresh=False, span=span),
    rule,
    session.keys_B,
    limit,
    ~done_B,
  )
  draw_keys_B = _draw_keys(session.keys_B, count_B + 1)
  drawn_B = choose(logits_BV, draw_keys_B, sampling)
  # No token is negative: the index waits for all reads, so that the compiler
  # need not keep a copy of what is overwritten.
  cache = cache.commit(at + jnp.minimum(drawn_B.min(), 0))
  put = lambda all_BS, new_B: jax.lax.dynamic_update_slice_in_dim(
    all_BS, new_B[:, None], at, 1
  )
  return session._replace(
    cache=dataclasses.replace(kept, stores=cache.stores),
    tokens_BS=put(session.tokens_BS, session.next_B),
    keys=Keys(*map(put, session.keys[:2], (count_B, ~done_B))),
    next_B=jnp.where(done_B, session.next_B, drawn_B),
    cursor=at + 1,
    done_B=done_B,
    depth_BS=put(session.depth_BS, jnp.where(done_B, 0, steps_B)),
  )


def _draw_keys(keys_B, count_B):
  """One key per row and position, apart from those of the model's noise."""
  drawing_B = core.rows.fold_rows(keys_B, jnp.full_like(count_B, -1))
  return core.rows.fold_rows(drawing_B, count_B)
