"""Attention over paged KV on a GPU (Triton): tiles of queries against tiles of positions, softmax on the way (FlashAttention-2).

The heads that share a key are rows of one tile, so that every page is read once for all of them. Long contexts of single tokens are split, and
the parts merged (flash-decoding).
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Query rows (tokens times the heads of a key) in a tile of a chunk, and positions in one step over the context.
CHUNK_ROWS, TILE = 64, 64
#: log2(e): the hardware has the exponential of two.
LOG2E = 1.4426950408889634


@triton.jit
def _attend(
    q, keys, values, tables, tasks, out, part_out, part_sums, scale, q_stride, table_stride, WINDOW: tl.constexpr, KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr,
    PAGE: tl.constexpr, STEP: tl.constexpr, SPLIT: tl.constexpr, CHUNKS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    task, h, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if CHUNKS:
        first, count = tl.load(tasks + 4 * task), tl.load(tasks + 4 * task + 1)
        slot, position = tl.load(tasks + 4 * task + 2), tl.load(tasks + 4 * task + 3)
    else:  # single tokens: their positions are all there is to say
        first, count, slot, position = task, 1, task, tl.load(tasks + task)
    row = tl.arange(0, ROWS)
    token = row // GROUP
    head = h * GROUP + row % GROUP
    real = (token < count) & (token < TOKENS)
    d = tl.arange(0, WIDE)
    inside = d < DIM
    at = (first + token).to(tl.int64)
    queries = tl.load(q + at[:, None] * q_stride + (head * DIM)[:, None] + d[None, :], mask=real[:, None] & inside[None, :], other=0.0)
    own = position + token
    begin, end = 0, position + count
    if WINDOW > 0:
        begin = tl.maximum(position + 1 - WINDOW, 0) // STEP * STEP
    if SPLIT > 0:
        begin, end = tl.maximum(begin, split * SPLIT), tl.minimum(end, (split + 1) * SPLIT)
    top = tl.full((ROWS,), -1.0e30, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    found = tl.zeros((ROWS, WIDE), tl.float32)
    for start in range(begin, end, STEP):
        p = start + tl.arange(0, STEP)
        held = p < end
        page = tl.load(tables + slot.to(tl.int64) * table_stride + p // PAGE, mask=held, other=0)
        where = ((page.to(tl.int64) * KV_HEADS + h) * PAGE + p % PAGE)[:, None] * DIM + d[None, :]
        there = held[:, None] & inside[None, :]
        k = tl.load(keys + where, mask=there, other=0.0).to(queries.dtype)
        scores = tl.dot(queries, tl.trans(k), input_precision=PRECISION) * scale
        seen = (p[None, :] <= own[:, None]) & held[None, :]
        if WINDOW > 0:
            seen = seen & (p[None, :] > own[:, None] - WINDOW)
        scores = tl.where(seen, scores, -1.0e30)
        higher = tl.maximum(top, tl.max(scores, 1))
        fade = tl.exp2(top - higher)
        weights = tl.where(seen, tl.exp2(scores - higher[:, None]), 0.0)
        v = tl.load(values + where, mask=there, other=0.0).to(queries.dtype)
        found = found * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        total = total * fade + tl.sum(weights, 1)
        top = higher
    place = at * (KV_HEADS * GROUP) + head
    if SPLIT > 0:
        place = place * tl.num_programs(2) + split
        tl.store(part_sums + 2 * place, top, mask=real)
        tl.store(part_sums + 2 * place + 1, total, mask=real)
        tl.store(part_out + place[:, None] * DIM + d[None, :], found, mask=real[:, None] & inside[None, :])
    else:
        found = found / tl.where(total > 0, total, 1.0)[:, None]
        tl.store(out + place[:, None] * DIM + d[None, :], found.to(out.dtype.element_ty), mask=real[:, None] & inside[None, :])


@triton.jit
def _merge(part_out, part_sums, out, SPLITS: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64)
    d, s = tl.arange(0, WIDE), tl.arange(0, SPLITS)
    top = tl.load(part_sums + 2 * (place * SPLITS + s))
    total = tl.load(part_sums + 2 * (place * SPLITS + s) + 1)
    fade = tl.exp2(top - tl.max(top, 0))
    whole = tl.sum(total * fade, 0)
    part = tl.load(part_out + (place * SPLITS + s)[:, None] * DIM + d[None, :], mask=(d < DIM)[None, :], other=0.0)
    found = tl.sum(part * fade[:, None], 0) / tl.where(whole > 0, whole, 1.0)
    tl.store(out + place * DIM + d, found.to(out.dtype.element_ty), mask=d < DIM)


def _how(q: Tensor, keys: Tensor, group: int, tokens: int) -> dict[str, object]:
    dim = q.shape[2]
    return {
        "KV_HEADS": keys.shape[1], "GROUP": group, "TOKENS": tokens, "ROWS": max(16, triton.next_power_of_2(tokens * group)), "DIM": dim,
        "WIDE": max(16, triton.next_power_of_2(dim)), "PAGE": keys.shape[2], "STEP": TILE if q.dtype.itemsize < 4 else TILE // 2,
        "PRECISION": "ieee" if q.dtype == torch.float32 else "tf32",
    }  # fmt: skip


def tokens_per_tile(group: int) -> int:
    """Tokens of a chunk that `attend_chunks` takes together, where `group` heads share a key."""
    return max(1, CHUNK_ROWS // group)


def attend_chunks(q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, tasks: Tensor, window: int, heads: int, out: Tensor) -> None:
    """Rows of chunks, each over the positions up to its own.

    Parameters
    ----------
    q : (n, >= heads, head_dim)
        The first `heads` are queries.
    keys, values : (blocks, kv_heads, block_size, head_dim)
    tables : int32 (slots, max_blocks)
    tasks : int32 (m, 4)
        For up to `tokens_per_tile` neighbouring rows: the first row, how many, the row of `tables`, the first row's position.
    window : int
        Positions that a row sees, its own included; 0 for all.
    heads : int
    out : (n, heads, head_dim)
    """
    group = heads // keys.shape[1]
    _attend[(len(tasks), keys.shape[1], 1)](
        q, keys, values, tables, tasks, out, out, out, LOG2E / math.sqrt(q.shape[2]), q.stride(0), tables.stride(0), WINDOW=window,
        SPLIT=0, CHUNKS=True, num_warps=4, num_stages=2, **_how(q, keys, group, tokens_per_tile(group)),
    )  # fmt: skip


def attend_singles(
    q: Tensor, keys: Tensor, values: Tensor, tables: Tensor, positions: Tensor, window: int, heads: int, split: int, splits: int, out: Tensor
) -> None:
    """Single tokens, row i with the block table i; as `attend_chunks` otherwise.

    Parameters
    ----------
    positions : int32 (n,)
        -1 for a row that is not there.
    split, splits : int
        Positions in a part of a context, a multiple of `TILE`, and how many parts (a power of two) cover the longest.
    """
    kv_heads, dim = keys.shape[1], q.shape[2]
    group, n = heads // kv_heads, len(positions)
    parts = sums = out
    if splits > 1:
        parts, sums = q.new_empty(n * heads * splits, dim, dtype=torch.float32), q.new_empty(n * heads * splits, 2, dtype=torch.float32)
    _attend[(n, kv_heads, splits)](
        q, keys, values, tables, positions, out, parts, sums, LOG2E / math.sqrt(dim), q.stride(0), tables.stride(0), WINDOW=window,
        SPLIT=split if splits > 1 else 0, CHUNKS=False, num_warps=4, num_stages=3, **_how(q, keys, group, 1),
    )  # fmt: skip
    if splits > 1:
        _merge[(n * heads,)](parts, sums, out, SPLITS=splits, DIM=dim, WIDE=max(16, triton.next_power_of_2(dim)), num_warps=2)
