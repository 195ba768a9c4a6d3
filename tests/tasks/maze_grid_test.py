"""Mazes as grids: oracles, validity, symmetries, and what is drawn."""

import heapq
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopformer.tasks import maze_draw, maze_grid
from loopformer.tasks.maze_grid import GOAL, OPEN, PATH, START, WALL

SEEDS = st.integers(0, 2**32 - 1)
KINDS = pytest.mark.parametrize('kind', maze_draw.KINDS)
few = settings(derandomize=True, max_examples=20, deadline=None)


def random_grids(seed, *, count=6, size=7, walls=0.35):
  """Random walls with S and G anywhere, reachable or not."""
  rng = np.random.default_rng(seed)
  grids = np.where(rng.random((count, size, size)) < walls, WALL, OPEN)
  for grid in grids.reshape(count, -1):
    grid[rng.choice(size * size, 2, replace=False)] = START, GOAL
  return grids.astype(np.uint8)


def neighbours(grid, place):
  y, x = place
  for near in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
    inside = 0 <= min(near) and max(near) < len(grid)
    if inside and grid[near] != WALL:
      yield near


def spot(grid, token):
  return tuple(int(i) for i in np.argwhere(grid == token)[0])


def dijkstra(grid):
  """Distances from S and numbers of shortest paths, the plain way."""
  distance, paths = {spot(grid, START): 0}, {spot(grid, START): 1}
  heap, done = [(0, spot(grid, START))], set()
  while heap:
    length, place = heapq.heappop(heap)
    if place in done:
      continue
    done.add(place)
    for near in neighbours(grid, place):
      if length + 1 < distance.get(near, 10**9):
        distance[near], paths[near] = length + 1, 0
        heapq.heappush(heap, (length + 1, near))
      if length + 1 == distance[near]:
        paths[near] += paths[place]
  return distance, paths


def every_path(grid):
  """All shortest paths from S to G as sets of the squares between."""
  distance, _ = dijkstra(grid)
  waiting, found = [(spot(grid, GOAL), frozenset())], []
  while waiting:
    place, taken = waiting.pop()
    for near in neighbours(grid, place):
      if distance.get(near, 10**9) == distance[place] - 1:
        if grid[near] == START:
          found.append(taken)
        else:
          waiting.append((near, taken | {near}))
  return found


def mask(grid, squares):
  marked = np.zeros(grid.shape, bool)
  for square in squares:
    marked[square] = True
  return marked


@few
@given(SEEDS, st.sampled_from([0.0, 0.2, 0.35, 0.5]))
def test_search_agrees_with_dijkstra(seed, walls):
  grids = random_grids(seed, walls=walls)
  waves = maze_grid.search(grids != WALL, grids == START)
  for row, grid in enumerate(grids):
    distance, paths = dijkstra(grid)
    for place in np.ndindex(grid.shape):
      expected = distance.get(place, -1), paths.get(place, 0)
      got = waves.distance_Nnn[row][place], waves.paths_Nnn[row][place]
      assert got == expected
    goal = spot(grid, GOAL)
    assert maze_grid.path_length(grids)[row] == distance.get(goal, -1)
    assert maze_grid.count_paths(grids)[row] == paths.get(goal, 0)


def test_counts_end_where_they_would_overflow():
  grid = np.full((1, 40, 40), OPEN, np.uint8)
  grid[0, 0, 0], grid[0, 39, 39] = START, GOAL
  assert maze_grid.path_length(grid) == [78]
  assert maze_grid.count_paths(grid) == [maze_grid.MOST_PATHS]


@few
@given(SEEDS)
def test_every_shortest_path_is_valid_and_nothing_near_it(seed):
  for grid in random_grids(seed, count=2, size=5, walls=0.25):
    if spot(grid, GOAL) not in dijkstra(grid)[0]:
      continue
    paths = every_path(grid)
    masks = [mask(grid, squares) for squares in paths]
    changed = []
    for marked in masks[:3]:
      for place in np.ndindex(grid.shape):
        other = marked.copy()
        other[place] ^= True
        changed.append(other)
    many = np.broadcast_to(grid, (len(masks), *grid.shape))
    assert maze_grid.is_shortest_path(many, np.stack(masks)).all()
    many = np.broadcast_to(grid, (len(changed), *grid.shape))
    assert not maze_grid.is_shortest_path(many, np.stack(changed)).any()
    label = maze_grid.shortest_path(grid[None])[0]
    assert any((label == marked).all() for marked in masks)


@few
@given(SEEDS)
def test_random_marks_are_valid_only_if_they_are_a_shortest_path(seed):
  rng = np.random.default_rng(seed)
  grid = random_grids(seed, count=1, size=5, walls=0.1)[0]
  reached = spot(grid, GOAL) in dijkstra(grid)[0]
  paths = {frozenset(p) for p in every_path(grid)} if reached else set()
  marks = rng.random((200, 5, 5)) < rng.uniform(0, 0.5, size=(200, 1, 1))
  many = np.broadcast_to(grid, marks.shape)
  expected = [
    frozenset(tuple(map(int, p)) for p in np.argwhere(m)) in paths
    for m in marks
  ]
  assert maze_grid.is_shortest_path(many, marks).tolist() == expected


DETOUR = 'S    \n### #\n    #\n ####\n    G'


@pytest.mark.parametrize(
  ('answer', 'valid'),
  [
    ('Sooo \n###o#\noooo#\no####\nooooG', True),
    ('Sooo \n###o#\noooo#\no####\nooo G', False),  # cut
    ('Soooo\n###o#\noooo#\no####\nooooG', False),  # a dead end besides
    ('Sooo \n###o#\noooo#\no#o##\nooooG', False),  # through a wall
    ('Sooo \n###o#\noooo#\no####\noooGo', False),  # G moved
    ('Sooo \n### #\noooo#\no####\nooooG', False),
    (DETOUR, False),
  ],
)
def test_answers_by_hand(answer, valid):
  grid = maze_grid.parse(DETOUR)
  assert maze_grid.path_length(grid) == [14]
  assert maze_grid.is_solved(grid, maze_grid.parse(answer)) == [valid]


def test_a_longer_way_is_not_valid():
  grid = maze_grid.parse('S   G\n     \n     \n     \n     ')
  short = maze_grid.parse('SoooG\n     \n     \n     \n     ')
  around = maze_grid.parse('S   G\nooooo\n     \n     \n     ')
  assert maze_grid.count_paths(grid) == [1]
  np.testing.assert_array_equal(maze_grid.solve(grid), short)
  assert maze_grid.is_solved(grid, short) == [True]
  assert maze_grid.is_solved(grid, around) == [False]


def test_a_cycle_beside_a_cut_path_is_not_valid():
  """As many marks as the path has squares, but not the path."""
  grid = np.full((1, 9, 9), OPEN, np.uint8)
  grid[0, 0, 0], grid[0, 0, 8] = START, GOAL
  marked = np.zeros(grid.shape, bool)
  marked[0, 0, 1:4] = True
  marked[0, 4:6, 4:6] = True
  assert marked.sum() == maze_grid.path_length(grid)[0] - 1
  assert maze_grid.is_shortest_path(grid, marked) == [False]


def test_without_a_way_nothing_is_valid():
  grid = maze_grid.parse('S#  G\n##   \n     \n     \n     ')
  assert maze_grid.path_length(grid) == [-1]
  assert maze_grid.count_paths(grid) == [0]
  assert not maze_grid.shortest_path(grid).any()
  assert maze_grid.is_solved(grid, grid) == [False]


def test_neighbouring_ends_need_no_marks():
  grid = maze_grid.parse('SG   \n     \n     \n     \n     ')
  assert maze_grid.path_length(grid) == [1]
  assert maze_grid.is_solved(grid, maze_grid.solve(grid)) == [True]
  assert (maze_grid.solve(grid) != PATH).all()


def test_the_eight_symmetries_are_a_group():
  table_8C = maze_grid.positions(5)
  rows = {tuple(row) for row in table_8C.tolist()}
  assert len(rows) == 8
  assert table_8C[0].tolist() == list(range(25))
  for first in table_8C:
    assert {tuple(first[second].tolist()) for second in table_8C} == rows


@few
@given(SEEDS)
def test_symmetries_keep_validity_length_and_class(seed):
  grids = random_grids(seed, count=8, size=6, walls=0.2)
  answers = maze_grid.solve(grids)
  form, hashes = maze_grid.canonical(grids)
  which = np.arange(8)
  turned = maze_grid.transform(grids, which)
  turned_answers = maze_grid.transform(answers, which)
  solved = maze_grid.is_solved(grids, answers)
  assert (maze_grid.is_solved(turned, turned_answers) == solved).all()
  lengths = maze_grid.path_length(grids)
  assert (maze_grid.path_length(turned) == lengths).all()
  other_form, other_hashes = maze_grid.canonical(turned)
  np.testing.assert_array_equal(other_form, form)
  np.testing.assert_array_equal(other_hashes, hashes)
  assert len(np.unique(hashes)) == 8


def test_text_there_and_back():
  grid = maze_grid.parse(DETOUR)
  text = maze_grid.render(grid.reshape(-1).astype(np.int32))
  assert text == DETOUR
  assert sorted(np.unique(grid)) == [WALL, OPEN, START, GOAL]


@pytest.mark.parametrize('side', [2, 3, 4, 14])
def test_perfect_mazes_are_trees(side):
  free = maze_draw.carve(np.random.default_rng(side), 50, side)
  rooms = free[:, 1::2, 1::2]
  assert rooms.all()
  assert not free[:, ::2, ::2].any()
  border = free.copy()
  border[:, 1:-1, 1:-1] = False
  assert not border.any()
  # Connected, with one edge less than squares: a tree.
  edges = (free[:, 1:] & free[:, :-1]).sum(axis=(1, 2))
  edges += (free[:, :, 1:] & free[:, :, :-1]).sum(axis=(1, 2))
  squares = free.sum(axis=(1, 2))
  assert (squares == 2 * side**2 - 1).all()
  assert (edges == squares - 1).all()
  source = np.zeros_like(free)
  source[:, 1, 1] = True
  reached = maze_grid.search(free, source).distance_Nnn >= 0
  np.testing.assert_array_equal(reached, free)


def test_carving_reaches_every_tree_of_four_rooms():
  free = maze_draw.carve(np.random.default_rng(0), 200, 2)
  assert len(np.unique(free, axis=0)) == 4


@pytest.mark.parametrize(
  ('size', 'border', 'lengths'),
  [
    (7, False, (12, 17)),
    (7, True, (7, 10)),
    (8, True, (2, 9)),
    (5, True, (1, 6)),
  ],
)
def test_unique_mazes_have_one_path_in_range(size, border, lengths):
  grids = maze_draw.draw(size, 'unique', lengths, 200, 3, border=border)
  assert (maze_grid.count_paths(grids) == 1).all()
  length = maze_grid.path_length(grids)
  assert set(length.tolist()) == set(range(lengths[0], lengths[1] + 1))
  assert maze_grid.is_solved(grids, maze_grid.solve(grids)).all()
  hashes = maze_grid.canonical(grids)[1]
  assert len(np.unique(hashes)) == len(grids)


def test_published_unique_form():
  lengths = maze_draw.default_lengths(30, 'unique', True)
  assert lengths == (100, 140)
  grids = maze_draw.draw(30, 'unique', lengths, 256, 0, border=True)
  free = grids != WALL
  assert not free[:, [0, 28, 29]].any()
  assert not free[:, :, [0, 28, 29]].any()
  assert (free.sum(axis=(1, 2)) == 2 * 14**2 - 1).all()
  assert (maze_grid.count_paths(grids) == 1).all()
  length = maze_grid.path_length(grids)
  assert length.min() >= 100
  assert length.max() <= 140
  # The mean of 256 uniform lengths: 120 with a standard error of 0.74.
  assert abs(length.mean() - 120) < 4


def test_published_hard_form():
  lengths = maze_draw.default_lengths(30, 'hard', True)
  assert lengths == (111, 899)
  grids = maze_draw.draw(30, 'hard', lengths, 20, 0, border=True)
  assert (maze_grid.path_length(grids) > 110).all()
  assert (maze_grid.count_paths(grids) > 1).mean() > 0.5
  assert maze_grid.is_solved(grids, maze_grid.solve(grids)).all()


@KINDS
def test_draws_are_pure_and_fewer_are_the_first_of_many(kind):
  lengths = maze_draw.default_lengths(7, kind, False)
  many = maze_draw.draw(7, kind, lengths, 300, 5, border=False)
  few_of = maze_draw.draw(7, kind, lengths, 40, 5, border=False)
  other = maze_draw.draw(7, kind, lengths, 40, 6, border=False)
  np.testing.assert_array_equal(many[:40], few_of)
  shared = np.isin(maze_grid.canonical(other)[1], maze_grid.canonical(many)[1])
  assert shared.mean() < 0.5


def test_there_are_no_more_mazes_than_there_are():
  """2 x 2 rooms, 6 moves: four trees, two ways, one class of 8 images."""
  grids = maze_draw.draw(5, 'unique', (6, 6), 50, 0, border=True)
  assert len(grids) == 1


def test_hopeless_lengths_are_refused(monkeypatch):
  monkeypatch.setattr(maze_draw, '_PATIENCE', 2)
  with pytest.raises(ValueError, match='max_path must be reachable, got 99'):
    maze_draw.draw(7, 'unique', (99, 99), 2, 0, border=False)
  with pytest.raises(ValueError, match='min_path must be reachable, got 40'):
    maze_draw.draw(7, 'hard', (40, 48), 2, 0, border=False)


def test_speed():
  start = time.perf_counter()
  assert (
    len(maze_draw.draw(7, 'unique', (12, 17), 2000, 1, border=False)) == 2000
  )
  assert time.perf_counter() - start < 2.0
  start = time.perf_counter()
  maze_draw.draw(30, 'unique', (100, 140), 200, 1, border=True)
  assert time.perf_counter() - start < 5.0
