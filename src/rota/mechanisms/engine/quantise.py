"""Rows of floating-point numbers as whole numbers of 8 bits, each row by itself, and what comes before it in the same pass (compiled)."""

from __future__ import annotations

import numpy as np
from numba import prange

from rota.jit import njit
from rota.mechanisms.engine.intrinsics import larger
from rota.mechanisms.engine.plain_rows import gate_row, norm_row


@njit(inline="always")
def _quantise(row, out):
    """Write `row` as ``(out - 128) * scale``; the scale."""
    top = np.float32(1e-8)
    for j in range(row.size):
        top = larger(top, abs(row[j]))
    unit = np.float32(127.0) / top
    for j in range(row.size):
        out[j] = np.uint8(np.int32(np.rint(row[j] * unit)) + np.int32(128))
    return top / np.float32(127.0)


@njit(cache=True, parallel=True, fastmath=True)
def quantise_rows(x, q, scale):
    """Write x (n, m) as ``(q - 128) * scale``: uint8 (n, m), and float32 (n, 1)."""
    for i in prange(x.shape[0]):
        scale[i, 0] = _quantise(x[i], q[i])


@njit(cache=True, parallel=True, fastmath=True)
def quantise_normed(x, weight, eps, q, scale):
    """`quantise_rows` of x's root-mean-square norm with this weight (m,)."""
    for i in prange(x.shape[0]):
        row, normed = x[i], np.empty(x.shape[1], np.float32)
        norm_row(row, weight, eps, normed)
        scale[i, 0] = _quantise(normed, q[i])


@njit(cache=True, parallel=True, fastmath=True)
def quantise_gated(x, q, scale):
    """`quantise_rows` of silu(x[:, :m]) * x[:, m:], x (n, 2 m)."""
    m = x.shape[1] // 2
    for i in prange(x.shape[0]):
        gated = np.empty(m, np.float32)
        gate_row(x[i, :m], x[i, m:], gated)
        scale[i, 0] = _quantise(gated, q[i])
