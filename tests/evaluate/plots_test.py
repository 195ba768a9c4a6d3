"""The PNG plots: written, of the right size, and without global state."""

import struct
import sys

import pytest

from loopformer.evaluate import plots
from tests.evaluate import sample


def png_size(path) -> tuple[int, int]:
  head = path.read_bytes()[:24]
  assert head[:8] == b'\x89PNG\r\n\x1a\n'
  return struct.unpack('>II', head[16:24])


def draw(name, path):
  results = sample.results()
  if name == 'depth_sweep':
    points = results['depth'][0]['points']
    return plots.depth_sweep(
      path,
      {'fixed': points, 'fixed point': points[:4]},
      trained_depth=8,
      levels={'feedforward': 0.4},
    )
  if name == 'halting_pareto':
    return plots.halting_pareto(path, results['halting'])
  return plots.residual_curve(path, results['residual'], threshold=0.1)


@pytest.mark.parametrize(
  'name', ['depth_sweep', 'halting_pareto', 'residual_curve']
)
def test_a_png_is_written(tmp_path, name):
  path = draw(name, tmp_path / 'new' / f'{name}.png')
  assert png_size(path) == (900, 600)
  assert path.stat().st_size > 5000


def test_three_panels_of_a_study(tmp_path):
  path = plots.halting_study(tmp_path / 'study.png', *sample.study())
  assert png_size(path) == (2700, 600)


def test_a_study_tells_what_four_times_the_trained_depth_changes():
  rows, study = sample.study()
  for more, words in (
    ({}, 'always so many'),
    ({'change_at_4x_trained': -0.031}, 'always so many, -3.1 at 4x trained'),
  ):
    _, (axes,) = plots._panels(('',), '')
    plots._accuracy_of_steps(axes, rows, {**study, **more})
    assert axes.get_legend_handles_labels()[1][0] == words


def test_long_names_leave_room_for_the_panels(tmp_path):
  rows, study = sample.study()
  long = [{**row, 'name': 'any_of(fixed_point, argmax) ' * 4} for row in rows]
  for name, given in (('short', rows), ('long', long)):
    plots.halting_study(tmp_path / f'{name}.png', given, study)
  assert png_size(tmp_path / 'long.png') == png_size(tmp_path / 'short.png')
  assert plots._name(long[0]).count('\n') >= 3


def test_every_series_looks_another_way():
  looks = {tuple(plots._look(i).items()) for i in range(20)}
  assert len(looks) == 20


def test_empty_data_gives_empty_axes(tmp_path):
  for draw_empty in (
    lambda path: plots.depth_sweep(path, {}),
    lambda path: plots.halting_pareto(path, []),
    lambda path: plots.residual_curve(path, []),
  ):
    assert png_size(draw_empty(tmp_path / 'empty.png')) == (900, 600)


def test_pyplot_is_not_used(tmp_path):
  draw('depth_sweep', tmp_path / 'a.png')
  assert 'matplotlib.pyplot' not in sys.modules
