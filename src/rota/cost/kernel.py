"""Compiled evaluation of `StepTables` for one step: what the simulator calls in its inner loop.

`pack` flattens a `StepTables` into the arrays that the compiled functions take. `rota.cost.model` computes the same in NumPy and is
held equal to this by tests.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rota.cost.tables import TABLE, StepTables
from rota.jit import njit

# scalars of a packed cost, float64
(KIND, LAYERS, P_FLOOR, P_FLOP, P_BYTE, Q_BYTE, D_FLOOR, D_BYTE, LAUNCH, CPU, CPU_SEQ, SEND, SEND_TOKEN, NOISE, KV_SCALE,
 BATCH, SEED) = range(17)  # fmt: skip


def pack(tables: StepTables, seed: int = 0) -> NDArray[np.float64]:
    """The scalars of `tables` in the order above, float64 (17,)."""
    t = tables
    return np.array([
        t.kind, t.n_layers, t.prefill_floor, t.prefill_flop_s, t.prefill_byte_s, t.query_byte_s, t.decode_floor, t.decode_byte_s,
        t.launch, t.cpu, t.cpu_per_seq, t.send, t.send_per_token, t.noise, t.kv_scale, t.batch_factor, seed,
    ], dtype=np.float64)  # fmt: skip


@njit(_nrt=False, cache=True, forceinline=True)
def lookup(table, n):
    """`table[n]`, with the last slope going on beyond its end."""
    last = table.size - 1
    if n <= last:
        return table[n]
    return table[last] + (n - last) * (table[last] - table[last - 1])


@njit(_nrt=False, cache=True, forceinline=True)
def decode_attention(cp, decode_table, n, context, shared):
    """Seconds of one layer's decode attention of `n` sequences whose contexts sum to `context`.

    Of these, `shared` tokens are read for another of the sequences too, and so only once. What is left to read may then take less
    time than computing all, at the rate of prefill attention.
    """
    if n == 0:
        return 0.0
    if cp[KIND] == TABLE:
        scale = int(cp[KV_SCALE])
        column = ((context - shared) // n + scale - 1) // scale
        row = min(n, decode_table.shape[0]) - 1
        column = min(column, decode_table.shape[1] - 1)
        return decode_table[row, column] * (cp[BATCH] if n > 1 else 1.0)
    read = cp[D_BYTE] * (context - shared)
    return cp[D_FLOOR] + (max(read, cp[P_FLOP] * context) if shared > 0 else read)


@njit(_nrt=False, cache=True, forceinline=True)
def prefill_attention(cp, prefill_table, prefill_long, m, tokens, area, context, squares, past):
    """Seconds of one layer's prefill attention of `m` prompts.

    `tokens`: sum of n; `area`: sum of n p + n (n + 1) / 2; `context`: sum of p + n; `squares`: sum of n^2; `past`: sum of p,
    each rounded up to the tables' scale.
    """
    if m == 0:
        return 0.0
    if cp[KIND] == TABLE:
        scale = int(cp[KV_SCALE])
        column = min(past // scale, prefill_table.shape[1] - 1)
        n = max(1, int(np.rint(math.sqrt(squares))))
        rows = prefill_table.shape[0]
        if n <= rows:
            seconds = prefill_table[n - 1, column]
        else:
            seconds = prefill_long[min(n, prefill_long.size) - 1]
            seconds += (prefill_table[rows - 1, column] - prefill_table[rows - 1, 0]) * n / rows
        return seconds * (cp[BATCH] if m > 1 else 1.0)
    compute, moved = cp[P_FLOP] * area, cp[P_BYTE] * context + cp[Q_BYTE] * tokens
    return cp[P_FLOOR] + math.sqrt(compute * compute + moved * moved)


@njit(_nrt=False, cache=True, forceinline=True)
def noise_factor(cp, step):
    """Multiplicative noise of step number `step`: a function of the seed and the step only, so every mode sees the same."""
    if cp[NOISE] == 0.0:
        return 1.0
    x = np.uint64(step) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(cp[SEED]) * np.uint64(0xD1B54A32D192ED03)
    u = 0.0
    v = 0.0
    for i in range(2):
        x += np.uint64(0x9E3779B97F4A7C15)
        z = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        f = (float(z >> np.uint64(11)) + 0.5) / 9007199254740992.0
        if i == 0:
            u = f
        else:
            v = f
    return math.exp(cp[NOISE] * math.sqrt(-2.0 * math.log(u)) * math.cos(2.0 * math.pi * v))


@njit(_nrt=False, cache=True)
def decode_segment(cp, layer, head, decode_table, n, context, shared, step):
    """Step times of a decode-only stretch as an arithmetic series: (first, slope, length), seconds, seconds, steps.

    The series holds for `length` steps from contexts that sum to `context` (which grows by `n` a step; `shared` stays).
    """
    device = cp[LAYERS] * (lookup(layer, n) + decode_attention(cp, decode_table, n, context, shared)) + lookup(head, n)
    host = cp[CPU] + cp[CPU_SEQ] * n
    if cp[NOISE] != 0.0:
        return max(device, cp[LAUNCH]) * noise_factor(cp, step) + host, 0.0, 1
    if cp[KIND] == TABLE:
        scale = int(cp[KV_SCALE])
        mean = (context - shared) // n
        column = (mean + scale - 1) // scale
        return max(device, cp[LAUNCH]) + host, 0.0, column * scale - mean + 1
    rate = cp[D_BYTE]
    length = 1 << 40
    if shared > 0:
        ahead = cp[P_FLOP] * context - rate * (context - shared)  # of computing over reading
        closing = n * (rate - cp[P_FLOP])
        if ahead > 0.0:
            rate = cp[P_FLOP]
            length = max(1, math.ceil(ahead / closing)) if closing > 0.0 else length
        elif closing < 0.0:
            length = math.floor(ahead / closing) + 1
    slope = cp[LAYERS] * rate * n
    if device < cp[LAUNCH]:
        if slope == 0.0:
            return cp[LAUNCH] + host, 0.0, length
        return cp[LAUNCH] + host, 0.0, min(length, max(1, math.ceil((cp[LAUNCH] - device) / slope)))
    return device + host, slope, length
