"""What a simulated step costs, and what is written down about it (compiled): totals, timeline, log."""

from __future__ import annotations

from rota.contracts.columns import COMPUTED, FREE, KNOWN, N_LAYERS, N_WAITING, N_WORK, TOTAL_BLOCKS, WORK_SIZE
from rota.cost.kernel import KIND, KV_SCALE, decode_attention, lookup, prefill_attention
from rota.cost.tables import TABLE
from rota.jit import njit
from rota.mechanisms.simulator.state import (
    A_AREA,
    A_CONTEXT,
    A_DECODE,
    A_EXPERT,
    A_PASSES,
    A_PCONTEXT,
    A_PREFILL,
    A_SHARED,
    A_STEPS,
    EVENTS,
    LOG_ON,
    LOG_ROWS,
    PEAK,
    TL_BINS,
    TL_COLUMNS,
    TL_WIDTH,
)


@njit(cache=True, forceinline=True, _nrt=False)
def device_seconds(e, rows, context, shared, works):
    """(layers, head, prompt tokens, sequences) of the step in `out`: seconds of all layers and of the output head; accumulates totals.

    Of the decodes' contexts, which sum to `context`, `shared` tokens are read for another sequence anyway.
    """
    seq, out, cp, acc = e.seq, e.out, e.cp, e.acc
    m = out[N_WORK]
    layers = e.ctl[N_LAYERS]
    tokens = 0
    area = 0.0
    pcontext = 0
    squares = 0.0
    past_sum = 0
    emitted = rows
    lo = 0
    hi = layers
    scale = int(cp[KV_SCALE])
    tables = cp[KIND] == TABLE
    at = works
    for _ in range(m):
        sid = out[at]
        count = out[at + 1]
        past = seq[sid, COMPUTED]
        if out[at + 4] > 0:
            lo = out[at + 3]
            hi = out[at + 4]
        if hi == layers and past + count == seq[sid, KNOWN]:
            emitted += 1
        tokens += count
        area += count * past + 0.5 * count * (count + 1.0)
        pcontext += past + count
        squares += float(count) * count
        if tables:
            past_sum += (past + scale - 1) // scale * scale
        at += WORK_SIZE
    decode_s = decode_attention(cp, e.decode_table, rows, context, shared)
    prefill_s = prefill_attention(cp, e.prefill_table, e.prefill_long, m, tokens, area, pcontext, squares, past_sum)
    if hi - lo == layers and m > 0:
        seconds = layers * (lookup(e.layer, rows + tokens) + decode_s + prefill_s)
        part = 1.0
        expert = layers * lookup(e.expert, rows + tokens)
        passes = layers
    else:
        span = hi - lo if m > 0 else 0
        seconds = span * (lookup(e.layer, rows + tokens) + decode_s + prefill_s)
        seconds += (layers - span) * (lookup(e.layer, rows) + decode_s)
        part = span / layers
        expert = span * lookup(e.expert, rows + tokens) + (layers - span) * lookup(e.expert, rows)
        passes = layers if rows > 0 else span
    acc[A_STEPS] += 1
    acc[A_DECODE] += rows
    acc[A_PREFILL] += tokens * part
    acc[A_CONTEXT] += context
    acc[A_SHARED] += shared
    acc[A_AREA] += area * part
    acc[A_PCONTEXT] += pcontext * part
    acc[A_EXPERT] += expert
    acc[A_PASSES] += passes
    return seconds, lookup(e.head, emitted), tokens, rows + m


@njit(cache=True, forceinline=True, _nrt=False)
def note(e, start, end, decodes, tokens, steps):
    """Timeline, and the log if it is on."""
    ctl = e.ctl
    used = ctl[TOTAL_BLOCKS] - ctl[FREE]
    if used > ctl[PEAK]:
        ctl[PEAK] = used
    ctl[EVENTS] += 1
    width = e.flt[TL_WIDTH]
    while end >= width * TL_BINS:
        for i in range(TL_BINS // 2):
            for c in range(TL_COLUMNS):
                e.timeline[i, c] = e.timeline[2 * i, c] + e.timeline[2 * i + 1, c]
        e.timeline[TL_BINS // 2 :] = 0.0
        width *= 2.0
        e.flt[TL_WIDTH] = width
    low = int(start / width)
    high = int(end / width)
    if low == high:
        span = end - start
        e.timeline[low, 0] += decodes * span
        e.timeline[low, 1] += tokens
        e.timeline[low, 2] += used * span
        e.timeline[low, 3] += ctl[N_WAITING] * span
        e.timeline[low, 4] += span
        high = low - 1
    rate = tokens / (end - start) if end > start else 0.0
    for i in range(low, high + 1):
        span = min(end, (i + 1) * width) - max(start, i * width)
        if span > 0.0:
            e.timeline[i, 0] += decodes * span
            e.timeline[i, 1] += rate * span
            e.timeline[i, 2] += used * span
            e.timeline[i, 3] += ctl[N_WAITING] * span
            e.timeline[i, 4] += span
    if ctl[LOG_ON]:
        row = ctl[LOG_ROWS]
        e.log[row, 0] = start
        e.log[row, 1] = end
        e.log[row, 2] = decodes
        e.log[row, 3] = tokens
        e.log[row, 4] = steps
        e.log[row, 5] = used
        ctl[LOG_ROWS] = row + 1
