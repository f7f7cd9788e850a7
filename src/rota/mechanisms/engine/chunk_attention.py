"""Attention of chunks of prompts over paged KV, in place (compiled): four queries by four positions at a time, for reuse of what is loaded."""

from __future__ import annotations

import numpy as np
from numba import prange

from rota.jit import njit
from rota.mechanisms.engine.intrinsics import exp, widen

#: Rows that are computed together.
ROWS = 4


@njit(inline="always")
def _weights(scores, begin, end, scale):
    """Turn the scores from `begin` to `end` into weights, and those outside into 0; the weights' sum."""
    zero = scores.dtype.type(0.0)
    mine = scores[begin:end]
    highest = mine[0]
    for p in range(mine.size):
        highest = mine[p] if mine[p] > highest else highest
    total = zero
    for p in range(mine.size):
        mine[p] = exp((mine[p] - highest) * scale)
        total += mine[p]
    scores[:begin] = zero
    scores[end:] = zero
    return total


@njit(cache=True, parallel=True, fastmath=True)
def paged_chunks(q, keys, values, tables, groups, scale, window, parts, out):
    """Rows of chunks, each over the positions up to its own.

    Parameters
    ----------
    q, keys, values, tables, scale, window, parts, out
        As in `rota.mechanisms.engine.paged_attention.paged_decode`.
    groups : int64 (m, 4)
        For up to `ROWS` neighbouring rows of one chunk: the first row in q, how many, the row of `tables`, the first row's position.
    """
    _, heads, dim = q.shape
    kv_heads, size = keys.shape[1], keys.shape[2]
    per_key, m, zero = heads // kv_heads, len(groups), q.dtype.type(0.0)
    for task in prange(m * parts):
        part, at = task // m, m - 1 - task % m
        row, n, slot, position = groups[at]
        begin_head, end_head = part * kv_heads // parts, (part + 1) * kv_heads // parts
        table, last = tables[slot], position + n - 1
        since = max(0, position + 1 - window) if window > 0 else 0
        origin = since // size * size  # position of the first score
        i1, i2, i3 = row + min(1, n - 1), row + min(2, n - 1), row + min(3, n - 1)  # a missing row repeats the last
        w, found = np.empty((ROWS, last + 1 - origin), q.dtype), np.empty(dim, q.dtype)
        for x in range(begin_head * per_key, end_head * per_key):
            h = x // per_key
            q0, q1, q2, q3 = q[row, x], q[i1, x], q[i2, x], q[i3, x]
            for b in range(origin // size, last // size + 1):
                key, j = keys[table[b], h], b * size - origin
                end = min(last + 1 - b * size, size)
                for p in range(0, end, 4):
                    p1, p2, p3 = min(p + 1, end - 1), min(p + 2, end - 1), min(p + 3, end - 1)
                    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
                    for c in range(dim):
                        k0, k1, k2, k3 = widen(key[p, c]), widen(key[p1, c]), widen(key[p2, c]), widen(key[p3, c])
                        s00 += q0[c] * k0
                        s01 += q0[c] * k1
                        s02 += q0[c] * k2
                        s03 += q0[c] * k3
                        s10 += q1[c] * k0
                        s11 += q1[c] * k1
                        s12 += q1[c] * k2
                        s13 += q1[c] * k3
                        s20 += q2[c] * k0
                        s21 += q2[c] * k1
                        s22 += q2[c] * k2
                        s23 += q2[c] * k3
                        s30 += q3[c] * k0
                        s31 += q3[c] * k1
                        s32 += q3[c] * k2
                        s33 += q3[c] * k3
                    w[0, j + p], w[0, j + p1], w[0, j + p2], w[0, j + p3] = s00, s01, s02, s03
                    w[1, j + p], w[1, j + p1], w[1, j + p2], w[1, j + p3] = s10, s11, s12, s13
                    w[2, j + p], w[2, j + p1], w[2, j + p2], w[2, j + p3] = s20, s21, s22, s23
                    w[3, j + p], w[3, j + p1], w[3, j + p2], w[3, j + p3] = s30, s31, s32, s33
            for g in range(n):
                own = position + g + 1 - origin
                weights = w[g]
                first = max(own - window, 0) if window > 0 else 0
                total = _weights(weights, first, own, scale)
                found[:] = zero
                for b in range((first + origin) // size, (own - 1 + origin) // size + 1):
                    value, j = values[table[b], h], b * size - origin
                    end = min(own - j, size)
                    p = 0
                    while p + 8 <= end:
                        s0, s1, s2, s3 = weights[j + p], weights[j + p + 1], weights[j + p + 2], weights[j + p + 3]
                        s4, s5, s6, s7 = weights[j + p + 4], weights[j + p + 5], weights[j + p + 6], weights[j + p + 7]
                        for c in range(dim):
                            found[c] += (
                                s0 * widen(value[p, c]) + s1 * widen(value[p + 1, c]) + s2 * widen(value[p + 2, c]) + s3 * widen(value[p + 3, c])
                            ) + (
                                s4 * widen(value[p + 4, c]) + s5 * widen(value[p + 5, c]) + s6 * widen(value[p + 6, c]) + s7 * widen(value[p + 7, c])
                            )
                        p += 8
                    while p < end:
                        for c in range(dim):
                            found[c] += weights[j + p] * widen(value[p, c])
                        p += 1
                for c in range(dim):
                    out[row + g, x, c] = found[c] / total
