"""The host's side of generation: buckets, compiled programs, results."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from loopformer import core
from loopformer.core.devices import check_memory
from loopformer.decode import session as decode
from loopformer.decode import spread
from loopformer.decode.prompts import Prompts, bucket_of, span_of
from loopformer.decode.sampling import Sampling
from loopformer.nn import cache as caches
from loopformer.nn import slots
from loopformer.nn.stack import unstacked
from loopformer.zoo.choices import make_rule
from loopformer.zoo.family import Family

# Layers passed per token up to which recurrences are written out one by one.
UNROLLED = 32
# No token has this id, so that no row ends before its time.
NO_END = -1


class Generated(NamedTuple):
  """What was written behind each prompt.

  Attributes:
    tokens_BN: tokens, the end included; 0 behind it.
    lengths_B: tokens of each row.
    depth_BN: recurrences made when each token was read; the last one drawn was
      not read.
  """

  tokens_BN: Int[np.ndarray, 'B N']
  lengths_B: Int[np.ndarray, ' B']
  depth_BN: Int[np.ndarray, 'B N']


class Engine:
  """Generates text with one model under fixed choices.

  Programs are compiled per batch size, prompt bucket (powers of two) and span
  of the cache that is read (two per octave), and per recurrences where these
  are written out; `compiled` counts them.
  """

  def __init__(
    self,
    family: Family,
    model: Any,
    *,
    recurrences: int,
    policy: str = 'full',
    halt: Mapping[str, Any] | None = None,
    sampling: Sampling | None = None,
    end: int = NO_END,
    norm: str = 'token_l2_mean',
    dtype: Any = jnp.float32,
    devices: Sequence[Any] | None = None,
    shared: str = 'auto',
  ):
    """Prepares a model for generation.

    Args:
      family: the model's family, for the heads that exits read.
      model: a causal model with `read`, `step`, `write` and `cache_parts`.
      recurrences: most recurrences per token; the cache has slots for them.
      policy: see `loopformer.nn.slots.policy_of`.
      halt: a halt rule by name and arguments; None makes all recurrences.
      sampling: greedy for None.
      end: id of the token that ends a text.
      norm: of the relative change that fixed-point rules read.
      dtype: of the cache.
      devices: work on a batch together; None leaves the choice to JAX.
      shared: what they share, `rows`, `heads` (of the layers, with the hidden
        units) or `auto`, see `loopformer.decode.spread`.

    Raises:
      ValueError: if the model cannot be decoded, a number is below 1, a name
        unknown, or heads are not divided by the devices.
    """
    _check(model, recurrences)
    self.recurrences, self.dtype, self.end = recurrences, dtype, end
    self.policy = slots.policy_of(policy)
    self.sampling = sampling or Sampling()
    self.parts = model.cache_parts()
    self.vocab_size = model.cfg.vocab_size
    self.seq_len = model.cfg.seq_len if _bounded(model) else None
    heads = {**family.heads(model.cfg), 'logits': decode.read_logits}
    self.rule = _rule(halt, heads, self.parts, recurrences, norm)
    self.spread = spread.Spread(unstacked(model), devices or (), shared)
    self.compiled = 0
    self._prefill = jax.jit(
      self._counted(spread.prefill, policy=self.policy, dtype=dtype),
      static_argnums=6 if self.rule.unrolled else (),
      static_argnames=('room', 'kept'),
    )
    self._widen = jax.jit(self._widened, static_argnames='kept')
    self._advance = jax.jit(
      self._counted(spread.advance, end=end),
      static_argnums=3 if self.rule.unrolled else (),
      static_argnames='span',
      donate_argnums=1,
    )

  def _counted(self, function, **fixed):
    """The function with its choices made; counts how often it is traced."""

    def traced(arrays, *args, **kwargs):
      self.compiled += 1
      choices = {'rule': self.rule, 'sampling': self.sampling, **fixed}
      return function(self.spread, arrays, *args, **choices, **kwargs)

    traced.__name__ = function.__name__
    return traced

  def _widened(self, cache, *, kept):
    self.compiled += 1
    return cache.widened(kept)

  def cache_bytes(self, rows: int, prompt: int, tokens: int) -> int:
    """Bytes of the cache once so many tokens stand behind such prompts."""
    bucket = bucket_of(prompt)
    last = bucket + max(tokens - 1, 1)
    return caches.nbytes(
      self.parts,
      self.policy,
      rows=rows,
      length=self._kept(last, _room(bucket, tokens)),
      recurrences=self.recurrences,
      dtype=self.dtype,
    )

  def start(
    self,
    prompts: Prompts,
    *,
    tokens: int,
    key: Any = None,
    ids: Any = None,
    recurrences: int | None = None,
  ) -> decode.Session:
    """Reads prompts, to write at most so many tokens behind them.

    The cache has places for the first of these; `sessions` adds others.

    Raises:
      ValueError: if `tokens` is below 1, the text would be longer than the
        model's positions, `recurrences` exceed the cache's, or the cache the
        memory.
    """
    batch, length = prompts.tokens_BT.shape
    longest = int(prompts.real_BT.sum(-1).max()) + tokens
    self._check_room(tokens, longest, recurrences)
    self._check_memory(batch, length, tokens)
    room = _room(length, tokens)
    key = jax.random.key(0) if key is None else key
    ids = np.arange(batch) if ids is None else np.asarray(ids)
    return self._prefill(
      self.spread.copies(batch, length).arrays,
      prompts.tokens_BT,
      prompts.real_BT,
      prompts.prefix_BT,
      ids,
      key,
      self._limit(recurrences),
      room=room,
      kept=self._kept(length + 1, room),
    )

  def sessions(
    self,
    prompts: Prompts,
    *,
    tokens: int,
    every: int = 0,
    key: Any = None,
    ids: Any = None,
    recurrences: int | None = None,
  ) -> Iterator[tuple[decode.Session, int]]:
    """The session after every `every` tokens, at the end for 0, and how many
    tokens a row that has not ended has by then.

    The next one takes the memory of the one before.
    """
    session = self.start(
      prompts, tokens=tokens, key=key, ids=ids, recurrences=recurrences
    )
    rows, first = prompts.tokens_BT.shape
    cursor, last = first, first + tokens - 1
    room = session.tokens_BS.shape[1]
    while True:
      if every:
        yield session, cursor - first + 1
      if cursor >= last or self._done(session):
        break
      span = min(span_of(cursor + 1), room)
      until = min(span, last, cursor + every if every else last)
      session = self._advance(
        self.spread.copies(rows).arrays,
        self._with_places(session, self._kept(cursor + 1, room)),
        np.int32(until),
        self._limit(recurrences),
        span=span,
      )
      cursor = until
    if not every:
      yield session, tokens

  def stream(self, prompts: Prompts, **given: Any) -> Iterator[Generated]:
    """What there is at every session; arguments as for `sessions`."""
    first = prompts.tokens_BT.shape[1]
    for session, count in self.sessions(prompts, **given):
      yield self._generated(session, first, count)

  def generate(self, prompts: Prompts, **given: Any) -> Generated:
    """All tokens at once; arguments as for `sessions`."""
    *_, last = self.stream(prompts, **given)
    return last

  def _kept(self, tokens, room):
    """Places of a cache for the first of `room` tokens."""
    return min(span_of(tokens), room) if self.rule.unrolled else room

  def _with_places(self, session, kept):
    """The session with that many places; the cache stays as it is if it has."""
    if jax.tree.leaves(session.cache.stores)[0].shape[-2] == kept:
      return session
    return session._replace(cache=self._widen(session.cache, kept=kept))

  def _done(self, session):
    """Whether all texts have ended; without an end there is no wait for it."""
    return self.end != NO_END and bool(session.done_B.all())

  def _limit(self, recurrences):
    """Recurrences per token: known to an unrolled program, else traced."""
    limit = self.recurrences if recurrences is None else recurrences
    return limit if self.rule.unrolled else jnp.int32(limit)

  def _generated(self, session, first, count) -> Generated:
    """The tokens read so far, and the one drawn."""
    # Where memory ran out some arrays are never made, and a wait for one of
    # them alone would not end.
    jax.block_until_ready(session)
    tokens_BS = np.array(session.tokens_BS)[:, first:]
    depth_BN = np.array(session.depth_BS)[:, first : first + count]
    cursor = int(np.asarray(session.cursor).max()) - first
    tokens_BN = tokens_BS[:, :count]
    if cursor < count:
      tokens_BN[:, cursor] = np.asarray(session.next_B)
    lengths_B = _lengths(tokens_BN, min(cursor + 1, count), self.end)
    behind_BN = np.arange(count) >= lengths_B[:, None]
    return Generated(np.where(behind_BN, 0, tokens_BN), lengths_B, depth_BN)

  def _check_room(self, tokens, longest, recurrences):
    if tokens < 1:
      raise ValueError(f'tokens must be >= 1, got {tokens}.')
    if self.seq_len is not None and longest > self.seq_len:
      raise ValueError(
        f'prompt and tokens must fit seq_len = {self.seq_len}, got {longest}.'
      )
    if recurrences is not None and not 1 <= recurrences <= self.recurrences:
      raise ValueError(
        f'recurrences must be in [1, {self.recurrences}], the depth of the '
        f'cache, got {recurrences}.'
      )

  def _check_memory(self, rows, length, tokens):
    needed = self.cache_bytes(rows, length, tokens)
    what = (
      f'the cache ({self.policy.name}) of recurrences = {self.recurrences}, '
      f'{tokens} tokens and {rows} texts'
    )
    check_memory(what, needed, self.spread.devices or jax.devices()[:1])


def _room(bucket, tokens):
  """Places of a cache for prompts padded up to a bucket."""
  return bucket_of(bucket + tokens)


def _rule(halt, heads, parts, recurrences, norm):
  """When rows stop, by name and arguments; None makes all recurrences."""
  short = _passed(parts, recurrences) <= UNROLLED
  stop = core.fixed_steps()
  if halt is not None:
    stop = make_rule(halt, _on_model(heads), rows='sample')
  return decode.Rule(
    stop,
    recurrences,
    adaptive=halt is not None,
    unrolled=halt is None and short,
    norm=norm,
  )


def _passed(parts, recurrences):
  """Layers of the looped parts that a token passes."""
  return sum(p.layers * p.calls * recurrences for p in parts.values())


def _lengths(tokens_BN, made, end):
  """Tokens up to and including the first end."""
  is_end_BN = tokens_BN[:, :made] == end
  first_B = np.where(is_end_BN.any(-1), is_end_BN.argmax(-1) + 1, made)
  return first_B.astype(np.int32)


def _bounded(model):
  """Whether positions come from a table of so many."""
  return getattr(model.cfg, 'positions', 'none') == 'learned'


def _on_model(heads):
  """Heads of `(model, context)` for the arguments of a session's loop."""

  def adapt(name, head):
    if name == 'logits':
      return head
    return lambda state, args: head(state, args[:2])

  return {name: adapt(name, head) for name, head in heads.items()}


def _check(model, recurrences):
  if not hasattr(model, 'cache_parts'):
    raise ValueError(
      f'model must be one that reads text with a cache, got '
      f'{type(model).__name__}.'
    )
  if not model.cfg.block.causal:
    raise ValueError(
      f"block.mask must be 'causal' or 'window' to generate, got "
      f'{model.cfg.block.mask!r}.'
    )
  if recurrences < 1:
    raise ValueError(f'recurrences must be >= 1, got {recurrences}.')
