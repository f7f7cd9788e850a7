"""Attention of single tokens over paged KV without gathering the pages (compiled): decode on a CPU is bound by reading them once.

A block is read once for all heads of a thread, keys and values in one pass, with running maxima and sums. Pages of 4 KiB end what the
hardware would fetch ahead, so the next head's are asked for here.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from rota.jit import njit
from rota.mechanisms.engine.intrinsics import prefetch, widen
from rota.mechanisms.engine.softmax import LOW, padded, soften


@njit(inline="always")
def _fetch(pages, block, head):
    """Ask for a head's rows of a block."""
    page = pages[block, head]
    for p in range(page.shape[0]):
        for c in range(0, page.shape[1], 64 // pages.itemsize):
            prefetch(page, p, c)


@njit(cache=True, parallel=True, fastmath=True)
def paged_decode(q, keys, values, tables, slots, lengths, scale, window, parts, out):
    """For each row i, the attention of its query over the last `lengths[i]` positions that its block table names.

    Parameters
    ----------
    q, out : (n, heads, head_dim)
        Single or double precision.
    keys, values : (blocks, kv_heads, block_size, head_dim)
        The same, or uint16 for bfloat16.
    tables : int32 (seats, max_blocks)
    slots, lengths : int64 (n,)
        Row of `tables`, and positions, the present one included.
    scale : float
        Of the scores.
    window : int
        Look at so many last positions only; 0 for all.
    parts : int
        Into so many the heads are divided among threads, each for all rows, so that long rows burden all alike; at most `kv_heads`.
    """
    n, heads, dim = q.shape
    kv_heads, size = keys.shape[1], keys.shape[2]
    group = heads // kv_heads
    zero, one = q.dtype.type(0.0), q.dtype.type(1.0)
    for task in prange(n * parts):
        part, i = task // n, task % n
        begin_head, end_head = part * kv_heads // parts, (part + 1) * kv_heads // parts
        length = lengths[i]
        first = max(0, length - window) if window > 0 else 0
        table = tables[slots[i]]
        top = np.full(heads, LOW, q.dtype)
        total = np.zeros(heads, q.dtype)
        w = np.empty(padded(size), q.dtype)
        out[i, begin_head * group : end_head * group] = zero
        for b in range(first // size, (length - 1) // size + 1):
            block = table[b]
            begin, end = max(first - b * size, 0), min(length - b * size, size)
            for h in range(begin_head, end_head):
                if h + 1 < end_head:
                    _fetch(keys, block, h + 1)
                    _fetch(values, block, h + 1)
                elif (b + 1) * size < length:
                    _fetch(keys, table[b + 1], begin_head)
                    _fetch(values, table[b + 1], begin_head)
                key, value = keys[block, h], values[block, h]
                for x in range(h * group, (h + 1) * group):
                    query, row = q[i, x], out[i, x]
                    p = begin
                    while p + 4 <= end:  # four at a time, for one pass over the query
                        s0 = s1 = s2 = s3 = zero
                        for c in range(dim):
                            s0 += query[c] * widen(key[p, c])
                            s1 += query[c] * widen(key[p + 1, c])
                            s2 += query[c] * widen(key[p + 2, c])
                            s3 += query[c] * widen(key[p + 3, c])
                        w[p], w[p + 1], w[p + 2], w[p + 3] = s0 * scale, s1 * scale, s2 * scale, s3 * scale
                        p += 4
                    while p < end:
                        s0 = zero
                        for c in range(dim):
                            s0 += query[c] * widen(key[p, c])
                        w[p] = s0 * scale
                        p += 1
                    top[x], total[x], fade = soften(w, begin, end, top[x], total[x])
                    p = begin
                    while p + 4 <= end:
                        s0, s1, s2, s3 = w[p], w[p + 1], w[p + 2], w[p + 3]
                        for c in range(dim):
                            row[c] = row[c] * fade + (
                                s0 * widen(value[p, c]) + s1 * widen(value[p + 1, c]) + s2 * widen(value[p + 2, c]) + s3 * widen(value[p + 3, c])
                            )
                        fade = one
                        p += 4
                    while p < end:
                        for c in range(dim):
                            row[c] = row[c] * fade + w[p] * widen(value[p, c])
                        fade = one
                        p += 1
        for x in range(begin_head * group, end_head * group):
            for c in range(dim):
                out[i, x, c] /= total[x]
