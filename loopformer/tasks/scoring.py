"""Scores per row against labels, positions labelled IGNORE left out."""

import numpy as np
from jaxtyping import Bool, Float32, Int

from loopformer.tasks.task import IGNORE


def exact(
  predictions_NT: Int[np.ndarray, 'N T'], labels_NT: Int[np.ndarray, 'N T']
) -> Bool[np.ndarray, ' N']:
  """All scored positions of the row are right."""
  return ((predictions_NT == labels_NT) | (labels_NT == IGNORE)).all(axis=1)


def accuracy(
  predictions_NT: Int[np.ndarray, 'N T'],
  labels_NT: Int[np.ndarray, 'N T'],
  where_NT: Bool[np.ndarray, 'N T'] | None = None,
) -> Float32[np.ndarray, ' N']:
  """Share of right positions among the scored ones; 1 if there are none."""
  scored_NT = labels_NT != IGNORE
  if where_NT is not None:
    scored_NT = scored_NT & where_NT
  right_N = (scored_NT & (predictions_NT == labels_NT)).sum(axis=1)
  scored_N = scored_NT.sum(axis=1)
  share_N = right_N / np.maximum(scored_N, 1)
  return np.where(scored_N > 0, share_N, 1.0).astype(np.float32)
