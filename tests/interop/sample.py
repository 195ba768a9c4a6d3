"""The golden files, whole or changed."""

import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / 'goldens'
FILES = {
  'hrm_rope': 'hrm',
  'trm_attn': 'trm',
  'trm_mlp': 'trm',
  'urm': 'urm',
  'eqr_attn': 'eqr',
  'fprm_conv1d': 'fprm',
  'fprm_conv2d': 'fprm',
}


def path(name):
  return FOLDER / f'{name}.npz'


def read(name, prefix=''):
  """The arrays whose names begin with the prefix, without it."""
  with np.load(path(name), allow_pickle=False) as archive:
    return {
      key.removeprefix(prefix): archive[key]
      for key in archive.files
      if key.startswith(prefix)
    }
