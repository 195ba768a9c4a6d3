"""In-context linear regression (arXiv:2208.01066, arXiv:2311.12424)."""

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Shaped

from loopformer.tasks import streams
from loopformer.tasks.task import IGNORE, Batch, require

ASKED = ('all', 'growing')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionConfig:
  """How many numbers x has, and how many pairs (x, y) a prompt.

  Training may start with easier prompts, as the published runs do, which grow
  from 5 numbers to 20 and, two for each, from 11 pairs to 41.

  Attributes:
    dims: numbers d of an x.
    points: pairs of a prompt.
    start_dims: numbers that are not zero in the first training steps; 0 for all
      from the first step on.
    stage: steps behind which there is one number more.
    asked: `all` pairs, or `growing` with the numbers, 2 d + 1 for fewer than
      all, as published.
    seed: of the held-out prompts.
  """

  dims: int = 5
  points: int = 11
  start_dims: int = 0
  stage: int = 2000
  asked: str = 'all'
  seed: int = 0

  def __post_init__(self):
    require(self.dims >= 1, 'dims', self.dims, '>= 1')
    require(self.points >= 2, 'points', self.points, '>= 2')
    require(
      0 <= self.start_dims <= self.dims,
      'start_dims',
      self.start_dims,
      f'in [0, dims = {self.dims}]',
    )
    require(self.stage >= 1, 'stage', self.stage, '>= 1')
    require(self.asked in ASKED, 'asked', self.asked, f'one of {ASKED}')
    require(self.seed >= 0, 'seed', self.seed, '>= 0')

  def dims_at(self, step: int) -> int:
    """Numbers that are not zero at a training step, counted from 0."""
    start = self.start_dims or self.dims
    return min(self.dims, start + step // self.stage)


def least_squares(
  x_NPI: Float[np.ndarray, 'N P I'], y_NP: Float[np.ndarray, 'N P']
) -> Float[np.ndarray, 'N P']:
  """y_p predicted from the pairs before it, the oracle: float64.

  x_p . w with w = pinv(X) y, X and y the rows before p: of all w with the
  least squared error the shortest, so that no pairs predict 0.
  """
  x_NPI, y_NP = x_NPI.astype(np.float64), y_NP.astype(np.float64)
  found_NP = np.zeros_like(y_NP)
  for p in range(1, y_NP.shape[1]):
    w_NI = np.linalg.pinv(x_NPI[:, :p]) @ y_NP[:, :p, None]
    found_NP[:, p] = (x_NPI[:, p] * w_NI[..., 0]).sum(-1)
  return found_NP


class Regression:
  """Inputs x_1 y_1 .. x_n y_n, the label y_i at the place of x_i.

  x_i and w are standard normal, d numbers each, and y_i = w . x_i; every row
  has a w of its own. y is written as (y, 0, .., 0). Held-out rows come from
  another stream; two rows of real numbers never coincide.
  """

  causal = True
  vocab_size = num_classes = 1

  def __init__(self, config: RegressionConfig):
    self.config = config
    self.features = config.dims
    self.seq_len = 2 * config.points

  def train_batch(self, seed: int, step: int, size: int) -> Batch:
    """Rows of an optimiser step, a pure function of (seed, step)."""
    rng = streams.generator(streams.TRAIN, seed, step)
    return self._batch(rng, size, self.config.dims_at(step))

  def heldout(self, count: int) -> Batch:
    """Rows of the held-out stream."""
    rng = streams.generator(streams.HELDOUT, self.config.seed)
    return self._batch(rng, count, self.config.dims)

  def _batch(self, rng: np.random.Generator, size: int, used: int) -> Batch:
    """Rows of which so many numbers of an x are used, the others being 0."""
    dims, points = self.config.dims, self.config.points
    w_BI = rng.standard_normal((size, dims), np.float32)
    x_BPI = rng.standard_normal((size, points, dims), np.float32)
    x_BPI[..., used:] = 0
    y_BP = np.einsum('bpi,bi->bp', x_BPI, w_BI)
    inputs_BTI = np.zeros((size, self.seq_len, dims), np.float32)
    inputs_BTI[:, 0::2], inputs_BTI[:, 1::2, 0] = x_BPI, y_BP
    labels_BT = np.full((size, self.seq_len), IGNORE, np.float32)
    labels_BT[:, 0::2] = y_BP
    if used < dims and self.config.asked == 'growing':
      labels_BT[:, 2 * (2 * used + 1) :] = IGNORE
    bits_BM = inputs_BTI.reshape(size, -1).view(np.uint32)
    return Batch(
      inputs=inputs_BTI, labels=labels_BT, ids=streams.row_ids(bits_BM)
    )

  def score(
    self, predictions_NT: Float32[np.ndarray, 'N T'], batch: Batch
  ) -> dict[str, Shaped[np.ndarray, ' N']]:
    """(prediction - y)^2 / d, so that predicting 0 has an error of 1.

    `error` at the last point and `error_1` .. at every one; `least_squares`
    and `least_squares_1` .. are what the oracle makes of the same pairs.
    """
    x_NPI, y_NP = batch['inputs'][:, 0::2], batch['labels'][:, 0::2]
    guesses = {
      'error': predictions_NT[:, 0::2],
      'least_squares': least_squares(x_NPI, y_NP),
    }
    scores = {}
    for name, guess_NP in guesses.items():
      error_NP = ((guess_NP - y_NP) ** 2 / self.config.dims).astype(np.float32)
      scores[name] = error_NP[:, -1]
      for point, error_N in enumerate(error_NP.T, 1):
        scores[f'{name}_{point}'] = error_N
    return scores

  def describe(self) -> str:
    config = self.config
    return (
      f'in-context linear regression: {config.points} pairs, {config.dims} '
      'numbers each; errors are squared and divided by that number, 1 for '
      'predicting nothing.'
    )
