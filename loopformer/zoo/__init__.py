"""Architecture families, one file each."""

from loopformer.zoo import (
  eqr,
  feedforward,
  fprm,
  hrm,
  recurrent_depth,
  trm,
  universal,
  urm,
)
from loopformer.zoo.family import Family, Plan, output_logits, run

FAMILIES = {
  'feedforward': feedforward.FAMILY,
  'universal': universal.FAMILY,
  'recurrent_depth': recurrent_depth.FAMILY,
  'hrm': hrm.FAMILY,
  'trm': trm.FAMILY,
  'urm': urm.FAMILY,
  'eqr': eqr.FAMILY,
  'fprm': fprm.FAMILY,
}

__all__ = ['FAMILIES', 'Family', 'Plan', 'output_logits', 'run']
