"""Attention of single tokens over paged KV without gathering the pages (compiled): decode on a CPU is bound by reading them once."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from rota.jit import njit


@njit(cache=True, parallel=True, fastmath=True)
def paged_decode(q, keys, values, tables, slots, lengths, scale, window, out):
    """For each row i, the attention of its query over the last `lengths[i]` positions that its block table names.

    Parameters
    ----------
    q, out : (n, heads, head_dim)
    keys, values : (blocks, kv_heads, block_size, head_dim)
    tables : int32 (seats, max_blocks)
    slots, lengths : int64 (n,)
        Row of `tables`, and positions, the present one included.
    scale : float
        Of the scores.
    window : int
        Look at so many last positions only; 0 for all.
    """
    n, heads, dim = q.shape
    kv_heads, size = keys.shape[1], keys.shape[2]
    group = heads // kv_heads
    for task in prange(n * kv_heads):
        i, h = task // kv_heads, task % kv_heads
        length = lengths[i]
        first = max(0, length - window) if window > 0 else 0
        table = tables[slots[i]]
        scores = np.empty((group, length - first), q.dtype)
        top = np.full(group, -np.inf)
        j = first
        while j < length:
            page = keys[table[j // size], h]
            at = j % size
            end = min(size, at + length - j)
            for g in range(group):
                query = q[i, h * group + g]
                for p in range(at, end):
                    dot = scores.dtype.type(0.0)
                    for c in range(dim):
                        dot += query[c] * page[p, c]
                    dot *= scale
                    scores[g, j - first + p - at] = dot
                    top[g] = max(top[g], dot)
            j += end - at
        for g in range(group):
            row = out[i, h * group + g]
            row[:] = 0.0
            total = 0.0
            for p in range(length - first):
                weight = math.exp(scores[g, p] - top[g])
                scores[g, p] = weight
                total += weight
            j = first
            while j < length:
                page = values[table[j // size], h]
                at = j % size
                end = min(size, at + length - j)
                for p in range(at, end):
                    weight = scores[g, j - first + p - at]
                    for c in range(dim):
                        row[c] += weight * page[p, c]
                j += end - at
            for c in range(dim):
                row[c] /= total
