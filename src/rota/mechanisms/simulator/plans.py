"""Checking a plan against the rules and changing queues and blocks as it says (compiled). Nothing here takes time."""

from __future__ import annotations

import math

from rota.contracts.columns import (
    BLOCK_SIZE,
    BLOCKS,
    CHUNK,
    COMPUTED,
    CURSOR,
    DECODE_FLAG,
    FIRST_SCHEDULED,
    FLIGHT,
    FREE,
    HEADER,
    KNOWN,
    MAX_SEQS,
    MAX_STEP_TOKENS,
    N_EVICT,
    N_LAYERS,
    N_PAUSE,
    N_PIN_CHANGES,
    N_REJECT,
    N_RUNNING,
    N_WORK,
    PADDED,
    PHASE,
    REPEAT,
    STAGES,
    SWAPPED,
    WORK_SIZE,
)
from rota.contracts.serving import DECODE, PREFILL, REJECTED, WAITING
from rota.jit import njit
from rota.mechanisms.simulator.blocks import grow, hold_prefix, load
from rota.mechanisms.simulator.decodes import join, leave
from rota.mechanisms.simulator.queues import link_running, unlink_running, unlink_waiting
from rota.mechanisms.simulator.requests import bring_back, end, evict, forget_kept, free_blocks
from rota.mechanisms.simulator.state import (
    ADMISSIONS,
    ADMITTED,
    AVAIL,
    BAD,
    CACHED,
    CACHING,
    COMPRESS,
    FRESH_PLAN,
    G_AT,
    G_N,
    GHOST_CONTEXT,
    GHOSTS,
    HOST_BLOCKS,
    LEFT,
    LOADING,
    MARK,
    N_PAUSED,
    NOW,
    PLANS,
    REQUESTS,
    SERIAL,
)


@njit(cache=True, _nrt=False)
def release_ghosts(e):
    """The padded batch is over: its finished rows give up their seats and blocks."""
    for i in range(e.ctl[GHOSTS]):
        unlink_running(e, e.ghosts[i])
        free_blocks(e, e.ghosts[i])
    e.ctl[GHOSTS] = 0
    e.ctl[GHOST_CONTEXT] = 0


@njit(cache=True, forceinline=True, _nrt=False)
def blocks_for(e, tokens):
    size = e.ctl[BLOCK_SIZE]
    return (tokens + size - 1) // size


@njit(cache=True, _nrt=False)
def apply(e):
    """Check the plan in `out` and change queues and blocks as it says. 0, or the number of the broken rule (BAD holds the sequence)."""
    ctl, seq, own, out = e.ctl, e.seq, e.own, e.out
    now = e.flt[NOW]
    ctl[PLANS] += 1
    ctl[SERIAL] += 1
    serial = ctl[SERIAL]
    n = ctl[REQUESTS]
    if ctl[GHOSTS] > 0 and out[PADDED] == 0:
        release_ghosts(e)
    at = HEADER
    for _ in range(out[N_EVICT]):
        sid = out[at]
        at += 1
        keep = sid >= SWAPPED
        if keep:
            sid -= SWAPPED
        ctl[BAD] = sid
        if sid < 0 or sid >= n or (seq[sid, PHASE] != PREFILL and seq[sid, PHASE] != DECODE) or seq[sid, FLIGHT] != 0:
            return 7
        if not evict(e, sid, keep):
            return 4
        own[sid, MARK] = serial
    for _ in range(out[N_REJECT]):
        sid = out[at]
        at += 1
        ctl[BAD] = sid
        if sid < 0 or sid >= n or seq[sid, PHASE] != WAITING:
            return 7
        unlink_waiting(e, sid)
        forget_kept(e, sid)
        seq[sid, PHASE] = REJECTED
        end(e, sid, now)
    avail = ctl[AVAIL]
    ctl[N_PAUSED] = 0
    for _ in range(out[N_PAUSE]):
        sid = out[at]
        at += 1
        ctl[BAD] = sid
        if sid < 0 or sid >= n or seq[sid, PHASE] != DECODE or seq[sid, FLIGHT] != 0 or out[DECODE_FLAG] == 0:
            return 6
        if own[sid, MARK] == serial:
            return 6
        own[sid, MARK] = serial
        leave(e, avail, sid)
        e.paused[ctl[N_PAUSED]] = sid
        ctl[N_PAUSED] += 1
    tokens = e.grp[avail, G_N] if out[DECODE_FLAG] else 0
    first = -1
    last = -1
    works = at
    for _ in range(out[N_WORK]):
        sid = out[at]
        count = out[at + 1]
        lo = out[at + 3]
        hi = out[at + 4]
        at += WORK_SIZE
        ctl[BAD] = sid
        if sid < 0 or sid >= n:
            return 1
        phase = seq[sid, PHASE]
        if own[sid, MARK] == serial:
            return 7 if phase == WAITING else 1
        own[sid, MARK] = serial
        if phase == DECODE:
            return 6
        if (phase != WAITING and phase != PREFILL) or seq[sid, FLIGHT] != 0:
            return 1
        if phase == WAITING:
            if ctl[N_RUNNING] >= ctl[MAX_SEQS]:
                return 3
            unlink_waiting(e, sid)
            link_running(e, sid)
            seq[sid, PHASE] = PREFILL
            own[sid, ADMITTED] = ctl[ADMISSIONS]
            ctl[ADMISSIONS] += 1
            seq[sid, BLOCKS] = 0
            seq[sid, COMPUTED] = 0
            if ctl[CACHING]:
                hold_prefix(e, sid)
                own[sid, CACHED] = seq[sid, COMPUTED]
            if ctl[HOST_BLOCKS] > 0:
                bring_back(e, sid)
            if math.isnan(e.tim[sid, FIRST_SCHEDULED]):
                e.tim[sid, FIRST_SCHEDULED] = now
        if count < 1 or count > seq[sid, KNOWN] - seq[sid, COMPUTED]:
            return 2
        if hi > 0:
            if lo < 0 or hi <= lo or hi > ctl[N_LAYERS] or lo != seq[sid, CURSOR] or ctl[STAGES] > 1:
                return 2
            if first >= 0 and (first != lo or last != hi):
                return 2
            first, last = lo, hi
        elif seq[sid, CURSOR] != 0:
            return 2
        if seq[sid, CURSOR] != 0 and count != seq[sid, CHUNK]:
            return 2
        tokens += count
    ctl[BAD] = -1
    if tokens > ctl[MAX_STEP_TOKENS]:
        return 3
    ctl[LEFT] = max(1, out[REPEAT]) if ctl[COMPRESS] else 1
    ctl[FRESH_PLAN] = 1
    if out[N_WORK] == 0 and (out[DECODE_FLAG] == 0 or e.grp[avail, G_N] == 0):
        ctl[LEFT] = 0
        # evictions, rejections and changes of pins are progress: ask again at once; otherwise wait for something to happen
        ctl[FRESH_PLAN] = 1 if out[N_EVICT] + out[N_REJECT] + out[N_PIN_CHANGES] == 0 else 0
        rejoin_paused(e)
        return 0
    return allocate(e, works)


@njit(cache=True, _nrt=False)
def allocate(e, at):
    """Take the KV blocks of the next step: the standing set's first, then each work item's. 0, or 4."""
    ctl, seq, own, out = e.ctl, e.seq, e.own, e.out
    for _ in range(out[N_WORK]):
        sid = out[at]
        if own[sid, LOADING] > 0:
            if own[sid, LOADING] > ctl[FREE]:
                ctl[BAD] = sid
                return 4
            load(e, sid)
        more = blocks_for(e, max(out[at + 2], seq[sid, COMPUTED] + out[at + 1])) - seq[sid, BLOCKS]
        at += WORK_SIZE
        if more > 0:
            if more > ctl[FREE]:
                ctl[BAD] = sid
                return 4
            if ctl[CACHING]:
                grow(e, sid, seq[sid, BLOCKS] + more)
            else:
                seq[sid, BLOCKS] += more
                ctl[FREE] -= more
    if out[DECODE_FLAG]:
        g = ctl[AVAIL]
        need = e.bucket[g, e.grp[g, G_AT]]
        if need > ctl[FREE]:
            ctl[BAD] = -1
            return 4
    return 0


@njit(cache=True, _nrt=False)
def rejoin_paused(e):
    for i in range(e.ctl[N_PAUSED]):
        join(e, e.ctl[AVAIL], e.paused[i])
    e.ctl[N_PAUSED] = 0


@njit(cache=True, forceinline=True, _nrt=False)
def works_at(out):
    return HEADER + out[N_EVICT] + out[N_REJECT] + out[N_PAUSE]
