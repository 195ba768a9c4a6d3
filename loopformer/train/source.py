"""The first state of a run: drawn, or taken from the end of another run."""

from typing import Any

import jax
from flax import nnx

from loopformer.train.config import differences, to_mapping
from loopformer.train.restore import Run, restore_run
from loopformer.train.state import Setup, TrainState, create
from loopformer.zoo import FAMILIES


def begin(setup: Setup) -> TrainState:
  """The state at step 0.

  With a source it has the arrays of that run's newest checkpoint, trained ones
  averaged if that is what is measured there; all else starts anew. Of a model
  made of layers of the source only trained arrays are taken.

  Raises:
    ValueError: if the source holds no run, or one of another model.
  """
  state, source = create(setup), setup.experiment.train.source
  if not source.workdir:
    return state
  run = restore_run(source.workdir)
  if source.layers:
    theirs, ours = arrays_of(_adopted(setup, run)), arrays_of(state.params)
  else:
    _check_config(setup, run)
    theirs = arrays_of(run.subject.model, ...)
    ours = arrays_of(state.params) | arrays_of(state.rest, ...)
  for name in sorted({*ours, *theirs}):
    shapes = [getattr(x.get(name), 'shape', None) for x in (ours, theirs)]
    if shapes[0] != shapes[1]:
      raise _other_model(setup, f'{name} of shape {shapes[1]} for {shapes[0]}')
  params = _placed(state.params, theirs)
  ema = None if state.ema is None else jax.tree.map(lambda x: x.copy(), params)
  rest = state.rest if source.layers else _placed(state.rest, theirs)
  return state._replace(params=params, rest=rest, ema=ema)


def arrays_of(tree: Any, kind: Any = nnx.Param) -> dict[str, jax.Array]:
  """Trained arrays, or those of another kind, by their path."""
  leaves = jax.tree_util.tree_leaves_with_path(nnx.state(tree, kind))
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _adopted(setup: Setup, run: Run) -> nnx.Module:
  """This run's model, made of layers of the source."""
  experiment = setup.experiment
  adopt = FAMILIES[experiment.family].adopt
  assert adopt is not None  # `checks.check_source` has seen to it.
  layers = experiment.train.source.layers
  return adopt(experiment.model, run.subject.model, layers)


def _check_config(setup: Setup, run: Run) -> None:
  """Refuses a model of the same family that computes something else.

  Texts may be longer than the source's; where that is a shape, shapes tell.
  """
  if run.family != setup.experiment.family:
    return
  ours, theirs = (
    to_mapping(cfg) | {'seq_len': None}
    for cfg in (setup.experiment.model, run.subject.model.cfg)
  )
  lines = differences(theirs, ours, path='model')
  if lines:
    raise _other_model(setup, lines[0])


def _other_model(setup, difference):
  workdir = setup.experiment.train.source.workdir
  return ValueError(
    'train.source.workdir must hold a run of the same model, got '
    f'{difference} in {workdir!r}.'
  )


def _placed(tree, arrays):
  """The tree with other arrays, where they belong."""
  return jax.tree_util.tree_map_with_path(
    lambda path, old: jax.device_put(
      arrays[jax.tree_util.keystr(path)], old.sharding
    ),
    tree,
  )
