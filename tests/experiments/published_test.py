"""The published runs of the reasoners have the published parameters."""

import dataclasses
import runpy

import pytest

from loopformer.nn.variables import count_parameters
from loopformer.train.experiment import from_dict
from loopformer.zoo import FAMILIES
from tests.house import repo

# Tokens, and cells of a board.
SIZES = {'sudoku9': (11, 81), 'maze30': (6, 900), 'arc': (12, 900)}
COUNTS = {
  ('hrm', 'sudoku9'): 27_275_266,
  ('hrm', 'maze30'): 27_270_146,
  ('hrm', 'arc'): 27_276_290,
  ('trm', 'sudoku9'): 5_028_866,
  ('trm', 'maze30'): 6_822_914,
  ('trm', 'arc'): 6_829_058,
  ('urm', 'sudoku9'): 13_662_210,
  ('urm', 'arc'): 13_663_234,
  ('eqr', 'sudoku9'): 4_855_298,
  ('eqr', 'maze30'): 263_938,
  ('fprm', 'sudoku9'): 6_833_666,
  ('fprm', 'maze30'): 6_825_986,
}


@pytest.mark.parametrize(('family', 'variant'), COUNTS)
def test_the_config_of_a_published_run_has_its_parameters(family, variant):
  file = repo.ROOT / 'experiments' / f'{family}.py'
  config = runpy.run_path(str(file))['get_config'](variant)
  vocab_size, seq_len = SIZES[variant]
  sizes = {'vocab_size': vocab_size, 'num_classes': vocab_size}
  cfg = dataclasses.replace(
    from_dict(config.to_dict()).model, **sizes, seq_len=seq_len
  )
  made = count_parameters(FAMILIES[family].abstract(cfg))
  assert made == COUNTS[family, variant]
