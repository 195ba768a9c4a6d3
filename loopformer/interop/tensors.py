"""Named tensors in npz and safetensors files, read one at a time.

A `.pt` file is a pickle and may run code when it is opened, so it is not read
here. Convert it once, where PyTorch is installed, by

    state = torch.load(path, map_location='cpu', weights_only=True)
    state = {name: x.clone().contiguous() for name, x in state.items()}
    safetensors.torch.save_file(state, 'weights.safetensors')
"""

import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

SUFFIXES = ('.npz', '.safetensors')
DAMAGED = (
  zipfile.BadZipFile,
  zlib.error,
  RuntimeError,  # A damaged flag in an npz makes it look encrypted.
  tokenize.TokenError,
  SyntaxError,
  SafetensorError,
  ValueError,
  EOFError,
  NotImplementedError,
)


def read_tensors(
  path: str | pathlib.Path, *, prefix: str = ''
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (name, array) of those names that begin with `prefix`, without it.

  Raises:
    ValueError: if the file is of another kind or damaged.
    OSError: if it cannot be opened.
  """
  path = _known(path)
  try:
    yield from (_npz if path.suffix == '.npz' else _safetensors)(path, prefix)
  except DAMAGED as error:
    reason = str(error).splitlines()[0] if str(error) else 'it is damaged'
    reason = reason.rstrip('.')
    raise ValueError(f'file {path} cannot be read: {reason}.') from None


def write_tensors(
  path: str | pathlib.Path, tensors: Mapping[str, np.ndarray]
) -> None:
  """Writes all tensors under another name first, so that no half file is left.

  Raises:
    ValueError: if the suffix is not one of `SUFFIXES`.
  """
  path = pathlib.Path(path)
  if path.suffix not in SUFFIXES:
    raise ValueError(f'file must end in one of {SUFFIXES}, got {path}.')
  partial = path.with_name(f'.{path.stem}.partial{path.suffix}')
  whole = {name: np.asarray(x, order='C') for name, x in tensors.items()}
  try:
    if path.suffix == '.npz':
      np.savez(partial, **whole)
    else:
      save_file(whole, partial)
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def _known(path):
  path = pathlib.Path(path)
  if path.suffix in ('.pt', '.pth', '.bin', ''):
    raise ValueError(
      f'file must end in one of {SUFFIXES}, got {path}: a pickle may run code; '
      'see loopformer.interop.tensors on how to convert it.'
    )
  if path.suffix not in SUFFIXES:
    raise ValueError(f'file must end in one of {SUFFIXES}, got {path}.')
  if not path.is_file():
    raise FileNotFoundError(f'file {path} does not exist.')
  return path


def _npz(path, prefix):
  if not zipfile.is_zipfile(path):
    raise ValueError('it is not a whole npz archive')
  with np.load(path, allow_pickle=False) as archive:
    for name in archive.files:
      if name.startswith(prefix):
        yield name.removeprefix(prefix), _member(archive, name)


def _member(archive, name):
  try:
    return archive[name]
  except DAMAGED as error:
    raise ValueError(f'tensor {name}: {error}') from None


def _safetensors(path, prefix):
  with safe_open(path, framework='flax') as archive:
    for name in archive.keys():  # noqa: SIM118 - not a mapping
      if name.startswith(prefix):
        yield name.removeprefix(prefix), np.asarray(archive.get_tensor(name))
