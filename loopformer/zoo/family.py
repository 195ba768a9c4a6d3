"""What every architecture family provides, and how a model is run.

A model is four pure functions of its arrays:

    context = model.embed(inputs_BT)                  rows in front
    state   = model.init_state(context, keys_B)
    state, aux = model.step(state, aux, context, info)
    logits  = model.readout(state, context)           at any recurrence
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Shaped

from loopformer import core
from loopformer.nn.embedding import Inputs
from loopformer.nn.place import place_of, tokens_of
from loopformer.nn.variables import abstract, build

Head = Callable[[Any, Any], Array]


class Family(NamedTuple):
  """One architecture family.

  Attributes:
    config: frozen dataclass of its fields.
    model: `(config, rngs=...) -> nnx.Module`.
    heads: `config -> {name: (state, (model, context)) -> array}`, what halt
      rules may read.
    exempt: conformance law to the reason why this family cannot have it.
    terms: loss terms of the family's own under deep supervision,
      `(model, Supervised) -> [B]`, see `loopformer.nn.q_learning`.
    adopt: makes a model of some layers of a trained one of another family,
      `(config, source, layers) -> nnx.Module`, or None.
  """

  config: type
  model: Callable[..., nnx.Module]
  heads: Callable[[Any], Mapping[str, Head]]
  exempt: Mapping[str, str] = {}
  terms: Callable[[Any, Any], Array] | None = None
  adopt: Callable[..., nnx.Module] | None = None

  def build(self, cfg: Any, key: jax.Array) -> nnx.Module:
    """The model with its arrays."""
    return _constructor(self.model, cfg)(key)

  def abstract(self, cfg: Any) -> nnx.Module:
    """The model with shapes only."""
    return abstract(lambda rngs: self.model(cfg, rngs=rngs))


@functools.lru_cache(maxsize=64)
def _constructor(model, cfg):
  """The jitted constructor of a config, compiled once in a process."""
  return jax.jit(lambda key: build(lambda rngs: model(cfg, rngs=rngs), key))


class Plan(NamedTuple):
  """How to run a loop: stopping, differentiating, solving, halting unit."""

  halt: core.HaltRule
  max_steps: Any
  adjoint: Any = None
  solver: core.Solver | None = None
  norm: str = 'l2'
  rows: str = 'sample'
  axes: tuple[str, ...] = ()


def read_logits(state: Any, args: Any) -> Array:
  """The head every family has: its read-out."""
  model, context = args
  return model.readout(state, context)


def plain_heads(cfg: Any) -> dict[str, Head]:
  """The read-out, for rules that compare distributions over tokens."""
  return {} if cfg.features else {'logits': read_logits}


def reasoner_heads(cfg: Any) -> dict[str, Head]:
  """Heads of the puzzle reasoners: the read-out, and the one that halts."""
  if cfg.halting == 'probability':
    halt = lambda state, args: args[0].halt_probability(state)
    return {'logits': read_logits, 'halt': halt}
  return {'logits': read_logits, 'q': lambda state, a: a[0].q_values(state)}


UNINJECTED = {
  'fixed point': 'nothing is injected, so the end keeps a gradient of the start'
}
NOT_CAUSAL = {'causality': 'the answer is read off a grid seen as a whole'}
SEGMENTED = {
  **NOT_CAUSAL,
  'fixed point': 'a segment cuts the gradient of the state it starts from',
}


def step(state: Any, aux: Any, args: Any, info: core.LoopInfo):
  """A model's recurrence in the form the loop calls."""
  model, context = args
  return model.step(state, aux, context, info)


def embed(
  model: Any,
  inputs_BT: Inputs,
  puzzle_rows_BE: Any = None,
  segments_BT: Any = None,
) -> Any:
  """The context, with rows of the puzzle table in a model that has one.

  With segments, 0 for padding, a token reads its own segment alone and its
  position is counted within it.
  """
  if segments_BT is not None:
    tokens = tokens_of(segments_BT > 0, segments_BT=segments_BT)
    return model.embed(inputs_BT, place_of(model.cfg.block, tokens))
  if puzzle_rows_BE is None:
    return model.embed(inputs_BT)
  return model.embed(inputs_BT, puzzle_rows_BE)


def puzzle_rows(model: Any, puzzles_B: Any) -> Any:
  """Rows of the puzzle table; None for a model without one, or no ids."""
  if puzzles_B is None or not hasattr(model, 'puzzle_rows'):
    return None
  return model.puzzle_rows(puzzles_B)


def begin(
  model: Any,
  inputs_BT: Inputs,
  keys_B: Any,
  *,
  puzzles_B: Any = None,
  segments_BT: Any = None,
) -> tuple[Any, Any]:
  """Initial state and context of a batch."""
  rows_BE = puzzle_rows(model, puzzles_B)
  context = embed(model, inputs_BT, rows_BE, segments_BT)
  return model.init_state(context, keys_B), context


def run(
  model: Any,
  inputs_BT: Inputs,
  plan: Plan,
  *,
  keys_B: Any = None,
  puzzles_B: Any = None,
  segments_BT: Any = None,
  trace: Callable | None = None,
  carry: core.LoopCarry | None = None,
) -> tuple[core.LoopResult, Any]:
  """Runs a model's loop on a batch.

  Args:
    model: any family's model.
    inputs_BT: tokens, or real numbers.
    plan: how to run the loop.
    keys_B: one key per sample, see `loopformer.core.row_keys`.
    puzzles_B: puzzle ids, for models with a puzzle table.
    segments_BT: number of the document of each token, 0 for padding, for
      models that read packed documents (those with a cache).
    trace: `(state, (model, context), info) -> tree`, see `core.iterate`.
    carry: an earlier result's carry, to go on from.

  Returns:
    The loop's result and the context its read-out needs.
  """
  state, context = begin(
    model, inputs_BT, keys_B, puzzles_B=puzzles_B, segments_BT=segments_BT
  )
  per_token = plan.rows == 'token'
  if per_token and keys_B is not None:
    positions = jnp.arange(inputs_BT.shape[1])
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys_B = jax.vmap(fold, (0, None))(keys_B, positions)
  result = core.iterate(
    step,
    state,
    (model, context),
    halt=plan.halt,
    max_steps=plan.max_steps,
    adjoint=plan.adjoint,
    solver=plan.solver,
    keys=keys_B,
    norm=plan.norm,
    carry=carry,
    row_ndim=2 if per_token else 1,
    trace=trace,
    axes=plan.axes,
  )
  return result, context


def answers(
  model: Any, logits_BTV: Float[Array, 'B T V']
) -> Shaped[Array, 'B T']:
  """What a model says: the arg-max tokens, or the numbers it predicts."""
  if getattr(model.cfg, 'features', 0):
    return logits_BTV[..., 0]
  return jnp.argmax(logits_BTV, -1).astype(jnp.int32)


def output_logits(model: Any, result: core.LoopResult, context: Any) -> Array:
  """Logits of the mixed state if the rule mixes, else of the final one."""
  state = result.state if result.mixed is None else result.mixed
  return model.readout(state, context)
