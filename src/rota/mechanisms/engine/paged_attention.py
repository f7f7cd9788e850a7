"""Attention of single tokens over paged KV without gathering the pages (compiled): decode on a CPU is bound by reading them once.

A block is read once: the keys of all heads of a thread, then their values, with running maxima and sums. Pages of 4 KiB end what the hardware
would fetch ahead, so values are asked for while keys are read, and the next block's keys while values are.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from rota.jit import njit
from rota.mechanisms.engine.intrinsics import prefetch, widen
from rota.mechanisms.engine.softmax import LOW, padded, soften


@njit(inline="always")
def _fetch(page, begin, end):
    """Ask for rows of a head's block."""
    for p in range(begin, end):
        for c in range(0, page.shape[1], 64 // page.itemsize):
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
    zero, one, low = q.dtype.type(0.0), q.dtype.type(1.0), q.dtype.type(LOW)
    for task in prange(n * parts):
        part, i = task // n, task % n
        begin_head, end_head = part * kv_heads // parts, (part + 1) * kv_heads // parts
        length = lengths[i]
        first = max(0, length - window) if window > 0 else 0
        table = tables[slots[i]]
        begin_row, rows = begin_head * group, (end_head - begin_head) * group
        top, total = np.full(rows + 3, LOW, q.dtype), np.zeros(rows + 3, q.dtype)
        fade = np.ones(rows + 3, q.dtype)
        scores = np.zeros((rows + 3, padded(size)), q.dtype)
        out[i, begin_row : begin_row + rows] = zero
        last = (length - 1) // size
        for b in range(first // size, last + 1):
            block, later = table[b], table[min(b + 1, last)]
            begin, end = max(first - b * size, 0), min(length - b * size, size)
            for x in range(rows):
                h, query, w = begin_head + x // group, q[i, begin_row + x], scores[x]
                key, ahead = keys[block, h], values[block, h]
                p = begin
                while p + 4 <= end:  # four at a time, for one pass over the query
                    if x % group == 0:
                        _fetch(ahead, p, p + 4)
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
                w[:begin] = low
                w[end:] = low
            for x in range(0, rows, 4):
                soften(scores[x : x + 4].ravel(), scores.shape[1], top, total, fade, x)
            for x in range(rows):
                h, row, w, less = begin_head + x // group, out[i, begin_row + x], scores[x], fade[x]
                value, ahead = values[block, h], keys[later, h]
                p = begin
                while p + 4 <= end:
                    if x % group == 0:
                        _fetch(ahead, p, p + 4)
                    s0, s1, s2, s3 = w[p], w[p + 1], w[p + 2], w[p + 3]
                    for c in range(dim):
                        row[c] = row[c] * less + (
                            s0 * widen(value[p, c]) + s1 * widen(value[p + 1, c]) + s2 * widen(value[p + 2, c]) + s3 * widen(value[p + 3, c])
                        )
                    less = one
                    p += 4
                while p < end:
                    for c in range(dim):
                        row[c] = row[c] * less + w[p] * widen(value[p, c])
                    less = one
                    p += 1
        for x in range(rows):
            for c in range(dim):
                out[i, begin_row + x, c] /= total[x]
