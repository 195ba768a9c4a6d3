"""Text to tokens and back, whole and piece by piece; files that are refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopformer.tasks import tokenizer
from tests.tasks import tokens

pytest.importorskip('tokenizers')
KINDS = ('bytes', 'byte_level', 'byte_fallback')
some = settings(derandomize=True, max_examples=100, deadline=None)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Each kind of tokenizer by name."""
  folder = lambda: tmp_path_factory.mktemp('tokenizer')
  return {
    'bytes': tokenizer.load('bytes'),
    'byte_level': tokenizer.load(tokens.byte_level(folder())),
    'byte_fallback': tokenizer.load(tokens.byte_fallback(folder())),
  }


def streamed(maker, ids):
  """The pieces a decoder prints, what it holds back included."""
  decoder = maker.decoder()
  return [*(decoder.push(int(token)) for token in ids), decoder.flush()]


@pytest.mark.parametrize('kind', KINDS)
@some
@given(text=st.text(st.characters(codec='utf-8'), max_size=30))
def test_text_comes_back_whole_and_in_pieces(made, kind, text):
  text = 'a' + text.replace('\u2581', '').replace('\x00', '')
  ids = made[kind].encode(text)
  assert ids.dtype == np.int32
  assert made[kind].decode(ids) == text
  assert ''.join(streamed(made[kind], ids)) == text


@pytest.mark.parametrize('kind', ['bytes', 'byte_level'])
@some
@given(data=st.data())
def test_any_tokens_stream_to_what_they_decode_to(made, kind, data):
  """Such as those of a model that is not trained."""
  limit = made[kind].vocab_size - 1
  ids = np.array(data.draw(st.lists(st.integers(0, limit))), np.int64)
  assert ''.join(streamed(made[kind], ids)) == made[kind].decode(ids)


@pytest.mark.parametrize('kind', KINDS)
def test_no_piece_ends_inside_a_character(made, kind):
  ids = made[kind].encode('a€😀b')
  pieces = streamed(made[kind], ids)
  assert len(ids) == len(pieces) - 1
  assert [piece for piece in pieces if piece] == ['a', '€', '😀', 'b']


def test_an_unfinished_character_is_flushed(made):
  decoder = made['bytes'].decoder()
  assert [decoder.push(byte) for byte in '€'.encode()[:2]] == ['', '']
  assert decoder.flush() == '\ufffd'
  assert decoder.push(ord('a')) == 'a'


def test_the_work_for_a_token_does_not_grow(made):
  longest = 0

  def decode(ids):
    nonlocal longest
    longest = max(longest, len(ids))
    return made['byte_level'].decode(np.asarray(ids, np.int64))

  decoder = tokenizer._TextDecoder(decode)
  ids = made['byte_level'].encode(tokens.TEXT * 20)
  assert ''.join(decoder.push(int(i)) for i in ids) == tokens.TEXT * 20
  assert longest < 12 < len(ids)


def test_the_end_of_a_document(made, tmp_path):
  ends = {kind: made[kind].end_of_document for kind in KINDS}
  assert ends == {'bytes': 255, 'byte_level': 0, 'byte_fallback': 1}
  for kind in KINDS:
    ids = np.array([*made[kind].encode('ab'), ends[kind]])
    assert made[kind].decode(ids) == 'ab'
    assert ''.join(streamed(made[kind], ids)) == 'ab'
  path = tokens.byte_level(tmp_path, end='<stop>')
  assert tokenizer.load(path).end_of_document is None
  assert tokenizer.load(path, '<stop>').end_of_document == 0
  for end in ('<stop>', {'content': '<stop>'}):
    config = tmp_path / 'tokenizer_config.json'
    config.write_text(json.dumps({'eos_token': end}))
    assert tokenizer.load(str(tmp_path)).end_of_document == 0
  with pytest.raises(ValueError, match="must be a token of .*, got '<x>'"):
    tokenizer.load(path, '<x>')


@pytest.mark.parametrize('kind', KINDS)
def test_text_that_spells_the_end_does_not_end_anything(made, kind):
  for text in (f'a{tokens.END}b', 'a</s>b'):
    ids = made[kind].encode(text)
    assert made[kind].end_of_document not in ids
    assert made[kind].decode(ids) == text


@pytest.mark.parametrize('kind', KINDS)
def test_bytes_are_counted_though_characters_are_split(made, kind):
  text = 'ab c€ 😀'
  ids = np.array([*made[kind].encode(text), made[kind].end_of_document])
  counts = made[kind].byte_counts(ids)
  # A SentencePiece vocabulary puts a blank before the text.
  extra = kind == 'byte_fallback'
  assert counts.sum() == len(text.encode()) + extra
  assert counts[-1] == 0 and counts[:-1].min() >= 1


def test_truncation_and_padding_of_a_file_are_ignored(made, tmp_path):
  path = tokens.byte_level(tmp_path)
  whole = made['byte_level'].encode(tokens.TEXT)
  truncation = {
    'direction': 'Right',
    'max_length': 4,
    'strategy': 'LongestFirst',
    'stride': 0,
  }
  tokens.edit(path, truncation=truncation)
  np.testing.assert_array_equal(tokenizer.load(path).encode(tokens.TEXT), whole)


def test_ids_with_holes_count_up_to_the_last(tmp_path):
  path = tokens.byte_level(tmp_path)
  added = {
    'id': 999,
    'content': '<far>',
    'single_word': False,
    'lstrip': False,
    'rstrip': False,
    'normalized': False,
    'special': True,
  }
  with open(path, encoding='utf-8') as file:
    model = json.load(file)['model']
  model['vocab']['<far>'] = 999
  tokens.edit(path, model=model, added_tokens=[added])
  assert tokenizer.load(path).vocab_size == 1000


def test_what_cannot_be_read_is_one_line(tmp_path, monkeypatch):
  with pytest.raises(FileNotFoundError, match="tokenizer must be 'bytes' or"):
    tokenizer.load(str(tmp_path / 'none.json'))
  bad = tmp_path / 'tokenizer.json'
  for content in ('{', '{}', 'null', ''):
    bad.write_text(content)
    with pytest.raises(ValueError, match='must be a tokenizer.json') as caught:
      tokenizer.load(str(bad))
    assert '\n' not in str(caught.value)
  with pytest.raises(ValueError, match='end_of_document must be None'):
    tokenizer.load('bytes', '</s>')
  path = tokens.byte_level(tmp_path)
  monkeypatch.setitem(sys.modules, 'tokenizers', None)
  with pytest.raises(ValueError, match='needs the package tokenizers: pip'):
    tokenizer.load(path)


def test_a_model_must_have_every_token(made):
  tokenizer.check_vocab(made['bytes'], 256, 'model.vocab_size')
  with pytest.raises(ValueError) as caught:
    tokenizer.check_vocab(made['byte_level'], 256, 'model.vocab_size')
  assert str(caught.value) == (
    'model.vocab_size must be >= 300, the tokens of the tokenizer, got 256.'
  )


def test_the_package_is_not_imported_for_bytes():
  code = (
    'import sys; from loopformer.tasks import Text, TextConfig;'
    "Text(TextConfig()); print('tokenizers' in sys.modules)"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == 'False'


def test_ids_beyond_the_bytes_write_nothing():
  """A model may have more tokens than there are bytes."""
  bytes_ = tokenizer.load('bytes')
  ids_T = np.array([72, 300, 105, 255, 256])
  assert bytes_.decode(ids_T) == 'Hi'
  decoder = bytes_.decoder()
  pieces = [decoder.push(int(token)) for token in ids_T]
  assert ''.join(pieces) + decoder.flush() == 'Hi'
