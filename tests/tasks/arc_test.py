"""The ARC task: files, copies, split, votes and configuration."""

import json

import numpy as np
import pytest

from loopformer.tasks import arc_copies, arc_json, arc_synthetic, arc_vote
from loopformer.tasks.arc import Arc, ArcConfig
from loopformer.tasks.arc_grid import IDENTITY, decode, encode
from loopformer.tasks.arc_json import Pair, Puzzle
from loopformer.tasks.task import IGNORE
from tests.tasks import laws

SMALL = ArcConfig(synthetic=6, augmentations=5, canvas=10)


@pytest.fixture(scope='module')
def task():
  return Arc(SMALL)


def grid(*rows):
  return np.array([[int(cell) for cell in row] for row in rows], np.uint8)


def as_json(pairs, keys=('input', 'output')):
  return [{key: getattr(pair, key).tolist() for key in keys} for pair in pairs]


def write_merged(folder, puzzles, name='arc_challenges.json'):
  """The Kaggle form: answers of the tests in a file of their own."""
  path = folder / name
  tasks = {
    p.name: {'train': as_json(p.train), 'test': as_json(p.test, ['input'])}
    for p in puzzles
  }
  answers = {p.name: [pair.output.tolist() for pair in p.test] for p in puzzles}
  path.write_text(json.dumps(tasks))
  beside = name.replace('challenges', 'solutions')
  (folder / beside).write_text(json.dumps(answers))
  return str(path)


def write_single(folder, puzzles):
  for p in puzzles:
    task = {'train': as_json(p.train), 'test': as_json(p.test)}
    (folder / f'{p.name}.json').write_text(json.dumps(task))
  return str(folder)


def contents(puzzles):
  return [(p.name, as_json(p.train), as_json(p.test)) for p in puzzles]


def labels_as_tokens(batch):
  return np.where(batch['labels'] == IGNORE, 0, batch['labels'])


def test_contract(task):
  laws.assert_contract(task)
  assert (task.vocab_size, task.num_classes, task.seq_len) == (12, 12, 100)
  assert not task.causal
  assert Arc(ArcConfig(synthetic=2, augmentations=2)).seq_len == 900


def test_puzzles_travel_with_rows_and_are_pure(task):
  for read in (lambda: task.train_batch(3, 5, 40), lambda: task.heldout(40)):
    batch = read()
    puzzles_B = batch['puzzles']
    assert (puzzles_B.shape, puzzles_B.dtype) == ((40,), np.int32)
    assert puzzles_B.min() >= 1
    assert puzzles_B.max() < task.num_puzzles
    np.testing.assert_array_equal(puzzles_B, read()['puzzles'])
  assert task.num_puzzles == 1 + 6 * 6


def test_ids_tell_equal_inputs_of_different_puzzles_apart(task):
  batch = task.train_batch(0, 0, 400)
  rows = np.concatenate([batch['inputs'], batch['puzzles'][:, None]], axis=1)
  distinct = np.unique(rows, axis=0)
  assert len(np.unique(batch['ids'])) == len(distinct) < 400


def test_rows_are_pairs_of_their_puzzle_under_its_augmentation(task):
  config = ArcConfig(synthetic=6, augmentations=5, canvas=10, translate=False)
  for source in (Arc(config).train_batch(0, 0, 60), task.heldout(36)):
    trained = source['inputs'].shape[0] == 60
    for row, puzzle_id in enumerate(source['puzzles']):
      which, augmentation = task.puzzle(int(puzzle_id))
      tokens_T = labels_as_tokens(source)[row]
      found = Pair(
        augmentation.invert(decode(source['inputs'][row])),
        augmentation.invert(decode(tokens_T)),
      )
      puzzle = task.puzzles[which]
      allowed = puzzle.train if trained else puzzle.test
      assert as_json([found])[0] in as_json(allowed)


def test_held_out_tests_come_as_they_are_first_and_are_never_trained_on(task):
  tests = [pair for puzzle in task.puzzles for pair in puzzle.test]
  first = task.heldout(len(tests))
  for row, pair in enumerate(tests):
    np.testing.assert_array_equal(
      first['inputs'][row], encode(pair.input, side=10)
    )
  assert task.num_heldout == 36
  whole = task.heldout(72)
  assert len(np.unique(whole['puzzles'][:36])) == 36
  np.testing.assert_array_equal(whole['inputs'][:36], whole['inputs'][36:])
  trained = {
    pair.tobytes()
    for step in range(10)
    for pair in rows_of(task.train_batch(0, step, 64))
  }
  assert not trained & {pair.tobytes() for pair in rows_of(whole)}


def rows_of(batch):
  return np.concatenate([batch['inputs'], batch['labels']], axis=1)


def test_every_pair_and_copy_is_trained_on_and_one_pair_stays_put(task):
  seen, moved = set(), {}
  for step in range(12):
    batch = task.train_batch(0, step, 64)
    for row, puzzle_id in enumerate(batch['puzzles']):
      seen.add(int(puzzle_id))
      canvas_SS = batch['inputs'][row].reshape(10, 10)
      rows, columns = np.nonzero(canvas_SS)
      label_SS = labels_as_tokens(batch)[row].reshape(10, 10)
      corner = (rows.min(), columns.min())
      both = np.argwhere(label_SS).min(axis=0)
      assert tuple(both) == corner  # input and output move together
      moved.setdefault(int(puzzle_id), set()).add(corner)
  assert seen == set(range(1, task.num_puzzles))
  assert sum((0, 0) in places for places in moved.values()) > 30
  assert sum(len(places) > 1 for places in moved.values()) > 30


def test_copies_differ_and_the_task_itself_is_the_first():
  puzzle = arc_synthetic.make(1, 0, 8)[0]
  copies = arc_copies.distinct(puzzle, 40, np.random.default_rng(0), 8)
  assert copies.count == 41
  assert copies.augmentation(0).dihedral == 0
  np.testing.assert_array_equal(
    copies.augmentation(0).colours_C, IDENTITY.colours_C
  )
  found = set()
  for index in range(41):
    image = copies.augmentation(index).apply
    keys = [[arc_vote.key(image(g)) for g in pair] for pair in puzzle.train]
    asked = [arc_vote.key(image(pair.input)) for pair in puzzle.test]
    found.add(str((sorted(keys), asked)))
  assert len(found) == 41


def test_a_symmetric_task_has_as_many_copies_as_there_are():
  # A square of one colour: 9 colours, and the square's symmetries do nothing.
  square = Pair(grid('33', '33'), grid('3'))
  puzzle = Puzzle('square', (square,), (square,))
  copies = arc_copies.distinct(puzzle, 30, np.random.default_rng(0), 5)
  assert sorted(copies.colours_NC[:, 3]) == list(range(1, 10))
  # A bar lies or stands; two demonstrations in either order are one task.
  lying, standing = (Pair(g, g) for g in (grid('33'), grid('3', '3')))
  for demonstrations, count in (((lying,), 18), ((lying, standing), 9)):
    puzzle = Puzzle('bar', demonstrations, (square,))
    copies = arc_copies.distinct(puzzle, 60, np.random.default_rng(0), 5)
    assert copies.count == count


def test_black_is_no_colour_among_the_others():
  class_of = lambda *rows: arc_copies.pair_class(Pair(grid(*rows), grid('1')))
  assert class_of('12', '00') == class_of('10', '20') == class_of('15', '00')
  assert class_of('12', '00') != class_of('10', '02')
  assert class_of('11', '00') != class_of('12', '00')
  assert class_of('1100') != class_of('11', '00')
  assert class_of('0111') != class_of('1000')


def test_scores_leave_padding_out(task):
  batch = task.heldout(3)
  guess_NT = np.where(batch['labels'] == IGNORE, 7, batch['labels'])
  scored_N = (batch['labels'] != IGNORE).sum(axis=1)
  guess_NT[1, 0] = 1
  score = task.score(guess_NT, batch)
  assert score['exact'].tolist() == [True, False, True]
  expected = [1.0, 1.0 - 1.0 / scored_N[1], 1.0]
  np.testing.assert_allclose(score['cell'], expected, rtol=1e-6)


def test_both_forms_are_read_alike(tmp_path):
  puzzles = arc_synthetic.make(7, 1, 30)
  expected = contents(sorted(puzzles, key=lambda p: p.name))
  (tmp_path / 'a').mkdir(), (tmp_path / 'b').mkdir()
  path = write_merged(tmp_path / 'a', puzzles)
  for form in (
    path,
    str(tmp_path / 'a'),
    write_single(tmp_path / 'b', puzzles),
  ):
    assert contents(arc_json.read(form)) == expected
  laws.assert_contract(Arc(ArcConfig(path=path, augmentations=3)))


def test_tests_of_train_paths_are_trained_on_unless_held_out(tmp_path):
  first, second, third = arc_synthetic.make(3, 0, 8)
  swapped = np.array([0, *range(9, 0, -1)], np.uint8)
  leak = Pair(*(np.rot90(swapped[g]) for g in first.test[0]))
  second = second._replace(test=(*second.test, leak))
  path = write_merged(tmp_path, [first], 'one_challenges.json')
  more = write_merged(tmp_path, [second, third], 'two_challenges.json')
  task = Arc(ArcConfig(path=path, train_paths=(more,), augmentations=2))
  pairs = {
    p.name: len(pairs)
    for p, pairs in zip(task.puzzles, task.train_pairs, strict=True)
  }
  assert pairs == {first.name: 3, second.name: 4, third.name: 4}
  assert task.num_heldout == task.puzzle(1)[0] + 3
  assert '1 pairs of train_paths left out' in task.describe()
  with pytest.raises(ValueError, match='must come once over path and'):
    Arc(ArcConfig(path=path, train_paths=(path,)))


GOOD = {
  'train': [{'input': [[1]], 'output': [[2]]}],
  'test': [{'input': [[3]]}],
}
BAD = {
  'not JSON': ('{"t": [1,', 'must be JSON: '),
  'not UTF-8': (b'{"t": "\xff"}', 'must be JSON: '),
  'deep': ('[' * 100_000, 'must be JSON: '),
  'a list': ('[1]', 'must be a JSON object with tasks; a task is'),
  'empty': ('{}', 'must be a JSON object with tasks; a task is'),
  'no task': ({'t': 3}, "task 't': must have pairs in 'train'; a task is"),
  'no tests': ({'t': {**GOOD, 'test': []}}, "must have pairs in 'test'"),
  'no input': (
    {'t': {**GOOD, 'train': [{'output': [[1]]}]}},
    "task 't' train 0: must have an 'input'.",
  ),
  'no answer': (
    {'t': GOOD},
    "task 't' test 0: must have an 'output' here or in a solutions file.",
  ),
}
GRIDS = {
  'a row': ([1, 2], 'must be 1 to 30 rows of 1 to 30 colours, got no list'),
  'ragged': ([[1, 2], [3]], 'got rows of lengths [1, 2].'),
  'empty': ([[]], 'must be 1 to 30 rows of 1 to 30 colours, got 1 x 0.'),
  'nothing': ([], 'got 0 x 0.'),
  'tall': ([[1]] * 31, 'must be 1 to 30 rows of 1 to 30 colours, got 31 x 1.'),
  'colour': ([[1, 10]], "a colour must be 0 to 9, got '10'."),
  'negative': ([[-1]], "a colour must be 0 to 9, got '-1'."),
  'float': ([[1.0]], "a colour must be 0 to 9, got '1.0'."),
  'truth': ([[True]], "a colour must be 0 to 9, got 'True'."),
}
for name, (bad, message) in GRIDS.items():
  pairs = [GOOD['train'][0], {'input': [[1]], 'output': bad}]
  where = "task 't' train 1 output: "
  BAD[f'grid {name}'] = ({'t': {**GOOD, 'train': pairs}}, where, message)


@pytest.mark.parametrize('kind', BAD)
def test_a_bad_file_is_refused_in_one_line(tmp_path, kind):
  content, *parts = BAD[kind]
  path = tmp_path / 'bad.json'
  if not isinstance(content, (str, bytes)):
    content = json.dumps(content)
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(ValueError) as caught:
    Arc(ArcConfig(path=str(path)))
  assert str(caught.value).startswith(f'{path}: ')
  assert '\n' not in str(caught.value)
  assert all(part in str(caught.value) for part in parts)


def test_solutions_and_names_must_agree(tmp_path):
  puzzles = arc_synthetic.make(2, 0, 8)
  path = write_merged(tmp_path, puzzles)
  (tmp_path / 'arc_solutions.json').write_text(json.dumps({'t': []}))
  with pytest.raises(
    ValueError, match='arc_solutions.json: task .* a list of 1'
  ):
    arc_json.read(path)
  write_merged(tmp_path, puzzles)
  write_merged(tmp_path, puzzles[:1], 'more_challenges.json')
  with pytest.raises(ValueError, match='must come once, it is also in .*arc_'):
    arc_json.read(str(tmp_path))


@pytest.mark.parametrize('field', ['path', 'train_paths'])
def test_missing_files_name_the_field(tmp_path, field):
  path = write_merged(tmp_path, arc_synthetic.make(1, 0, 8))
  none = str(tmp_path / 'none')
  fields = {'path': path, 'train_paths': (none,)}
  fields = {'path': none} if field == 'path' else fields
  with pytest.raises(FileNotFoundError, match=f'^{field} must name a JSON'):
    Arc(ArcConfig(**fields))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(train_paths=('a',)), 'train_paths must be () when path is None, got'),
    (dict(synthetic=0), 'synthetic must be >= 1, got 0.'),
    (dict(augmentations=-1), 'augmentations must be >= 0, got -1.'),
    (dict(canvas=31), 'canvas must be in 2..30, got 31.'),
    (dict(seed=-1), 'seed must be >= 0, got -1.'),
  ],
)
def test_config_is_checked(fields, message):
  with pytest.raises(ValueError) as caught:
    ArcConfig(**fields)
  assert message in str(caught.value)


def test_puzzle_ids_are_checked(task):
  with pytest.raises(ValueError, match='puzzle_id must be in 1..36, got 0.'):
    task.puzzle(0)


@pytest.mark.parametrize(
  ('rule', 'expected'),
  [
    (arc_synthetic.crop, ['12', '10']),
    (arc_synthetic.fall, ['000', '010', '012']),
  ],
)
def test_made_up_rules_by_hand(rule, expected):
  found = rule(grid('000', '012', '010'))
  np.testing.assert_array_equal(found, grid(*expected))
