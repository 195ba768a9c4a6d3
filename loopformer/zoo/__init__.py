"""Architecture families, one file each."""

from loopformer.zoo import feedforward, recurrent_depth, universal
from loopformer.zoo.family import Family, Plan, output_logits, run

FAMILIES = {
  'feedforward': feedforward.FAMILY,
  'universal': universal.FAMILY,
  'recurrent_depth': recurrent_depth.FAMILY,
}

__all__ = ['FAMILIES', 'Family', 'Plan', 'output_logits', 'run']
