"""The chassis of recurrent depth: every option builds in every family."""

import dataclasses

import pytest

from loopformer.nn.config import BlockConfig
from loopformer.nn.injection import INJECTIONS
from loopformer.zoo import FAMILIES

FAMILIES_ON_IT = ('recurrent_depth', 'huginn', 'parcae', 'retrofit')
BLOCK = BlockConfig(width=8, heads=2, mask='causal')
OPTIONS = [
  *({'injection': name} for name in INJECTIONS),
  {'features': 3, 'tied': False, 'value_layers': 'listed'},
  {'tied': True},
  {'project': True},
  {'project': False},
  {'mlp': 'gelu'},
]


@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('name', FAMILIES_ON_IT)
def test_every_option_builds_in_every_family(name, options):
  family = FAMILIES[name]
  options = dict(options)
  block = dataclasses.replace(BLOCK, mlp=options.pop('mlp', 'swiglu'))
  model = family.abstract(family.config(block=block, vocab_size=11, **options))
  assert hasattr(model, 'head') != model.cfg.tied
  assert hasattr(model, 'projection') == model.cfg.project


@pytest.mark.parametrize('name', ['huginn', 'parcae', 'recurrent_depth'])
def test_numbers_have_no_tied_head(name):
  with pytest.raises(ValueError, match='^features must be 0 with'):
    FAMILIES[name].config(features=3, tied=True, value_layers='listed')
