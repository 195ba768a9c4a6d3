"""What the prose says exists: commands, links, paths and families."""

import ast
import re
import shlex

import pytest

from tests import util
from tests.house import repo

README = (repo.ROOT / 'README.md').read_text(encoding='utf-8')
WORKSPACE = (repo.ROOT / 'WORKSPACE.md').read_text(encoding='utf-8')
SCRIPTS = repo.assigned(repo.ROOT / 'setup.py', 'SCRIPTS')
EXTRAS = repo.assigned(repo.ROOT / 'setup.py', 'EXTRAS')
PAGES = sorted(repo.ROOT.glob('*.md'))
DOCUMENTS = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)


def blocks(text: str, *languages: str) -> list[str]:
  """The fenced blocks of a page that are marked with one of the languages."""
  found = re.findall(r'^```(\w*)\n(.*?)^```', text, re.MULTILINE | re.DOTALL)
  return [body for language, body in found if language in languages]


def commands(text: str) -> list[list[str]]:
  """Every shell command of a page, as words; comments are dropped."""
  body = '\n'.join(blocks(text, 'sh', 'bash', 'console')).replace('\\\n', ' ')
  lines = [shlex.split(line, comments=True) for line in body.splitlines()]
  return [words for words in lines if words]


def make_targets() -> set[str]:
  text = (repo.ROOT / 'Makefile').read_text()
  rules = re.findall(r'^([\w -]+):(?!=)', text, re.MULTILINE)
  return {target for rule in rules for target in rule.split()}


def check_command(words: list[str]) -> None:
  """Fails if the command, an extra, a target or a config is not there."""
  words = [word for word in words if '=' not in word or word.startswith('--')]
  program, *rest = words
  if program == 'make':
    assert set(rest) <= make_targets(), words
  elif program.startswith('loopformer-'):
    assert program in SCRIPTS, words
  elif program == 'pip':
    extras = re.findall(r'\[([\w,]+)\]', ' '.join(rest))
    assert {e for group in extras for e in group.split(',')} <= set(EXTRAS)
  elif 'python' in program and rest[:1] == ['-m']:
    local = rest[1].startswith('loopformer')
    path = repo.ROOT / (rest[1].replace('.', '/') + '.py')
    assert not local or path.exists(), words
  elif 'python' in program:
    assert (repo.ROOT / rest[0]).exists(), words
  else:
    assert program in ('git', 'cd'), f'no test knows this command: {words}'
  for word in rest:
    if word.startswith('--config='):
      config = word.removeprefix('--config=').split(':')[0]
      assert (repo.ROOT / config).exists(), words


@DOCUMENTS
def test_every_command_exists(page):
  for words in commands(page.read_text(encoding='utf-8')):
    check_command(words)


def test_the_readme_shows_both_commands():
  shown = commands(README)
  assert ['make', 'demo'] in shown and ['make', 'test'] in shown


@pytest.mark.parametrize('script', sorted(SCRIPTS))
def test_console_scripts_have_a_main(script):
  module, function = SCRIPTS[script].split(':')
  path = repo.ROOT / (module.replace('.', '/') + '.py')
  assert function in [
    node.name for node in repo.nodes(path, ast.FunctionDef)
  ], path


@DOCUMENTS
def test_every_link_leads_somewhere(page):
  text = page.read_text(encoding='utf-8')
  targets = re.findall(r'\]\(([^)]*)\)', text) + re.findall(
    r'<(http[^>]*)>', text
  )
  for target in targets:
    if re.match(r'[a-z]+:', target):
      assert re.fullmatch(r'https://[\w.-]+\.[a-z]+(/[^\s]*)?', target), target
    elif target.startswith('#'):
      heads = re.findall(r'^#+ (.*)', text, re.MULTILINE)
      slugs = [
        re.sub(r'[^\w -]', '', h).lower().replace(' ', '-') for h in heads
      ]
      assert target[1:] in slugs, target
    else:
      assert (repo.ROOT / target.split('#')[0]).exists(), target


def test_every_path_of_the_workspace_map_exists():
  paths = re.findall(r'`([\w.<>*/-]*/[\w.<>*/-]*|[\w-]+\.\w+)`', WORKSPACE)
  assert paths
  for path in paths:
    made_later = path.strip('/').split('/')[0] in repo.ignored()
    placeholder = '<' in path
    found = made_later or placeholder or list(repo.ROOT.glob(path.strip('/')))
    assert found, path


def test_every_room_is_on_the_map():
  for path in repo.PACKAGE.glob('*/__init__.py'):
    assert f'`loopformer/{path.parent.name}/`' in WORKSPACE


def readme_families() -> list[str]:
  section = README.split('## Families', 1)[1].split('\n## ', 1)[0]
  return re.findall(r'^\| \[`(\w+)`\]', section, re.MULTILINE)


def test_the_table_lists_the_families():
  from loopformer import zoo

  assert readme_families() == list(zoo.FAMILIES)


@pytest.mark.parametrize('family', readme_families())
def test_a_family_has_its_four_places(family):
  for place in ('loopformer/zoo/{}.py', 'experiments/{}.py'):
    assert (repo.ROOT / place.format(family)).exists()
  assert (repo.ROOT / f'tests/zoo/{family}_test.py').exists()


@pytest.mark.parametrize('body', blocks(README, 'python'))
def test_the_python_of_the_readme_runs(body):
  printed = util.run_python(body, fresh=True).stdout.splitlines()
  assert printed == re.findall(r'# -> (.*)', body)
