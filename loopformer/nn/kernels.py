"""Linear maps, attention and RMS norm, gradients written by hand.

Automatic differentiation stores several arrays for each of these at every
recurrence; inside a loop on CPU the time goes into first touching that memory.
The rules below keep only what the gradient needs. They are plain JAX and equal
the automatic gradients to rounding.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

NEGATIVE = -1e30  # finite, so that a fully masked row stays finite
FEW = 8  # rows up to which a CPU multiplies by panels, measured


def attend(
  q_BTHK: Float[Array, 'B T H K'],
  k_BSGK: Float[Array, 'B S G K'],
  v_BSGK: Float[Array, 'B S G K'],
  mask: Bool[Array, '...'] | None = None,
) -> Float[Array, 'B T H K']:
  """softmax(q k^T / sqrt(K)) v, the softmax in float32; H a multiple of G.

  On a GPU or TPU this is `jax.nn.dot_product_attention`; on CPU, where that is
  slower, the products run head by head on [B, H, T, K].

  Args:
    q_BTHK: queries.
    k_BSGK: keys; each group serves H / G consecutive heads.
    v_BSGK: values.
    mask: true where t may read s: [T, S], [B, T, S] or [B, H, T, S].
  """
  if mask is not None:
    mask = jnp.expand_dims(mask, -3) if mask.ndim == 3 else mask
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
  if jax.default_backend() != 'cpu':
    return jax.nn.dot_product_attention(q_BTHK, k_BSGK, v_BSGK, mask=mask)
  batch, length, heads, width = q_BTHK.shape
  groups = k_BSGK.shape[2]
  # Heads of one group become further queries of it: [B, G, (H/G) T, K].
  shape = (batch, length, groups, heads // groups, width)
  q_BGQK = q_BTHK.reshape(shape).transpose(0, 2, 3, 1, 4)
  k_BGSK, v_BGSK = (x.transpose(0, 2, 1, 3) for x in (k_BSGK, v_BSGK))
  q_BGQK = q_BGQK.reshape(batch, groups, -1, width)
  if mask is not None:
    mask = _mask_of_groups(mask, heads, groups, length)
  out_BGQK = attend_rows(q_BGQK, k_BGSK, v_BGSK, mask)
  out = out_BGQK.reshape(batch, groups, heads // groups, length, width)
  return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, width)


def _mask_of_groups(mask, heads, groups, length):
  """A mask over [B, H, T, S] as one over [B, G, (H/G) T, S]."""
  batch, _, _, source = mask.shape
  full = jnp.broadcast_to(mask, (batch, heads, length, source))
  return full.reshape(batch, groups, -1, source)


@jax.custom_vjp
def attend_rows(
  q: Float[Array, '*batch Q K'],
  k: Float[Array, '*batch S K'],
  v: Float[Array, '*batch S K'],
  mask: Bool[Array, '...'] | None,
) -> Float[Array, '*batch Q K']:
  """One attention per leading index; its gradient keeps the probabilities."""
  return _attend_forward(q, k, v, mask)[0]


def _attend_forward(q, k, v, mask):
  scale = q.shape[-1] ** -0.5
  logits = jnp.einsum(
    '...tk,...sk->...ts', q * scale, k, preferred_element_type=jnp.float32
  )
  if mask is not None:
    logits = jnp.where(mask, logits, NEGATIVE)
  p = jax.nn.softmax(logits, -1).astype(v.dtype)
  out = jnp.einsum('...ts,...sk->...tk', p, v)
  return out, (q, k, v, p, out)


def _attend_backward(saved, d_out):
  """dS = P (dP - rowsum(dO O)); a masked P is zero, and so is its dS."""
  q, k, v, p, out = saved
  scale = q.shape[-1] ** -0.5
  d_p = jnp.einsum('...tk,...sk->...ts', d_out, v)
  total = jnp.sum(d_out * out, -1, keepdims=True)
  d_s = p * (d_p - total) * scale
  d_q = jnp.einsum('...ts,...sk->...tk', d_s, k)
  # Transposed copies of the K-wide operands, not of the T x S ones.
  q_t, d_out_t = jax.lax.optimization_barrier((q.mT, d_out.mT))
  return d_q, (q_t @ d_s).mT, (d_out_t @ p).mT, None


attend_rows.defvjp(_attend_forward, _attend_backward)


def attend_past(
  q_BTHK: Float[Array, 'B T H K'],
  past_k_BGSK: Float[Array, 'B G S K'],
  past_v_BGSK: Float[Array, 'B G S K'],
  past_mask_BTS: Bool[Array, 'B T S'],
  k_BTGK: Float[Array, 'B T G K'],
  v_BTGK: Float[Array, 'B T G K'],
  mask_BTT: Bool[Array, 'B T T'],
) -> Float[Array, 'B T H K']:
  """One softmax over the keys of a cache and those of the call itself.

  The two are never joined in memory: a cache is as large as a layer's weights,
  and copying it would cost as much as reading it.
  """
  batch, length, heads, width = q_BTHK.shape
  groups = k_BTGK.shape[2]
  q = (q_BTHK * width**-0.5).astype(q_BTHK.dtype)
  q = q.reshape(batch, length, groups, heads // groups, width)
  wide = {'preferred_element_type': jnp.float32}
  mask = lambda x, allowed: jnp.where(allowed[:, None, None], x, NEGATIVE)
  past = jnp.einsum('btghk,bgsk->bghts', q, past_k_BGSK, **wide)
  own = jnp.einsum('btghk,bsgk->bghts', q, k_BTGK, **wide)
  joined = [mask(past, past_mask_BTS), mask(own, mask_BTT)]
  p = jax.nn.softmax(jnp.concatenate(joined, -1), -1).astype(v_BTGK.dtype)
  p_past, p_own = jnp.split(p, [past.shape[-1]], -1)
  out = jnp.einsum('bghts,bgsk->btghk', p_past, past_v_BGSK)
  out = out + jnp.einsum('bghts,bsgk->btghk', p_own, v_BTGK)
  return out.reshape(q_BTHK.shape).astype(q_BTHK.dtype)


@jax.custom_vjp
def linear(
  x: Float[Array, '*batch I'], weight: Float[Array, 'I O']
) -> Float[Array, '*batch O']:
  """y = x W. The gradient multiplies by a stored transpose of W.

  Folded into the product, as the compiler would have it, the transpose costs
  more than twice the product on CPU.
  """
  return x @ weight


def _linear_backward(saved, d_y):
  x, weight = saved
  transposed = jax.lax.optimization_barrier(weight.T)
  rows = lambda array: array.reshape(-1, array.shape[-1])
  return d_y @ transposed, rows(x).T @ rows(d_y)


linear.defvjp(lambda x, w: (x @ w, (x, w)), _linear_backward)


def panels(weight: Float[Array, 'I O'], columns: int) -> Float[Array, 'P I C']:
  """W cut into panels of C columns, one behind the other, the last with zeros.

  A CPU multiplies a few rows by such a W in less time: it reads a panel once
  for all of them, and from end to end, where a row of W would jump ahead.
  """
  rows, outputs = weight.shape
  whole = jnp.pad(weight, ((0, 0), (0, -outputs % columns)))
  return whole.reshape(rows, -1, columns).transpose(1, 0, 2)


def linear_by_panels(
  x: Float[Array, '*batch I'],
  weight_PIC: Float[Array, 'P I C'],
  outputs: int,
) -> Float[Array, '*batch O']:
  """y = x W of a W in panels; many rows are multiplied by the whole of it."""
  count, inputs, columns = weight_PIC.shape
  if x.size > FEW * inputs:
    whole = weight_PIC.transpose(1, 0, 2).reshape(inputs, count * columns)
    return x @ whole[:, :outputs]
  x_PBI = jnp.broadcast_to(
    x.reshape(-1, inputs), (count, x.size // inputs, inputs)
  )
  y_BPC = (x_PBI @ weight_PIC).transpose(1, 0, 2)
  return y_BPC.reshape(*x.shape[:-1], count * columns)[..., :outputs]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def rms_normalise(
  x: Float[Array, '*batch D'], epsilon: float
) -> Float[Array, '*batch D']:
  """y = x / sqrt(mean(x^2) + epsilon) (arXiv:1910.07467), in float32."""
  return _rms_forward(x, epsilon)[0]


def _rms_forward(x, epsilon):
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  rate = jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + epsilon)
  y = (wide * rate).astype(x.dtype)
  return y, (y, rate)


def _rms_backward(epsilon, saved, d_y):
  """dx = (dy - y mean(dy y)) rate; exact, since mean(y^2) + eps rate^2 = 1."""
  del epsilon
  y, rate = saved
  wide, d_wide = y.astype(rate.dtype), d_y.astype(rate.dtype)
  mean = jnp.mean(d_wide * wide, -1, keepdims=True)
  return (((d_wide - wide * mean) * rate).astype(d_y.dtype),)


rms_normalise.defvjp(_rms_forward, _rms_backward)
