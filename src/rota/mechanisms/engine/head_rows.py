"""What happens to a step's heads between projection and attention, in one pass (compiled): norm, rotation, and keeping keys and values."""

from __future__ import annotations

import math

from numba import prange

from rota.jit import njit
from rota.mechanisms.engine.intrinsics import narrow


@njit(cache=True, parallel=True, fastmath=True)
def rotate_and_keep(rows, q_norm, k_norm, eps, cos, sin, q, keys, values, blocks, offsets):
    """Rotate queries and keys, and write keys and values to their pages.

    Parameters
    ----------
    rows : (n, heads + 2 kv_heads, head_dim)
        Queries, keys and values; overwritten.
    q_norm, k_norm : (head_dim,)
        Weights of the root-mean-square norm before the rotation; empty for none.
    eps : float
        Of the norm.
    cos, sin : (n, head_dim)
        Of each row's position.
    q : (n, heads, head_dim)
        For the queries.
    keys, values : (blocks, kv_heads, block_size, head_dim)
        Pages, of the rows' type, or uint16 for bfloat16.
    blocks, offsets : int64 (n,)
        Where each row's key and value go.
    """
    n, _, dim = rows.shape
    heads, kv_heads, half = q.shape[1], keys.shape[1], dim // 2
    for i in prange(n):
        c, s = cos[i], sin[i]
        for h in range(heads + kv_heads):
            row, norm = rows[i, h], q_norm if h < heads else k_norm
            turned = q[i, h] if h < heads else row
            if norm.size:
                squares = rows.dtype.type(0.0)
                for j in range(dim):
                    squares += row[j] * row[j]
                factor = rows.dtype.type(1.0 / math.sqrt(squares / dim + eps))
                for j in range(dim):
                    row[j] *= factor * norm[j]
            for j in range(half):
                low, high = row[j], row[j + half]
                turned[j] = low * c[j] - high * s[j]
                turned[j + half] = high * c[j + half] + low * s[j + half]
        for h in range(kv_heads):
            k, v = rows[i, heads + h], rows[i, heads + kv_heads + h]
            key, value = keys[blocks[i], h, offsets[i]], values[blocks[i], h, offsets[i]]
            for j in range(dim):
                key[j] = narrow(k[j], keys)
            for j in range(dim):
                value[j] = narrow(v[j], values)
