"""Layout entries of the parts that language models share."""

from loopformer.interop.fields import Fields
from loopformer.interop.layout import Entry
from loopformer.nn.config import BlockConfig

Entries = dict[str, Entry]
Columns = tuple[int, int]
# What Hugging Face writes into every config beside the model's own fields, in
# versions 4 and 5, those of generation among them.
HUGGING_FACE_FIELDS = tuple(
  """
  _attn_implementation_autoset _name_or_path add_cross_attention architectures
  attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id
  chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
  diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size
  eos_token_id exponential_decay_length_penalty finetuning_task
  forced_bos_token_id forced_eos_token_id id2label is_decoder
  is_encoder_decoder label2id length_penalty max_length min_length model_type
  no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
  output_attentions output_hidden_states output_scores pad_token_id prefix
  problem_type pruned_heads remove_invalid_values repetition_penalty
  return_dict return_dict_in_generate sep_token_id suppress_tokens
  task_specific_params temperature tf_legacy_loss tie_encoder_decoder
  tokenizer_class top_k top_p torch_dtype torchscript transformers_version
  typical_p use_bfloat16 use_cache
  """.split()
)


def rotary_theta(fields: Fields, default: float) -> float:
  """The rotary base, which stands in one of three places.

  Raises:
    ValueError: if positions are to be scaled.
  """
  theta = fields.number('rope_theta', default)
  for name in ('rope_parameters', 'rope_scaling'):
    rope = fields.group(name)
    for kind in ('rope_type', 'type'):
      rope.only(kind, 'default')
    theta = rope.number('rope_theta', theta)
    rope.done()
  return theta


def linear(
  theirs: str,
  ours: str,
  *,
  layer: int | None = None,
  columns: Columns | None = None,
  bias: bool = False,
) -> Entries:
  """A linear map, whose columns may be a part of one of ours."""
  names = {
    f'{theirs}.weight': Entry(f'{ours}.kernel', layer, 'linear', columns)
  }
  if bias:
    names[f'{theirs}.bias'] = Entry(f'{ours}.bias', layer, 'plain', columns)
  return names


def norm(
  theirs: str, ours: str, block: BlockConfig, layer: int | None = None
) -> Entries:
  """The norm of a width: its gain, and a bias in a layer norm."""
  names = {f'{theirs}.weight': Entry(f'{ours}.scale', layer)}
  if block.norm == 'layer':
    names[f'{theirs}.bias'] = Entry(f'{ours}.bias', layer)
  return names


def projections(block: BlockConfig) -> list[Columns]:
  """Columns of queries, keys and values, and of a gate, in our one array."""
  inner, kv = block.heads * block.head_width, block.groups * block.head_width
  return spans(inner, kv, kv, *([inner] if block.gated else []))


def spans(*widths: int) -> list[Columns]:
  """Columns of arrays that lie side by side."""
  ends = [sum(widths[:i]) for i in range(len(widths) + 1)]
  return list(zip(ends, ends[1:], strict=False))


def decoder_layer(
  theirs: str, ours: str, block: BlockConfig, layer: int
) -> Entries:
  """The linear maps of a layer by their usual Hugging Face names."""
  attention, mlp = f'{ours}.attention.layer', f'{ours}.mlp.layer'
  wide = {'layer': layer, 'bias': block.attention_bias}
  names: Entries = {}
  joined = ('q_proj', 'k_proj', 'v_proj', 'gate_proj')
  for name, columns in zip(joined, projections(block), strict=False):
    at = f'{theirs}.self_attn.{name}'
    names |= linear(at, f'{attention}.qkv', columns=columns, **wide)
  names |= linear(f'{theirs}.self_attn.o_proj', f'{attention}.out', **wide)
  wide = {'layer': layer, 'bias': block.mlp_bias}
  halves = spans(block.hidden_width, block.hidden_width)
  for name, columns in zip(('gate_proj', 'up_proj'), halves, strict=True):
    at = f'{theirs}.mlp.{name}'
    names |= linear(at, f'{mlp}.up', columns=columns, **wide)
  return names | linear(f'{theirs}.mlp.down_proj', f'{mlp}.down', **wide)


def untied_head(tied: bool) -> Entries:
  """The head, if it has an array of its own."""
  return {} if tied else linear('lm_head', 'head')
