"""What a block of layers is made of."""

import dataclasses
from typing import Any

import jax.numpy as jnp

ACTIVATIONS = ('gelu', 'gelu_exact', 'relu', 'relu2', 'half_relu2', 'silu')
CHOICES = {
  'mlp': (
    'swiglu',
    *(gate + act for gate in ('', 'gated_') for act in ACTIVATIONS),
  ),
  'style': ('pre', 'post', 'sandwich_sum', 'sandwich_branch'),
  'norm': ('rms', 'layer'),
  'rotary': ('none', 'half', 'interleaved', 'grid'),
  'mask': ('none', 'causal', 'window', 'prefix'),
  'dtype': ('float32', 'bfloat16'),
}
POSITIONS = ('none', 'learned', 'sinusoidal')
# Least values of what goes into a model and comes out of it.
ENDS = {'vocab_size': 1, 'seq_len': 1, 'num_classes': 0, 'features': 0}
# Fields of which 0 stands for a default or for nothing.
COUNTS = (
  'head_size',
  'kv_heads',
  'hidden',
  'rotary_columns',
  'window',
  'prefix',
  'clip_qkv',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockConfig:
  """One attention layer and one MLP, and how they are normalised.

  Attributes:
    width: D.
    heads: H.
    head_size: K, the width of a head; 0 for D / H.
    kv_heads: groups that share keys and values; 0 for as many as heads.
    hidden: F of the MLP; 0 for 4 D (or 8 D / 3 rounded up for swiglu).
    multiple: what a swiglu's default F is rounded up to a multiple of.
    mlp: its activation, see `loopformer.nn.mlp`.
    style: where the norms are, see `loopformer.nn.block`.
    norm: rms or layer.
    norm_gain: whether norms have a learned gain.
    epsilon: added to the mean square.
    rotary: layout, `grid` for rows and columns of a board, or none.
    rotary_theta: base of the rotary frequencies.
    rotary_columns: columns of the board; 0 for a square.
    rotary_condense: what positions are divided by before they turn anything.
    temperature: divides the attention logits.
    attention_bias, mlp_bias: whether the projections have biases.
    clip_qkv: bound of the absolute values of projected queries, keys and
      values; 0 for none.
    qk_bias: whether learned vectors are added to queries and keys, before they
      are rotated (Huginn, arXiv:2502.05171).
    qk_norm: whether rotated queries and keys are divided by their root mean
      square, without gain (Parcae, arXiv:2604.12946).
    gated: whether head outputs are multiplied by sigmoid(W x) (HRM-Text).
    mask: none, causal, window or prefix.
    window: positions a window mask reaches back, itself included.
    prefix: first positions that a prefix mask lets read each other.
    dtype: of matrix products; the residual stream stays float32.
  """

  width: int = 64
  heads: int = 4
  head_size: int = 0
  kv_heads: int = 0
  hidden: int = 0
  multiple: int = 8
  mlp: str = 'swiglu'
  style: str = 'pre'
  norm: str = 'rms'
  norm_gain: bool = True
  epsilon: float = 1e-6
  rotary: str = 'half'
  rotary_theta: float = 1e4
  rotary_columns: int = 0
  rotary_condense: float = 1.0
  temperature: float = 1.0
  attention_bias: bool = False
  mlp_bias: bool = False
  clip_qkv: float = 0.0
  qk_bias: bool = False
  qk_norm: bool = False
  gated: bool = False
  mask: str = 'none'
  window: int = 0
  prefix: int = 0
  dtype: str = 'float32'

  def __post_init__(self):
    for name in ('width', 'heads', 'multiple'):
      require(name, getattr(self, name), at_least=1)
    for name in COUNTS:
      require(name, getattr(self, name), at_least=0)
    for name, allowed in CHOICES.items():
      require_one_of(name, getattr(self, name), allowed)
    if not self.head_size and self.width % self.heads:
      raise ValueError(
        f'width must be a multiple of heads = {self.heads}, got {self.width}.'
      )
    if self.heads % self.groups:
      raise ValueError(
        f'kv_heads must divide heads = {self.heads}, got {self.kv_heads}.'
      )
    if self.qk_bias and self.groups != self.heads:
      raise ValueError(
        f'kv_heads must be 0 or heads = {self.heads} with qk_bias, got '
        f'{self.kv_heads}.'
      )
    pairs = {'none': 1, 'grid': 4}.get(self.rotary, 2)
    if self.head_width % pairs:
      raise ValueError(
        f'head_width must be a multiple of {pairs} for rotary = '
        f'{self.rotary!r}, got {self.head_width}.'
      )
    for name in ('window', 'prefix'):
      if self.mask == name:
        require(name, getattr(self, name), at_least=1)
    for name in ('epsilon', 'rotary_theta', 'rotary_condense', 'temperature'):
      if not getattr(self, name) > 0:
        raise ValueError(f'{name} must be > 0, got {getattr(self, name)}.')

  @property
  def head_width(self) -> int:
    """K, with the default filled in."""
    return self.head_size or self.width // self.heads

  @property
  def groups(self) -> int:
    """Number of key and value heads."""
    return self.kv_heads or self.heads

  @property
  def hidden_width(self) -> int:
    """F, with the default filled in."""
    if self.hidden:
      return self.hidden
    if self.mlp == 'swiglu':
      return -(-8 * self.width // 3 // self.multiple) * self.multiple
    return 4 * self.width

  @property
  def compute_dtype(self) -> jnp.dtype:
    """Dtype of matrix products."""
    return jnp.dtype(self.dtype)

  @property
  def causal(self) -> bool:
    """Whether no position reads a later one."""
    return self.mask in ('causal', 'window')


def require(name: str, value: float, *, at_least: float) -> None:
  """Raises `ValueError` naming the field if `value < at_least`."""
  if not value >= at_least:
    raise ValueError(f'{name} must be >= {at_least}, got {value}.')


def require_one_of(name: str, value: object, allowed: Any) -> None:
  """Raises `ValueError` naming the field and what it may be."""
  if value not in allowed:
    raise ValueError(f'{name} must be one of {tuple(allowed)}, got {value!r}.')


def require_ends(cfg: Any) -> None:
  """Checks the fields that say what goes into a model and comes out of it.

  These are vocab_size, num_classes, features, seq_len, positions and tied, of
  which a config has those that its model needs.

  Raises:
    ValueError: naming the field, its value and what is allowed.
  """
  for name, least in ENDS.items():
    require(name, getattr(cfg, name, least), at_least=least)
  require_one_of('positions', getattr(cfg, 'positions', 'none'), POSITIONS)
  if getattr(cfg, 'tied', False):
    if cfg.num_classes not in (0, cfg.vocab_size):
      raise ValueError(
        f'num_classes must be 0 or vocab_size = {cfg.vocab_size} with a tied '
        f'head, got {cfg.num_classes}.'
      )
    if getattr(cfg, 'features', 0):
      raise ValueError(f'features must be 0 with tied, got {cfg.features}.')
