"""What happens to rows between matrix products on a GPU, each in one pass (Triton)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Heads of a row that one program takes.
HEADS_AT_ONCE = 8


@triton.jit
def _rotate_and_keep(
    rows, q_norm, k_norm, eps, cos, sin, keys, values, where, stride, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr,
    HALF: tl.constexpr, PAGE: tl.constexpr, NORM: tl.constexpr, SOME: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * SOME + tl.arange(0, SOME)
    d = tl.arange(0, HALF)
    half = DIM // 2
    there, inside = h < HEADS + 2 * KV_HEADS, d < half
    both = there[:, None] & inside[None, :]
    at = rows + i * stride + (h * DIM)[:, None] + d[None, :]
    low = tl.load(at, mask=both, other=0.0).to(tl.float32)
    high = tl.load(at + half, mask=both, other=0.0).to(tl.float32)
    turned = (h < HEADS + KV_HEADS)[:, None]
    if NORM:
        factor = 1.0 / tl.sqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / DIM + eps)
        query = (h < HEADS)[:, None]
        low_weight = tl.where(query, tl.load(q_norm + d, mask=inside, other=0.0)[None, :], tl.load(k_norm + d, mask=inside, other=0.0)[None, :])
        high_weight = tl.where(
            query, tl.load(q_norm + half + d, mask=inside, other=0.0)[None, :], tl.load(k_norm + half + d, mask=inside, other=0.0)[None, :]
        )
        low = tl.where(turned, (low * factor[:, None] * low_weight).to(rows.dtype.element_ty).to(tl.float32), low)
        high = tl.where(turned, (high * factor[:, None] * high_weight).to(rows.dtype.element_ty).to(tl.float32), high)
    c = tl.load(cos + i * DIM + d, mask=inside, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + i * DIM + d, mask=inside, other=0.0).to(tl.float32)[None, :]
    left, right = tl.where(turned, low * c - high * s, low), tl.where(turned, high * c + low * s, high)
    asked = (h < HEADS)[:, None] & both
    tl.store(at, left.to(rows.dtype.element_ty), mask=asked)
    tl.store(at + half, right.to(rows.dtype.element_ty), mask=asked)
    place = tl.load(where + i)
    if place >= 0:
        kv_head = (h - HEADS) % KV_HEADS
        to = (((place // PAGE).to(tl.int64) * KV_HEADS + kv_head) * PAGE + place % PAGE)[:, None] * DIM + d[None, :]
        key, value = (h >= HEADS)[:, None] & turned & both, ~turned & both
        tl.store(keys + to, left.to(keys.dtype.element_ty), mask=key)
        tl.store(keys + to + half, right.to(keys.dtype.element_ty), mask=key)
        tl.store(values + to, left.to(values.dtype.element_ty), mask=value)
        tl.store(values + to + half, right.to(values.dtype.element_ty), mask=value)


@triton.jit
def _rms_norm(x, weight, out, eps, WIDTH: tl.constexpr, WIDE: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, WIDE)
    inside = c < WIDTH
    row = tl.load(x + i * WIDTH + c, mask=inside, other=0.0).to(tl.float32)
    factor = 1.0 / tl.sqrt(tl.sum(row * row, 0) / WIDTH + eps)
    w = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + i * WIDTH + c, (row * factor * w).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gated(x, out, WIDTH: tl.constexpr, STEP: tl.constexpr):
    i = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * STEP + tl.arange(0, STEP)
    inside = c < WIDTH
    gate = tl.load(x + i * 2 * WIDTH + c, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + i * 2 * WIDTH + WIDTH + c, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + i * WIDTH + c, (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=inside)


def rotate_and_keep(
    rows: Tensor, norms: tuple[Tensor, Tensor] | None, eps: float, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, where: Tensor
) -> None:
    """Norm and rotate queries (in place) and keys, and write keys and values to their pages.

    Parameters
    ----------
    rows : (n, heads + 2 kv_heads, head_dim)
    norms : pair of (head_dim,), optional
        Weights of the root-mean-square norms before the rotation.
    eps : float
    cos, sin : (n, head_dim)
    keys, values : (blocks, kv_heads, block_size, head_dim)
    where : int32 (n,)
        Block times `block_size` plus the position in it; -1 keeps nothing.
    """
    n, all_heads, dim = rows.shape
    kv_heads = keys.shape[1]
    some = min(HEADS_AT_ONCE, triton.next_power_of_2(all_heads))
    _rotate_and_keep[(n, triton.cdiv(all_heads, some))](
        rows, *(norms or (rows, rows)), eps, cos, sin, keys, values, where, rows.stride(0), HEADS=all_heads - 2 * kv_heads, KV_HEADS=kv_heads,
        DIM=dim, HALF=triton.next_power_of_2(dim // 2), PAGE=keys.shape[2], NORM=norms is not None, SOME=some,
        num_warps=4,
    )  # fmt: skip


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Rows of x (n, w) divided by their root mean square, times the weight (w,)."""
    x = x.contiguous()
    n, width = x.shape
    out = torch.empty_like(x)
    wide = triton.next_power_of_2(width)
    _rms_norm[(n,)](x, weight, out, eps, WIDTH=width, WIDE=wide, num_warps=max(1, min(16, wide // 512)))
    return out


def gated(x: Tensor) -> Tensor:
    """silu(x[:, :w]) * x[:, w:] of contiguous x (n, 2 w)."""
    n, width = x.shape[0], x.shape[1] // 2
    out = x.new_empty(n, width)
    _gated[(n, triton.cdiv(width, 1024))](x, out, WIDTH=width, STEP=1024)
    return out
