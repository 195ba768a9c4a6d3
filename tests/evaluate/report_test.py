"""The report: self-contained, escaped, only what it was given."""

import html.parser
import json
import math
import re

import pytest

from loopformer.evaluate import charts, report, sections
from tests.evaluate import sample

VOID = {'meta', 'input', 'link', 'br', 'img'}


class Page(html.parser.HTMLParser):
  """Collects elements and text; fails where tags do not nest."""

  def __init__(self, text: str):
    super().__init__()
    self.open, self.elements, self.texts = [], [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.texts.append((self.open[-1] if self.open else '', data))

  def scripts(self) -> list[str]:
    return [text for tag, text in self.texts if tag == 'script']

  def prose(self) -> str:
    kept = [text for tag, text in self.texts if tag not in ('script', 'style')]
    return ' '.join(' '.join(kept).split())


def write(tmp_path, results) -> str:
  return report.write_report(tmp_path, results).read_text(encoding='utf-8')


def test_a_folder_gets_an_index_and_a_file_is_kept(tmp_path):
  assert report.write_report(tmp_path / 'a', {}) == tmp_path / 'a/index.html'
  named = report.write_report(tmp_path / 'b' / 'x.html', {})
  assert named == tmp_path / 'b' / 'x.html' and named.exists()


def test_nothing_is_fetched(tmp_path):
  text = write(tmp_path, sample.results())
  page = Page(text)
  for tag, attributes in page.elements:
    assert tag not in ('link', 'img', 'iframe', 'object')
    assert not {'src', 'href', 'srcset', 'action'} & set(attributes), tag
  assert not re.search(r'https?:|@import|url\(|fetch\(|XMLHttp', text)
  policy = [a for t, a in page.elements if 'http-equiv' in a][0]['content']
  assert "default-src 'none'" in policy


@pytest.mark.parametrize('missing', [*sample.results(), None, 'everything'])
def test_any_part_may_be_missing(tmp_path, missing):
  results = {} if missing == 'everything' else sample.results()
  results.pop(missing, None)
  page = Page(write(tmp_path, results))
  assert 'None' not in page.prose() and 'nan' not in page.prose()


def test_figures_are_those_of_the_results(tmp_path):
  prose = Page(write(tmp_path, sample.results())).prose()
  for words in (
    'solves 25 % of unseen puzzles after 1 recurrence and 100 % after 8',
    'the same 84,000 parameters',
    'feedforward, same compute: 87.4 %',
    'feedforward, same parameters: 22.3 %',
    'trained with 8',
    'halts below 0.1',
    '4.5 recurrences on average, 7 at most',
    '447 held out by class',
    '1 min 43 s',
    '2026-11-21',
  ):
    assert words in prose.replace('\u00a0', ' '), words


def test_strings_cannot_leave_their_place(tmp_path):
  bad = '"></script><script>alert(1)</script><b onclick=x>&amp;'
  results = sample.results()
  for key in ('title', 'task', 'command', 'date', 'machine'):
    results[key] = bad
  results['protocol'] = [bad]
  results['seconds'] = {bad: 1.0}
  for row in results['depth'] + results['halting'] + results['baselines']:
    row['name'] = bad
  results['depth'].append({**results['depth'][0], 'name': bad})
  results['boards'][0]['note'] = bad
  page = Page(write(tmp_path, results))
  assert len(page.scripts()) == 2
  assert not [t for t, a in page.elements if t == 'b' or 'onclick' in a]
  assert json.loads(page.scripts()[0])['boards'][0]['note'] == bad


def test_embedded_json_is_read_back_and_finite():
  value = {'a': ['</script>', '<!--', 1, True, None, 0.5], 3: (math.inf, 1.0)}
  text = report.embed({**value, 'b': math.nan})
  assert not set('<>&') & set(text)
  assert json.loads(text) == {'a': value['a'], '3': [None, 1.0], 'b': None}


def test_a_board_that_does_not_fit_is_refused(tmp_path):
  results = {'boards': [sample.board()]}
  results['boards'][0]['steps'][2]['digits'] = [1, 2, 3]
  message = r'boards\[0\]\.steps\[2\]\.digits must have 16 cells, got 3'
  with pytest.raises(ValueError, match=message):
    report.write_report(tmp_path, results)


def test_the_claim_needs_a_gain():
  results = sample.results()
  assert sections.headline(results) == sections.HEADLINE + sections.CLAIM
  results['baselines'][0]['exact'] = 1.0
  assert sections.CLAIM in sections.headline(results)
  for point in results['depth'][0]['points']:
    point['exact'] = 0.25
  assert sections.headline(results) == sections.HEADLINE
  assert sections.headline({}) == sections.HEADLINE


@pytest.mark.parametrize(
  ('share', 'shown'),
  [(1.0, '100'), (0.9999, '99.9'), (0.996, '99.6'), (0.25, '25'), (0.0, '0')],
)
def test_percent(share, shown):
  assert charts.percent(share) == f'{shown}\u00a0%'


def test_points_lie_where_they_should():
  points = [sample.point(steps, steps / 4) for steps in (1, 2, 4)]
  chart = charts.accuracy({'depth': [{'name': 'a', 'points': points}]})
  dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="4"', chart)
  (x1, y1), (x2, y2), (x4, y4) = ((float(x), float(y)) for x, y in dots)
  assert x2 - x1 == x4 - x2  # log scale
  assert y1 - y2 == pytest.approx((y2 - y4) / 2, abs=0.1)  # linear scale


def test_a_residual_of_zero_is_drawn_on_the_axis():
  rows = [{'step': s, 'median': m} for s, m in ((1, 0.5), (2, 0.01), (3, 0.0))]
  chart = charts.residual({'residual': rows})
  ys = [float(y) for y in re.findall(r'cy="([\d.]+)"', chart)]
  assert ys[0] < ys[1] < ys[2] == charts.BOTTOM
  assert '>0</text>' in chart
