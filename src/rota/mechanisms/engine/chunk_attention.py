"""Attention of chunks of prompts over paged KV, in place (compiled): tiles of queries against tiles of positions, softmax on the way
(FlashAttention-2)."""

from __future__ import annotations

import numpy as np
from numba import prange

from rota.jit import njit
from rota.mechanisms.engine.intrinsics import widen
from rota.mechanisms.engine.softmax import LOW, soften
from rota.mechanisms.engine.tiles import COLUMNS, ROWS, product, product_added

#: Rows of a chunk that are computed together, and positions that they look at together.
TOGETHER, TILE = 64, 64


@njit(inline="always")
def _load(key, value, turned, values, p, stride):
    """A position's key as column p, and its value as row p, of a tile."""
    for c in range(key.size):
        turned[c * TILE + p] = widen(key[c])
    for c in range(key.size):
        values[p * stride + c] = widen(value[c])


@njit(cache=True, parallel=True, fastmath=True)
def paged_chunks(q, keys, values, tables, groups, scale, window, parts, out):
    """Rows of chunks, each over the positions up to its own.

    Parameters
    ----------
    q, keys, values, tables, scale, window, parts, out
        As in `rota.mechanisms.engine.paged_attention.paged_decode`.
    groups : int64 (m, 4)
        For up to `TOGETHER` neighbouring rows of one chunk: the first row in q, how many, the row of `tables`, the first row's position.
    """
    _, heads, dim = q.shape
    kv_heads, size = keys.shape[1], keys.shape[2]
    per_key, m, dtype = heads // kv_heads, len(groups), q.dtype
    low, one, tile = dtype.type(LOW), dtype.type(1.0), len(groups) * 0 + TILE  # not a constant to the compiler, which would unroll loops
    wide = -(-dim // COLUMNS) * COLUMNS
    for task in prange(m * parts):
        part, at = task // m, m - 1 - task % m
        row, n, slot, position = groups[at]
        table, last = tables[slot], position + n - 1
        first = max(0, position + 1 - window) if window > 0 else 0
        queries, found = np.zeros(per_key * TOGETHER * dim, dtype), np.empty(per_key * TOGETHER * wide, dtype)
        turned, held, scores = np.zeros(dim * TILE, dtype), np.zeros(TILE * wide, dtype), np.empty(ROWS * TILE, dtype)
        top, total, fade = np.empty(per_key * TOGETHER, dtype), np.empty(per_key * TOGETHER, dtype), np.empty(per_key * TOGETHER, dtype)
        for h in range(part * kv_heads // parts, (part + 1) * kv_heads // parts):
            for x in range(per_key):
                for i in range(n):
                    for c in range(dim):
                        queries[(x * TOGETHER + i) * dim + c] = q[row + i, h * per_key + x, c] * scale
            found[:] = total[:] = dtype.type(0.0)
            top[:] = low
            for start in range(first, last + 1, TILE):
                for p in range(min(TILE, last + 1 - start)):
                    block, offset = table[(start + p) // size], (start + p) % size
                    _load(keys[block, h, offset], values[block, h, offset], turned, held, p, wide)
                begin_row = max(0, start - position) // ROWS * ROWS  # rows before it lie before this tile
                for x in range(per_key):
                    for i in range(begin_row, n, ROWS):
                        seen = min(TILE, position + min(i + ROWS, n) - start)
                        if window > 0 and position + i + 1 - window >= start + TILE:
                            continue
                        mine = x * TOGETHER + i
                        for j in range(0, seen, COLUMNS):
                            product(queries, mine * dim, dim, turned, j, TILE, dim, scores, j, TILE)
                        for r in range(ROWS):
                            own = position + i + r + 1 - start
                            if own < TILE:
                                scores[r * TILE + max(own, 0) : (r + 1) * TILE] = low
                            if 0 < window < own:
                                scores[r * TILE : r * TILE + min(own - window, TILE)] = low
                        soften(scores, tile, top, total, fade, mine)
                        for r in range(ROWS):
                            if fade[mine + r] != one:
                                for c in range(wide):
                                    found[(mine + r) * wide + c] *= fade[mine + r]
                        for c in range(0, wide, COLUMNS):
                            product_added(scores, 0, TILE, held, c, wide, seen, found, mine * wide + c, wide)
            for x in range(per_key):
                for i in range(n):
                    s = x * TOGETHER + i
                    for c in range(dim):
                        out[row + i, h * per_key + x, c] = found[s * wide + c] / total[s]
