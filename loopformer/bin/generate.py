"""loopformer-generate: streams text from a run or from converted weights.

    loopformer-generate --workdir=runs/huginn-text --prompt='The list'
    loopformer-generate --weights=huginn.safetensors --tokenizer=tokenizer.json

The text goes to stdout, what it took to stderr.
"""

import json
import logging
import time
from typing import Any

import jax
from absl import flags

from loopformer.bin import cli
from loopformer.decode import Engine, Sampling, prompts_of, text
from loopformer.decode.engine import NO_END
from loopformer.interop.converted import load_converted
from loopformer.tasks import tokenizer as tokenizers
from loopformer.train.restore import restore_run
from loopformer.zoo import FAMILIES

NAME = 'loopformer-generate'
LOGGER = logging.getLogger('loopformer')
EVERY = 8  # tokens between two looks at what was written


def main() -> None:
  """Entry point."""
  cli.launch(NAME, _define, _run)


def _define():
  text_flag, whole, real = (
    flags.DEFINE_string,
    flags.DEFINE_integer,
    flags.DEFINE_float,
  )
  text_flag('workdir', None, 'A run on text, as loopformer-train wrote it.')
  text_flag('weights', None, 'Or a file of loopformer.interop.convert.')
  text_flag('tokenizer', 'bytes', "With --weights: 'bytes' or tokenizer.json.")
  text_flag('prompt', None, 'What the text begins with.')
  flags.DEFINE_boolean(
    'prefix', False, 'Read the prompt in both directions, as HRM-Text can.'
  )
  whole('tokens', 200, 'Tokens to write.')
  whole('recurrences', None, 'Per token; as trained by default.')
  text_flag('policy', 'full', 'Slots of the cache: full, last, modulo:4 ...')
  text_flag(
    'halt', None, 'When a token stops, {"name": "fixed_point", "rtol": 0.03}.'
  )
  real('temperature', 0.8, '0 takes the most probable token.')
  whole('top_k', 0, 'Keep so many tokens; 0 keeps all.')
  real('top_p', 1.0, 'Keep tokens up to this probability.')
  real('min_p', 0.0, 'Keep tokens of this share of the most probable.')
  whole('seed', 0, 'Of what is drawn.')


def _run():
  chosen = flags.FLAGS
  prompt = cli.required('prompt')
  sampling = Sampling(
    **{name: chosen[name].value for name in Sampling.__dataclass_fields__}
  )
  family, model, recurrences, tokenizer, known = _source()
  end = tokenizer.end_of_document
  engine = Engine(
    family,
    model,
    recurrences=recurrences,
    policy=chosen.policy,
    halt=_halt(chosen.halt),
    sampling=sampling,
    end=NO_END if end is None else end,
  )
  ids_T = tokenizer.encode(prompt)
  prompts = prompts_of(
    [ids_T],
    vocab_size=engine.vocab_size,
    prefix=[len(ids_T)] if chosen.prefix else None,
  )
  begin = time.perf_counter()
  stream = engine.stream(
    prompts, tokens=chosen.tokens, every=EVERY, key=jax.random.key(chosen.seed)
  )
  last = text.follow(
    stream,
    tokenizer.decoder(),
    lambda piece: print(piece, end='', flush=True),
    prompt,
  )
  print()
  seconds = time.perf_counter() - begin
  _report(engine, last, len(ids_T), seconds)
  if len(ids_T) + int(last.lengths_B[0]) > known:
    LOGGER.warning(
      'The model was trained on texts of %d tokens; beyond them it may fall '
      'apart.',
      known,
    )


def _report(engine, last, prompt, seconds):
  """One line on what the text took."""
  made = int(last.lengths_B[0])
  depth = float(last.depth_BN[0, : max(made - 1, 1)].mean())
  size = engine.cache_bytes(1, prompt, flags.FLAGS.tokens) / 2**20
  LOGGER.info(
    '%d tokens in %.1f s with compilation, %.2f recurrences each, cache of '
    '%.2f MiB (%s), %d programs compiled.',
    made,
    seconds,
    depth,
    size,
    engine.policy.name,
    engine.compiled,
  )


def _source() -> tuple[Any, Any, int, Any, int]:
  """Family, model, recurrences, tokenizer, and tokens of a trained text."""
  chosen = flags.FLAGS
  if (chosen.workdir is None) == (chosen.weights is None):
    raise ValueError(
      f'one of --workdir and --weights must be given, got {chosen.workdir!r} '
      f'and {chosen.weights!r}.'
    )
  if chosen.weights is not None:
    name, cfg, model = load_converted(chosen.weights)
    tokenizer = tokenizers.load(chosen.tokenizer)
    tokenizers.check_vocab(tokenizer, cfg.vocab_size, 'vocab_size')
    depth = _depth(_published(cfg))
    return FAMILIES[name], model, depth, tokenizer, cfg.seq_len
  run = restore_run(chosen.workdir)
  tokenizer = getattr(run.task, 'tokenizer', None)
  if tokenizer is None:
    raise ValueError(
      f'--workdir must hold a run on text, got one on '
      f'{type(run.task).__name__}.'
    )
  subject = run.subject
  family = FAMILIES[run.family]
  depth = _depth(subject.loop.max_steps)
  return family, subject.model, depth, tokenizer, run.task.seq_len


def _depth(default):
  """Recurrences per token: those asked for, or the model's own.

  Raises:
    ValueError: if neither is known.
  """
  asked = flags.FLAGS.recurrences
  if asked is None and default is None:
    raise ValueError('--recurrences must be given with these --weights.')
  return int(default) if asked is None else asked


def _published(cfg):
  """Recurrences a published model is run with, or None."""
  names = ('high_cycles', 'init_recurrences', 'recurrences')
  return next((getattr(cfg, n) for n in names if hasattr(cfg, n)), None)


def _halt(given):
  if given is None:
    return None
  try:
    halt = json.loads(given)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'--halt must be JSON: {error}.') from None
  if not isinstance(halt, dict):
    raise ValueError(f'--halt must be a JSON object, got {given!r}.')
  return halt


if __name__ == '__main__':
  main()
