"""What every family calls how often, as data: its outline.

    once      read, write (prelude; coda and head)
    R times   the calls of a recurrence
    if asked  a head that a halt rule reads

Read off the config alone; whether it is what the model computes is tested
against the traced program of every family.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from loopformer.nn.config import BlockConfig, require
from loopformer.nn.value_embedding import CHANNELS
from loopformer.plan.cost import (
  Cost,
  attention_cost,
  layer_cost,
  linear_cost,
  mlp_cost,
)
from loopformer.plan.saved import convolution_saved, scale_saved

NOTHING = Cost()


class Call(NamedTuple):
  """Something that is called inside a recurrence.

  Attributes:
    name: the attribute of the model that holds its weights.
    cost: of one call.
    calls: per recurrence.
    gradient: of these, how many are back-propagated through, by recurrence;
      the last number stands for all later ones too.
  """

  name: str
  cost: Cost
  calls: int = 1
  gradient: tuple[int, ...] = (1,)

  def backward(self, recurrence: int) -> Cost:
    """Forward cost of the calls that have a gradient."""
    last = len(self.gradient) - 1
    return self.cost * self.gradient[min(recurrence, last)]


class Outline(NamedTuple):
  """The parts of a model, for one row of a batch.

  Attributes:
    read: prelude, once.
    recurrence: what one recurrence calls.
    write: coda and head, once.
    heads: what a halt rule may read, see `Family.heads`.
    state: numbers that are carried from one recurrence to the next.
    logits: numbers that are read out.
    numbers: of `read`, products with real inputs, which get no gradient.
  """

  read: Cost
  recurrence: tuple[Call, ...]
  write: Cost
  heads: Mapping[str, Cost]
  state: int
  logits: int
  numbers: Cost = NOTHING

  def step(self) -> Cost:
    """One recurrence."""
    return total(call.cost * call.calls for call in self.recurrence)

  def backward(self, recurrence: int) -> Cost:
    """Forward cost of what a recurrence, numbered from 0, differentiates."""
    return total(call.backward(recurrence) for call in self.recurrence)

  def forward(self, recurrences: int, *, head: str | None = None) -> Cost:
    """A full pass; with the name of a head, read after every recurrence."""
    check = NOTHING if head is None else self.heads[head]
    return self.read + (self.step() + check) * recurrences + self.write


def total(costs: Iterable[Cost]) -> Cost:
  """The sum of some costs."""
  return sum(costs, NOTHING)


def outline(family: str, cfg: Any, tokens: int, keys: int = 0) -> Outline:
  """The outline of a family's model.

  Args:
    family: a key of `loopformer.zoo.FAMILIES`.
    cfg: its config.
    tokens: T of the inputs; prefix tokens of the model's own come on top.
    keys: positions that are read, those of the inputs the last of them; 0 for
      the inputs alone. More are what decoding with a cache has.

  Raises:
    ValueError: if weights are tied to a length that the inputs do not have.
  """
  require('tokens', tokens, at_least=1)
  require('keys', keys or tokens, at_least=tokens)
  check_length(cfg, keys or tokens)
  return OUTLINES[family](cfg, tokens, keys or tokens)


def check_length(cfg: Any, length: int) -> None:
  """Raises `ValueError` if a model cannot read inputs of this length."""
  across = getattr(cfg, 'mixer', '') == 'mlp'
  learned = getattr(cfg, 'positions', 'none') == 'learned'
  # A reasoner adds its whole table; the others take the rows they need.
  exact = across or (learned and hasattr(cfg, 'mixer'))
  if exact and length != cfg.seq_len:
    raise ValueError(
      f'length must be seq_len = {cfg.seq_len} for weights tied to it, got '
      f'{length}.'
    )
  if learned and length > cfg.seq_len:
    raise ValueError(
      f'length must be <= seq_len = {cfg.seq_len} for learned positions, got '
      f'{length}.'
    )


def _block(block: BlockConfig, layers: int, tokens: int, keys: int) -> Cost:
  return layer_cost(block, tokens, keys) * layers


def _injection(kind: str, width: int, state: int, tokens: int) -> Cost:
  if kind == 'concat':
    return linear_cost(state + width, state, tokens)
  diagonal = kind.startswith('diagonal')
  return linear_cost(width, state, tokens) if diagonal else NOTHING


def _ends(cfg, tokens, *, read=NOTHING, write=NOTHING, calls, state) -> Outline:
  """An outline whose head reads every token of the inputs."""
  classes, width = cfg.num_classes or cfg.vocab_size, cfg.block.width
  write += linear_cost(width, classes, tokens)
  features = getattr(cfg, 'features', 0)
  numbers = linear_cost(features, width, tokens) if features else NOTHING
  heads = {} if features else {'logits': write}
  logits = tokens * classes
  return Outline(read + numbers, calls, write, heads, state, logits, numbers)


def _depth(cfg, tokens, keys) -> Outline:
  """Prelude, looped core and coda."""
  width, state = cfg.block.width, cfg.loop_block.width
  core_end = cfg.prelude + cfg.core

  def part(block, first, count):
    gates = [
      linear_cost(min(CHANNELS, block.width), block.groups, tokens)
      for layer in range(first, first + count)
      if layer in cfg.value_tables and layer in cfg.value_gates
    ]
    return _block(block, count, tokens, keys) + total(gates)

  write = part(cfg.block, core_end, cfg.coda)
  if cfg.project:
    write += linear_cost(state, width, tokens)
  injected = _injection(cfg.injection, width, state, tokens)
  calls = (
    Call('injection', injected),
    Call('core', part(cfg.loop_block, cfg.prelude, cfg.core)),
  )
  return _ends(
    cfg,
    tokens,
    read=part(cfg.block, 0, cfg.prelude),
    write=write,
    calls=calls,
    state=state * tokens,
  )


def _whole(cfg, tokens, keys) -> Outline:
  """All layers in one looped stack, and a head: no prelude, no coda."""
  width = cfg.block.width
  calls: tuple[Call, ...] = (
    Call('block', _block(cfg.block, cfg.layers, tokens, keys)),
  )
  if hasattr(cfg, 'injection'):
    injected = _injection(cfg.injection, width, width, tokens)
    calls = (Call('injection', injected), *calls)
  return _ends(cfg, tokens, calls=calls, state=width * tokens)


def _universal(cfg, tokens, keys) -> Outline:
  """The same with a halting head, if there is one."""
  made = _whole(cfg, tokens, keys)
  return _with_gate(made, cfg, tokens) if cfg.halting else made


def _ouro(cfg, tokens, keys) -> Outline:
  """The same with an exit gate."""
  return _with_gate(_whole(cfg, tokens, keys), cfg, tokens)


def _with_gate(made, cfg, tokens):
  """A gate is read at one position for a row, at every one per token."""
  gate = lambda count: linear_cost(cfg.block.width, 1, count)
  heads = {**made.heads, 'halt': gate(1), 'halt_token': gate(tokens)}
  return made._replace(heads=heads)


def _hrm_text(cfg, tokens, keys) -> Outline:
  """Two stacks; how many low calls have a gradient depends on the cycle."""
  stack = _block(cfg.block, cfg.layers, tokens, keys)
  low = Call('low', stack, cfg.low_cycles, cfg.gradient_calls())
  calls = (low, Call('high', stack))
  return _ends(cfg, tokens, calls=calls, state=2 * cfg.block.width * tokens)


def _reasoner(cfg, tokens, calls, *, states: int = 1) -> Outline:
  """Puzzle reasoners: no prelude; the head reads the grid alone."""
  width = cfg.block.width
  state = states * width * (tokens + cfg.prefix_len)
  made = _ends(cfg, tokens, calls=calls, state=state)
  name, outputs = ('q', 2) if cfg.halting == 'q' else ('halt', 1)
  heads = {**made.heads, name: linear_cost(width, outputs, 1)}
  return made._replace(heads=heads)


def _reasoner_layer(cfg, tokens, keys) -> Cost:
  """Mixing by attention, or by an MLP at every channel; then an MLP."""
  tokens, keys = tokens + cfg.prefix_len, keys + cfg.prefix_len
  mlp = mlp_cost(cfg.block, tokens, taps=cfg.mlp_taps)
  if cfg.mixer == 'mlp':
    return mlp_cost(cfg.mixer_block, cfg.block.width) + mlp
  return attention_cost(cfg.block, tokens, keys) + mlp


def _two_timescales(cfg, tokens, keys) -> Outline:
  """N recursions of T fast calls and a slow one."""
  layer = _reasoner_layer(cfg, tokens, keys)
  recursions, fast = cfg.high_cycles, cfg.low_cycles
  low, high = {
    'last_calls': (1, 1),
    'last_recursion': (fast, 1),
    'full': (recursions * fast, recursions),
  }[cfg.gradient]
  stack = layer * cfg.layers
  if cfg.high_layers:
    slow = layer * cfg.high_layers
    calls = (
      Call('low', stack, recursions * fast, (low,)),
      Call('high', slow, recursions, (high,)),
    )
  else:
    calls = (Call('low', stack, recursions * (fast + 1), (low + high,)),)
  return _reasoner(cfg, tokens, calls, states=2)


def _urm(cfg, tokens, keys) -> Outline:
  """N cycles of T calls, the last cycle with gradient."""
  stack = _reasoner_layer(cfg, tokens, keys) * cfg.layers
  calls = cfg.high_cycles * cfg.low_cycles
  whole = Call('stack', stack, calls, (cfg.low_cycles,))
  return _reasoner(cfg, tokens, (whole,))


def _fprm(cfg, tokens, keys) -> Outline:
  """One call of the stack; residual scales may read the state.

  Not counted is the power method of a spectral scale: its products with one
  vector are the same for any number of rows.
  """
  width, length = cfg.block.width, tokens + cfg.prefix_len
  layer = _reasoner_layer(cfg, tokens, keys)
  if cfg.residual_scale != 'none':
    layer += Cost(saved=2 * scale_saved(width, length))
  maps = 0
  if cfg.residual_scale in ('input', 'spectral'):
    maps = 1 if cfg.outer_only else 2
  scale = linear_cost(width, width, length) * maps
  shape = {'none': 0, 'line': 1, 'square': 2}[cfg.conv]
  taps = cfg.conv_taps**shape if shape else 0
  calls = (
    Call('scale', scale),
    Call('convolution', Cost(saved=convolution_saved(width, taps, tokens))),
    Call('stack', layer * cfg.layers),
  )
  return _reasoner(cfg, tokens, calls)


OUTLINES: Mapping[str, Callable[[Any, int, int], Outline]] = {
  'feedforward': _whole,
  'universal': _universal,
  'recurrent_depth': _depth,
  'hrm': _two_timescales,
  'trm': _two_timescales,
  'urm': _urm,
  'eqr': _two_timescales,
  'fprm': _fprm,
  'huginn': _depth,
  'parcae': _depth,
  'ouro': _ouro,
  'hrm_text': _hrm_text,
  'retrofit': _depth,
}
