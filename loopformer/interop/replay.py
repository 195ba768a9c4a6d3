"""Replays a golden file: published weights in, the authors' outputs compared.

    python -m loopformer.interop.replay --family=hrm FILE.npz

builds the model from `config_json`, loads `weights/`, runs it on `in/` and
prints one JSON line: the largest absolute difference of each `out/*`, the
largest relative difference of each `grad/*`, null where it is not finite. The
exit status is 1 beyond 1e-4 and 1e-3, and 2 for a file that cannot be replayed.
At padding nothing is compared, and losses that read it, with their gradients,
are `left_out`.
"""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from loopformer.interop import language_replay, reasoner_replay
from loopformer.interop.layout import load, save
from loopformer.interop.published import config_of, layout_of, tensors_of
from loopformer.interop.replayed import jit
from loopformer.interop.tensors import read_tensors
from loopformer.zoo import FAMILIES

Arrays = Mapping[str, np.ndarray]
OUT_LIMIT, GRADIENT_LIMIT = 1e-4, 1e-3
REPLAYS: Mapping[str, Callable[..., Any]] = {
  'hrm': reasoner_replay.segments,
  'trm': reasoner_replay.segments,
  'urm': reasoner_replay.segments,
  'eqr': reasoner_replay.segments,
  'fprm': reasoner_replay.fixed_point,
  'huginn': language_replay.recurrences,
  'parcae': language_replay.recurrences,
  'ouro': language_replay.gated_recurrences,
  'hrm_text': language_replay.passes,
}


def replay(family: str, path: str | pathlib.Path) -> dict[str, Any]:
  """Differences by name, the largest of each kind, and whether they hold.

  Raises:
    ValueError: if the file is not one of this family.
    OSError: if it cannot be opened.
  """
  published = _config(path)
  cfg = config_of(family, published)
  model, layout = build(family, cfg, read_tensors(path, prefix='weights/'))
  inputs = dict(read_tensors(path, prefix='in/'))
  wanted = dict(read_tensors(path, prefix='out/'))
  if not wanted:
    raise ValueError(f'file {path} must hold out/*, got none.')
  with jax.default_matmul_precision('highest'):
    run = REPLAYS[family](model, published, inputs, wanted)
    losses, grads = _gradients(model, layout, run, wanted, path)
    ours = {**run.out, **losses}
    left_out = _left_out(run, wanted, path)
    out = {
      f'out/{name}': _absolute(ours, wanted, name, run.real_BT)
      for name in wanted
      if f'out/{name}' not in left_out
    }
  worst = {'out': max(out.values()), 'grad': max(grads.values(), default=0.0)}
  ok = worst['out'] <= OUT_LIMIT and worst['grad'] <= GRADIENT_LIMIT
  return {
    'family': family,
    'file': str(path),
    'ok': bool(ok),
    'left_out': left_out,
    **{f'worst_{kind}': value for kind, value in worst.items()},
    **out,
    **grads,
  }


def build(family: str, cfg: Any, tensors: Any) -> tuple[nnx.Module, Any]:
  """A family's model with published tensors, and its layout."""
  layout = layout_of(family, cfg)
  model = FAMILIES[family].abstract(cfg)
  return load(model, layout, tensors_of(family, cfg, tensors)), layout


def _config(path):
  found = dict(read_tensors(path, prefix='config_json'))
  if '' not in found:
    raise ValueError(f'file {path} must hold config_json, got none.')
  try:
    config = json.loads(str(found['']))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'config_json must be JSON: {error}.') from None
  if not isinstance(config, dict):
    raise ValueError(f'config_json must be an object, got {config!r}.')
  return config


def _left_out(run, wanted, path):
  """Losses of a padded batch, and their gradients."""
  if run.real_BT is None:
    return []
  grads = [f'grad/{name}' for name, _ in read_tensors(path, prefix='grad/')]
  return [f'out/{n}' for n in wanted if n.startswith('loss/')] + grads


def _absolute(ours, wanted, name, real_BT):
  if name not in ours:
    raise ValueError(f'out/{name} is not an output of this family.')
  theirs = wanted[name]
  mine = np.asarray(ours[name])
  if mine.shape != theirs.shape:
    raise ValueError(
      f'out/{name} must have shape {mine.shape}, got {theirs.shape}.'
    )
  if real_BT is not None and mine.shape[:2] == real_BT.shape:
    mine, theirs = mine[real_BT], theirs[real_BT]
  return _largest(mine, theirs)


def _largest(mine, theirs):
  """max |a - b|, infinite if a or b somewhere is not a number."""
  mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
  with np.errstate(invalid='ignore'):
    gap = np.where(mine == theirs, 0.0, np.abs(mine - theirs))
  return float(np.where(np.isnan(gap), np.inf, gap).max(initial=0.0))


def _gradients(model, layout, run, wanted, path):
  """Losses, and the largest relative difference of each gradient on file."""
  names = [name[5:] for name in wanted if name.startswith('loss/')]
  for name, _ in read_tensors(path, prefix='grad/'):
    names.append(name.split('/')[0])
  if not names or run.real_BT is not None:
    return {}, {}

  @jit
  def gradient(model, chosen):
    def total(model):
      found = run.losses(model)
      return sum(chosen[name] * found[name] for name in found), found

    return jax.grad(total, has_aux=True)(model)

  values, differences = {}, {}
  for name in dict.fromkeys(names):
    chosen = {other: float(other == name) for other in run.loss_names}
    if name not in chosen:
      raise ValueError(f'loss must be one of {list(chosen)}, got {name}.')
    grads, found = gradient(model, chosen)
    values[f'loss/{name}'] = found[name]
    differences |= _compared(save(grads, layout), path, f'grad/{name}/')
  return values, differences


def _compared(grads, path, prefix):
  """Largest relative difference of each gradient of one loss.

  A gradient that is zero by a law, as that of queries among one key, is what
  rounding leaves of it; differences that float32 cannot resolve beside the
  loss's largest gradient count as none.
  """
  differences = {}
  given = dict(read_tensors(path, prefix=prefix))
  largest = max(map(_size, given.values()), default=0.0)
  resolved = float(np.finfo(np.float32).eps * largest)
  for name, theirs in given.items():
    if name not in grads:
      raise ValueError(f'{prefix}{name} is not a weight of this model.')
    mine = grads[name]
    if mine.shape != theirs.shape:
      raise ValueError(
        f'{prefix}{name} must have shape {mine.shape}, got {theirs.shape}.'
      )
    gap, size = _largest(mine, theirs), _size(theirs) or 1.0
    differences[prefix + name] = gap / size if gap > resolved else 0.0
  return differences


def _size(x):
  """The largest finite |x|; zero if there is none."""
  return float(np.abs(x[np.isfinite(x)]).max(initial=0.0))


def _line(result):
  """JSON, which has no infinity."""
  finite = {
    name: None if value in (math.inf, -math.inf) else value
    for name, value in result.items()
  }
  return json.dumps(finite, allow_nan=False)


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the line; returns the exit status."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--family', required=True, choices=sorted(REPLAYS))
  parser.add_argument('file')
  given = parser.parse_args(argv)
  try:
    result = replay(given.family, given.file)
  except (ValueError, OSError, RecursionError) as error:
    print(f'replay: {error}', file=sys.stderr)
    return 2
  print(_line(result))
  return 0 if result['ok'] else 1


if __name__ == '__main__':
  sys.exit(main())
