"""What comes before a matrix product, a row at a time and in one pass (compiled): the root-mean-square norm, and the gate of a feed-forward
network. PyTorch takes several passes, each through memory."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from rota.jit import njit
from rota.mechanisms.engine.intrinsics import exp


@njit(inline="always")
def norm_row(row, weight, eps, out):
    """Write the root-mean-square norm of a row with this weight."""
    squares = np.float32(0.0)
    for j in range(row.size):
        squares += row[j] * row[j]
    factor = np.float32(1.0 / math.sqrt(squares / row.size + eps))
    for j in range(row.size):
        out[j] = row[j] * factor * weight[j]


@njit(inline="always")
def gate_row(gate, up, out):
    """Write silu(gate) * up."""
    for j in range(gate.size):
        small = exp(-abs(gate[j]))
        share = np.float32(1.0) / (np.float32(1.0) + small)
        out[j] = gate[j] * (share if gate[j] >= 0 else small * share) * up[j]


@njit(cache=True, parallel=True, fastmath=True)
def norm_rows(x, weight, eps, out):
    """Write the norm of each row of x (n, m), float32."""
    for i in prange(x.shape[0]):
        norm_row(x[i], weight, eps, out[i])


@njit(cache=True, parallel=True, fastmath=True)
def gate_rows(x, out):
    """Write silu(x[:, :m]) * x[:, m:], x (n, 2 m), float32."""
    m = out.shape[1]
    for i in prange(x.shape[0]):
        gate_row(x[i, :m], x[i, m:], out[i])
