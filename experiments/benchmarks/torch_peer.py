"""The benchmark's model in plain PyTorch, from the same arrays.

The mathematics of `loopformer.zoo.universal` with a post-norm SwiGLU block,
half-split rotary positions and the input added at every recurrence; written
with torch's own operators, as one would.
"""

import types

import numpy as np
import torch
from torch.nn import functional


class Looped(torch.nn.Module):
  """One tied block of some layers, applied again and again."""

  def __init__(self, arrays: dict[str, np.ndarray], size: types.ModuleType):
    super().__init__()
    self.size = size
    self.names = {name.replace('.', '_'): name for name in arrays}
    for name, array in arrays.items():
      weight = torch.nn.Parameter(torch.from_numpy(np.array(array)))
      self.register_parameter(name.replace('.', '_'), weight)
    width = size.WIDTH // size.HEADS
    rates = 1e4 ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.arange(size.TOKENS)[:, None] * rates
    self.register_buffer('cos', torch.cos(angles))
    self.register_buffer('sin', torch.sin(angles))

  def weight(self, name: str, layer: int | None = None) -> torch.Tensor:
    """A weight by its dotted name."""
    array = getattr(self, name.replace('.', '_'))
    return array if layer is None else array[layer]

  def rotate(self, x: torch.Tensor) -> torch.Tensor:
    """Half-split rotary positions on [B, H, T, K]."""
    a, b = x.chunk(2, -1)
    return torch.cat(
      [a * self.cos - b * self.sin, b * self.cos + a * self.sin], -1
    )

  def attention(self, x: torch.Tensor, layer: int) -> torch.Tensor:
    """Bidirectional multi-head attention."""
    batch, length, width = x.shape
    qkv = x @ self.weight('block.layers.attention.layer.qkv.kernel', layer)
    shape = (batch, length, 3, self.size.HEADS, -1)
    q, k, v = qkv.view(shape).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(
      self.rotate(q), self.rotate(k), v
    )
    mixed = mixed.transpose(1, 2).reshape(batch, length, width)
    return mixed @ self.weight('block.layers.attention.layer.out.kernel', layer)

  def mlp(self, x: torch.Tensor, layer: int) -> torch.Tensor:
    """SwiGLU."""
    hidden = x @ self.weight('block.layers.mlp.layer.up.kernel', layer)
    gate, value = hidden.chunk(2, -1)
    product = functional.silu(gate) * value
    return product @ self.weight('block.layers.mlp.layer.down.kernel', layer)

  def norm(self, x: torch.Tensor) -> torch.Tensor:
    """Root-mean-square norm."""
    return functional.rms_norm(x, (x.shape[-1],), eps=1e-6)

  def forward(self, inputs: torch.Tensor, labels: torch.Tensor):
    """Mean cross-entropy after all recurrences."""
    size = self.size
    e = functional.embedding(inputs, self.weight('embedding.tokens.embedding'))
    e = e * size.WIDTH**0.5
    h = torch.zeros_like(e)
    for _ in range(size.CALLS):
      h = h + e
      for layer in range(size.LAYERS):
        h = self.norm(h + self.attention(h, layer))
        h = self.norm(h + self.mlp(h, layer))
    logits = h @ self.weight('head.kernel')
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

  def train_step(self, inputs: torch.Tensor, labels: torch.Tensor):
    """Loss, with gradients left on the parameters."""
    self.zero_grad(set_to_none=True)
    loss = self(inputs, labels)
    loss.backward()
    return loss.detach()

  def gradients(self) -> dict[str, np.ndarray]:
    """Gradients by dotted name."""
    return {
      name: getattr(self, flat).grad.numpy()
      for flat, name in self.names.items()
    }

  def compiled(self):
    """The train step under torch.compile."""
    forward = torch.compile(self.forward)

    def step(inputs, labels):
      self.zero_grad(set_to_none=True)
      loss = forward(inputs, labels)
      loss.backward()
      return loss.detach()

    return step
