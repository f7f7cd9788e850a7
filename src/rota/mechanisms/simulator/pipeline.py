"""Steps in flight on the stages of a pipeline (compiled)."""

from __future__ import annotations

import math

from rota.contracts.columns import DECODE_FLAG, FLIGHT, IN_FLIGHT, N_WORK, PNEXT, PRE_HEAD, STAGES, WORK_SIZE
from rota.cost.kernel import CPU, CPU_SEQ, LAUNCH, SEND, SEND_TOKEN, noise_factor
from rota.jit import njit
from rota.mechanisms.simulator.account import device_seconds, note
from rota.mechanisms.simulator.decodes import join, leave, member
from rota.mechanisms.simulator.plans import rejoin_paused, works_at
from rota.mechanisms.simulator.requests import free_ended
from rota.mechanisms.simulator.state import (
    A_BUSY,
    AVAIL,
    CACHING,
    G_CONTEXT,
    G_HEAP,
    G_N,
    G_SHARED,
    L_ACTIVE,
    L_GROUP,
    L_WORK,
    LAST_FINISHED,
    LEFT,
    N_ENDING,
    N_PAUSED,
    NOW,
    RELOAD,
    STEPS,
)
from rota.mechanisms.simulator.steps import advance_work, commit_filled, emit_group, finish_due, take_decode_blocks


@njit(cache=True)
def launch(e):
    """Start the plan's step on the first pipeline stage; its group and work travel with it."""
    ctl, out, cp = e.ctl, e.out, e.cp
    slot = 0
    while e.lane[slot, L_ACTIVE]:
        slot += 1
    works = works_at(out)
    g = ctl[AVAIL]
    decode = out[DECODE_FLAG] != 0 and e.grp[g, G_N] > 0
    rows = e.grp[g, G_N] if decode else 0
    context = e.grp[g, G_CONTEXT] if decode else 0
    layers_s, head_s, tokens, seqs = device_seconds(e, rows, context, e.grp[g, G_SHARED] if decode else 0, works)
    pp = ctl[STAGES]
    host = cp[CPU] + cp[CPU_SEQ] * seqs + e.flt[RELOAD]
    e.flt[RELOAD] = 0.0
    factor = noise_factor(cp, ctl[STEPS])
    ctl[STEPS] += 1
    send = cp[SEND] + cp[SEND_TOKEN] * (rows + tokens)
    start = e.flt[NOW]
    at = start
    for s in range(pp):
        stage = layers_s / pp + (head_s if s == pp - 1 else 0.0)
        stage = max(stage, cp[LAUNCH] / pp) * factor + (host if s == 0 else 0.0)
        if s > 0:
            at = max(at + send, e.stage_free[s])
        at += stage
        e.stage_free[s] = at
        e.acc[A_BUSY] += stage / pp
    e.lane[slot, L_ACTIVE] = 1
    e.lane[slot, L_GROUP] = -1
    e.lane_end[slot] = at
    if decode:
        take_decode_blocks(e, g)
        e.lane[slot, L_GROUP] = g
        for i in range(e.grp[g, G_HEAP]):
            e.seq[member(e.heap[g, i]), FLIGHT] = 1
        ctl[AVAIL] = _idle_group(e)
    e.lane[slot, L_WORK] = out[N_WORK]
    w = works
    for i in range(out[N_WORK]):
        for c in range(WORK_SIZE):
            e.lane_work[slot, i, c] = out[w + c]
        e.seq[out[w], FLIGHT] = 1
        w += WORK_SIZE
    ctl[IN_FLIGHT] += 1
    note(e, start, e.stage_free[0], rows, tokens, 1)
    if ctl[N_PAUSED] > 0:
        rejoin_paused(e)
    ctl[LEFT] = 0


@njit(cache=True)
def _idle_group(e):
    """An empty group; groups in flight never are, and there is one more group than steps in flight."""
    g = 0
    while e.grp[g, G_N] > 0:
        g += 1
    return g


@njit(cache=True)
def complete(e, slot):
    """A step has left the last stage: its sequences emit and become available again."""
    ctl = e.ctl
    now = e.lane_end[slot]
    ended = 0
    g = e.lane[slot, L_GROUP]
    e.lane[slot, L_ACTIVE] = 0
    e.lane_end[slot] = math.inf
    ctl[IN_FLIGHT] -= 1
    if g >= 0:
        emit_group(e, g, now)
        if ctl[CACHING]:
            commit_filled(e, g)
        ended = finish_due(e, g, now, False)
        for i in range(e.grp[g, G_HEAP]):
            e.seq[member(e.heap[g, i]), FLIGHT] = 0
        other = ctl[AVAIL]
        if e.grp[other, G_N] == 0:
            ctl[AVAIL] = g
        else:
            if e.grp[g, G_N] > e.grp[other, G_N]:
                g, other = other, g
                ctl[AVAIL] = other
            while e.grp[g, G_HEAP] > 0:
                sid = member(e.heap[g, 0])
                leave(e, g, sid)
                join(e, other, sid)
    for i in range(e.lane[slot, L_WORK]):
        sid = e.lane_work[slot, i, 0]
        e.seq[sid, FLIGHT] = 0
        if advance_work(e, sid, e.lane_work[slot, i, 1], e.lane_work[slot, i, 3], e.lane_work[slot, i, 4], now, False) == 2:
            ended += 1
    if ctl[N_ENDING] > 0:
        free_ended(e)
    ctl[LAST_FINISHED] = ended


@njit(cache=True)
def next_completion(e):
    slot = 0
    for s in range(1, e.lane_end.size):
        if e.lane_end[s] < e.lane_end[slot]:
            slot = s
    return slot


@njit(cache=True)
def prefill_available(e):
    """Whether an unfinished prompt is not in flight."""
    sid = e.ctl[PRE_HEAD]
    while sid >= 0:
        if e.seq[sid, FLIGHT] == 0:
            return True
        sid = e.seq[sid, PNEXT]
    return False
