"""From text to token ids and back: bytes, or a Hugging Face tokenizer file."""

import codecs
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Integer

# Names under which published vocabularies keep the end of a document.
END_NAMES = (
  '<|endoftext|>', '<|end_of_text|>', '<|end_text|>', '</s>', '<eos>', '[SEP]',
)  # fmt: skip
_INSTALL = "pip install 'loopformer[tokenizers]'"
_UNKNOWN = '\ufffd'
BYTES_END = 255


@runtime_checkable
class Decoder(Protocol):
  """Text of tokens that come one by one: never half of a character."""

  def push(self, token: int) -> str:
    """Returns the text that is certain once `token` is known."""

  def flush(self) -> str:
    """Returns what was held back, at the end."""


@runtime_checkable
class Tokenizer(Protocol):
  """Token ids of a text and back.

  vocab_size: ids are below it.
  end_of_document: the id that ends a document, or None. Text never encodes to
    it, and it decodes to nothing.
  fingerprint: equal for two tokenizers that encode alike.
  """

  vocab_size: int
  end_of_document: int | None
  fingerprint: str

  def encode(self, text: str) -> Int32[np.ndarray, ' T']:
    """Returns the tokens of a text; none are added."""

  def decode(self, tokens_T: Integer[np.ndarray, ' T']) -> str:
    """Returns the text of tokens; what is not UTF-8 becomes U+FFFD."""

  def decoder(self) -> Decoder:
    """Returns a decoder whose pieces join to what `decode` returns."""

  def byte_counts(
    self, tokens: Integer[np.ndarray, '*shape']
  ) -> Int32[np.ndarray, '*shape']:
    """Returns how many bytes of text each token stands for."""


class ByteTokenizer:
  """One token a byte of UTF-8; 0xFF, which UTF-8 never has, ends a document."""

  vocab_size = 256
  end_of_document: int | None = BYTES_END
  fingerprint = 'bytes'

  def encode(self, text: str) -> Int32[np.ndarray, ' T']:
    """The bytes of the text."""
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

  def decode(self, tokens_T: Integer[np.ndarray, ' T']) -> str:
    """The text of the bytes; ends of documents and higher ids give none."""
    kept = tokens_T[tokens_T < BYTES_END]
    return kept.astype(np.uint8).tobytes().decode(errors='replace')

  def decoder(self) -> Decoder:
    """Holds back the bytes of a character until it is whole."""
    return _ByteDecoder()

  def byte_counts(
    self, tokens: Integer[np.ndarray, '*shape']
  ) -> Int32[np.ndarray, '*shape']:
    """One each, none for the end of a document."""
    return (tokens != self.end_of_document).astype(np.int32)


class _ByteDecoder:
  def __init__(self):
    self._decoder = codecs.getincrementaldecoder('utf-8')(errors='replace')

  def push(self, token: int) -> str:
    written = token < BYTES_END
    return self._decoder.decode(bytes([token])) if written else ''

  def flush(self) -> str:
    text = self._decoder.decode(b'', final=True)
    self._decoder.reset()
    return text


class FileTokenizer:
  """A `tokenizer.json`, read by the package `tokenizers`.

  Truncation and padding that the file asks for are switched off: every token
  of a text is returned and nothing else. Text that spells a special token,
  such as `</s>`, is text: no document can end itself or another.

  Raises:
    ValueError: the package is not installed, the file is damaged, or it has no
      token named `end_of_document`.
    FileNotFoundError: there is no such file.
  """

  def __init__(self, path: str, end_of_document: str | None = None):
    file = pathlib.Path(path)
    file = file / 'tokenizer.json' if file.is_dir() else file
    if not file.is_file():
      raise FileNotFoundError(
        f"tokenizer must be 'bytes' or an existing tokenizer.json, got {path!r}"
        '.'
      )
    self._inner = _read(file)
    self.fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()
    self._ids = self._inner.get_vocab(with_added_tokens=True)
    if not self._ids:
      raise ValueError(f'tokenizer must hold tokens, got none in {file}.')
    self.vocab_size = max(self._ids.values()) + 1
    self.end_of_document = self._find_end(file, end_of_document)

  def _find_end(self, file: pathlib.Path, asked: str | None) -> int | None:
    if asked is not None:
      if asked not in self._ids:
        raise ValueError(
          f'end_of_document must be a token of {file}, got {asked!r}.'
        )
      return self._ids[asked]
    names = (_configured_end(file), *END_NAMES)
    return next((self._ids[n] for n in names if n in self._ids), None)

  def encode(self, text: str) -> Int32[np.ndarray, ' T']:
    """The tokens of a text."""
    return self.encode_all([text])[0]

  def encode_all(self, texts: Sequence[str]) -> list[Int32[np.ndarray, ' _']]:
    """The tokens of several texts, on all cores."""
    found = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.asarray(encoding.ids, np.int32) for encoding in found]

  def decode(self, tokens_T: Integer[np.ndarray, ' T']) -> str:
    """The text of tokens; special ones and ids without a token give none."""
    return self._text(tokens_T.tolist())

  def _text(self, tokens: Sequence[int]) -> str:
    kept = [token for token in tokens if token != self.end_of_document]
    return self._inner.decode(kept, skip_special_tokens=True)

  def decoder(self) -> Decoder:
    """Holds back tokens whose text may still change."""
    return _TextDecoder(self._text)

  def byte_counts(
    self, tokens: Integer[np.ndarray, '*shape']
  ) -> Int32[np.ndarray, '*shape']:
    """Bytes of each token in a byte-level or SentencePiece vocabulary."""
    return self._byte_table[tokens]

  @functools.cached_property
  def _byte_table(self) -> np.ndarray:
    content = json.loads(self._inner.to_str())
    byte_level = 'ByteLevel' in json.dumps(content.get('decoder'))
    added = {t['id']: t for t in content.get('added_tokens', ())}
    table_V = np.zeros(self.vocab_size, np.int32)
    for piece, token in self._ids.items():
      if token == self.end_of_document or added.get(token, {}).get('special'):
        continue
      if byte_level and token not in added:
        table_V[token] = len(piece)  # Each letter stands for a byte.
      elif len(piece) == 6 and piece.startswith('<0x'):
        table_V[token] = 1
      else:
        table_V[token] = len(piece.replace('\u2581', ' ').encode())
    return table_V


class _TextDecoder:
  """Decodes the newest tokens together with those before, as context.

  A tokenizer gives U+FFFD for a character that is not whole, so text up to the
  last run of these is certain. Once all is, only the tokens since the time
  before are kept: the work for a token does not grow with the text.
  """

  def __init__(self, decode: Callable[[Sequence[int]], str]):
    self._decode = decode
    self._tokens: list[int] = []
    self._context = 0  # How many of them were printed the time before.
    self._sent = 0  # How much of their text was.

  def push(self, token: int) -> str:
    self._tokens.append(token)
    text = self._decode(self._tokens)
    certain = text.rstrip(_UNKNOWN)
    piece = certain[self._sent :]
    self._sent = max(self._sent, len(certain))
    if piece and certain == text:
      self._tokens = self._tokens[self._context :]
      self._context = len(self._tokens)
      self._sent = len(self._decode(self._tokens))
    return piece

  def flush(self) -> str:
    piece = self._decode(self._tokens)[self._sent :]
    self._tokens, self._context, self._sent = [], 0, 0
    return piece


def load(name: str, end_of_document: str | None = None) -> Tokenizer:
  """`bytes`, or the tokenizer of a `tokenizer.json` or of the folder it is in.

  Args:
    name: which.
    end_of_document: the token of the file that ends a document; by default
      `eos_token` of a `tokenizer_config.json` beside it, or the first of
      `END_NAMES` that it has.

  Raises:
    ValueError: one line, if it cannot be used.
    FileNotFoundError: there is no such file.
  """
  if name != 'bytes':
    return FileTokenizer(name, end_of_document)
  if end_of_document is not None:
    raise ValueError(
      "end_of_document must be None for tokenizer = 'bytes', got "
      f'{end_of_document!r}.'
    )
  return ByteTokenizer()


def check_vocab(tokenizer: Tokenizer, vocab_size: int, field: str) -> None:
  """Raises ValueError unless a model of `vocab_size` has all tokens."""
  if vocab_size < tokenizer.vocab_size:
    raise ValueError(
      f'{field} must be >= {tokenizer.vocab_size}, the tokens of the '
      f'tokenizer, got {vocab_size}.'
    )


def encode_bytes(
  tokenizer: FileTokenizer, documents: Iterable[bytes], *, at_once: int = 1024
) -> Iterable[Int32[np.ndarray, ' _']]:
  """The tokens of documents of UTF-8, `at_once` of them in memory."""
  held: list[str] = []
  for document in documents:
    held.append(document.decode())
    if len(held) == at_once:
      yield from tokenizer.encode_all(held)
      held = []
  yield from tokenizer.encode_all(held)


def _read(file: pathlib.Path) -> Any:
  try:
    import tokenizers
  except ImportError as error:
    raise ValueError(
      f'tokenizer {str(file)!r} needs the package tokenizers: {_INSTALL}.'
    ) from error
  try:
    inner = tokenizers.Tokenizer.from_file(str(file))
  except Exception as error:  # The package raises nothing more specific.
    reason = (str(error).splitlines() or [''])[0]
    raise ValueError(
      f'tokenizer must be a tokenizer.json, got {str(file)!r}: {reason}.'
    ) from error
  inner.no_truncation()
  inner.no_padding()
  inner.encode_special_tokens = True  # As what they are spelled with.
  return inner


def _configured_end(file: pathlib.Path) -> str | None:
  """`eos_token` of the `tokenizer_config.json` beside the file, if any."""
  try:
    config = json.loads((file.parent / 'tokenizer_config.json').read_text())
    end = config['eos_token']
  except (OSError, ValueError, KeyError, TypeError):
    return None
  return end.get('content') if isinstance(end, dict) else end
