"""Rows of floating-point numbers as whole numbers of 8 bits, each row by itself (compiled)."""

from __future__ import annotations

import numpy as np
from numba import prange

from rota.jit import njit


@njit(cache=True, parallel=True, fastmath=True)
def quantise_rows(x, q, scale):
    """Write x (n, m) as ``(q - 128) * scale``: uint8 (n, m), and float32 (n, 1)."""
    for i in prange(x.shape[0]):
        row, out = x[i], q[i]
        top = np.float32(1e-8)
        for j in range(row.size):
            top = max(top, abs(row[j]))
        unit = np.float32(127.0) / top
        scale[i, 0] = top / np.float32(127.0)
        for j in range(row.size):
            out[j] = np.uint8(np.int32(np.rint(row[j] * unit)) + np.int32(128))
