"""Making room for the next decode step: the eviction loop that Sarathi-Serve, vLLM v0 and paged Orca share, and its compiled twin.

Running sequences are taken in order of arrival. Before each decode one block must be free, whether it needs one or not; if none is, the
last of those not yet looked at is evicted (it may be a half-done prompt), and if there is none, the decode itself.
[Sarathi-Serve, section 4; microsoft/sarathi-serve, scheduler]
"""

from __future__ import annotations

import numpy as np
from numba import njit

from rota.contracts.columns import (
    ARRIVED,
    BLOCK_SIZE,
    BLOCKS,
    DECODE_FLAG,
    FLIGHT,
    FREE,
    HEADER,
    HEADROOM,
    KNOWN,
    N_EVICT,
    N_PAUSE,
    N_REJECT,
    N_RUNNING,
    N_WORK,
    NEXT,
    PADDED,
    PHASE,
    REPEAT,
    RUN_HEAD,
    WAIT_HEAD,
    WAKE,
    WORK_SIZE,
)
from rota.contracts.serving import DECODE, EngineView, StepPlan


def make_room(view: EngineView) -> tuple[tuple[int, ...], int, int]:
    """(evicted sequences in order of eviction, decodes left, free blocks after the decodes have taken theirs)."""
    size = view.limits.block_size
    order = sorted(view.running, key=lambda s: (s.arrival, s.sid))
    free = view.free_blocks
    evicted: list[int] = []
    decodes = 0
    last = len(order) - 1
    for i, seq in enumerate(order):
        if i > last:
            break
        if seq.phase != DECODE:
            continue
        while free < 1 and last > i:
            free += order[last].kv_blocks
            evicted.append(order[last].sid)
            last -= 1
        if free < 1:
            free += seq.kv_blocks
            evicted.append(seq.sid)
            break
        free -= max(0, -(-seq.n_known // size) - seq.kv_blocks)
        decodes += 1
    return tuple(evicted), decodes, free


#: Most requests rejected in one plan; the engine asks again at once.
_REJECTIONS = 1024


def reject_head(view: EngineView, most: int, longest: int = 1 << 60) -> StepPlan:
    """Refuse the requests at the head of the queue of which more than `most` blocks or `longest` tokens are known."""
    size = view.limits.block_size
    refused: list[int] = []
    for seq in view.waiting:
        if (-(-seq.n_known // size) <= most and seq.n_known <= longest) or len(refused) == _REJECTIONS:
            break
        refused.append(seq.sid)
    return StepPlan((), False, (), tuple(refused))


@njit(cache=True)
def reject_head_compiled(seq, ctl, out, most, longest):
    """`reject_head`."""
    at = start_plan(out, 1, 3, 0)
    out[DECODE_FLAG] = 0
    size = ctl[BLOCK_SIZE]
    sid = ctl[WAIT_HEAD]
    while sid >= 0 and ((seq[sid, KNOWN] + size - 1) // size > most or seq[sid, KNOWN] > longest) and out[N_REJECT] < _REJECTIONS:
        out[at] = sid
        out[N_REJECT] += 1
        at += 1
        sid = seq[sid, NEXT]


@njit(cache=True)
def start_plan(out, repeat, wake, headroom):
    """An empty plan that decodes; the lists follow."""
    out[DECODE_FLAG] = 1
    out[REPEAT] = repeat
    out[WAKE] = wake
    out[HEADROOM] = headroom
    out[PADDED] = 0
    out[N_EVICT] = 0
    out[N_REJECT] = 0
    out[N_PAUSE] = 0
    out[N_WORK] = 0
    return HEADER


@njit(cache=True)
def put_work(out, at, sid, tokens, reserve_to):
    """Append a work item over all layers; the place after it."""
    out[at] = sid
    out[at + 1] = tokens
    out[at + 2] = reserve_to
    out[at + 3] = 0
    out[at + 4] = 0
    out[N_WORK] += 1
    return at + WORK_SIZE


@njit(cache=True)
def make_room_compiled(seq, tim, ctl, out, at):
    """`make_room`: appends the evictions to `out`. (place after them, decodes left, free blocks)."""
    order = np.empty(ctl[N_RUNNING], np.int64)
    n = 0
    sid = ctl[RUN_HEAD]
    while sid >= 0:
        if seq[sid, FLIGHT] == 0 and seq[sid, PHASE] <= DECODE:
            i = n
            while i > 0 and (
                tim[order[i - 1], ARRIVED] > tim[sid, ARRIVED]
                or (tim[order[i - 1], ARRIVED] == tim[sid, ARRIVED] and order[i - 1] > sid)
            ):
                order[i] = order[i - 1]
                i -= 1
            order[i] = sid
            n += 1
        sid = seq[sid, NEXT]
    size = ctl[BLOCK_SIZE]
    free = ctl[FREE]
    decodes = 0
    last = n - 1
    i = 0
    while i <= last:
        sid = order[i]
        if seq[sid, PHASE] == DECODE:
            while free < 1 and last > i:
                free += seq[order[last], BLOCKS]
                out[at] = order[last]
                out[N_EVICT] += 1
                at += 1
                last -= 1
            if free < 1:
                free += seq[sid, BLOCKS]
                out[at] = sid
                out[N_EVICT] += 1
                at += 1
                break
            free -= max(0, (seq[sid, KNOWN] + size - 1) // size - seq[sid, BLOCKS])
            decodes += 1
        i += 1
    return at, decodes, free
