"""The lists that thread a simulated engine's sequences (compiled): the waiting queue, the running list, the unfinished prompts."""

from __future__ import annotations

from rota.contracts.columns import (
    ARRIVED,
    N_PREFILL,
    N_RUNNING,
    N_WAITING,
    NEXT,
    PHASE,
    PNEXT,
    PPREV,
    PRE_HEAD,
    PREV,
    RUN_HEAD,
    RUN_TAIL,
    WAIT_HEAD,
)
from rota.contracts.serving import WAITING
from rota.jit import njit
from rota.mechanisms.simulator.state import LEVEL, LEVELS, PRE_TAIL, WAIT_TAIL


@njit(cache=True, forceinline=True, _nrt=False)
def _insert_waiting(e, sid, after):
    """Link `sid` into the queue behind `after` (-1: at the head)."""
    ctl, seq = e.ctl, e.seq
    before = seq[after, NEXT] if after >= 0 else ctl[WAIT_HEAD]
    seq[sid, PREV] = after
    seq[sid, NEXT] = before
    if after >= 0:
        seq[after, NEXT] = sid
    else:
        ctl[WAIT_HEAD] = sid
    if before >= 0:
        seq[before, PREV] = sid
    else:
        ctl[WAIT_TAIL] = sid
    seq[sid, PHASE] = WAITING
    ctl[N_WAITING] += 1


@njit(cache=True, _nrt=False)
def _level_tail(e, level):
    """Last waiting sequence of this priority level or a more urgent one, or -1."""
    while level >= 0:
        if e.level_tail[level] >= 0:
            return e.level_tail[level]
        level -= 1
    return -1


@njit(cache=True, forceinline=True, _nrt=False)
def enqueue(e, sid, evicted):
    """Put an arrival or an evicted sequence where the queue's order wants it."""
    if e.ctl[LEVELS] == 0:
        _insert_waiting(e, sid, -1 if evicted else e.ctl[WAIT_TAIL])
        return
    level = e.own[sid, LEVEL]
    if evicted:
        after = _level_tail(e, level - 1)
        at = e.seq[after, NEXT] if after >= 0 else e.ctl[WAIT_HEAD]
        while (
            at >= 0
            and e.own[at, LEVEL] == level
            and (e.tim[at, ARRIVED] < e.tim[sid, ARRIVED] or (e.tim[at, ARRIVED] == e.tim[sid, ARRIVED] and at < sid))
        ):
            after = at
            at = e.seq[at, NEXT]
        if at < 0 or e.own[at, LEVEL] != level:
            e.level_tail[level] = sid
    else:
        after = _level_tail(e, level)
        e.level_tail[level] = sid
    _insert_waiting(e, sid, after)


@njit(cache=True, forceinline=True, _nrt=False)
def unlink_waiting(e, sid):
    ctl, seq = e.ctl, e.seq
    before, after = seq[sid, PREV], seq[sid, NEXT]
    if ctl[LEVELS] > 0 and e.level_tail[e.own[sid, LEVEL]] == sid:
        same = before >= 0 and e.own[before, LEVEL] == e.own[sid, LEVEL]
        e.level_tail[e.own[sid, LEVEL]] = before if same else -1
    if before >= 0:
        seq[before, NEXT] = after
    else:
        ctl[WAIT_HEAD] = after
    if after >= 0:
        seq[after, PREV] = before
    else:
        ctl[WAIT_TAIL] = before
    ctl[N_WAITING] -= 1


@njit(cache=True, forceinline=True, _nrt=False)
def link_running(e, sid):
    ctl, seq = e.ctl, e.seq
    tail = ctl[RUN_TAIL]
    seq[sid, PREV] = tail
    seq[sid, NEXT] = -1
    if tail >= 0:
        seq[tail, NEXT] = sid
    else:
        ctl[RUN_HEAD] = sid
    ctl[RUN_TAIL] = sid
    ctl[N_RUNNING] += 1
    tail = ctl[PRE_TAIL]
    seq[sid, PPREV] = tail
    seq[sid, PNEXT] = -1
    if tail >= 0:
        seq[tail, PNEXT] = sid
    else:
        ctl[PRE_HEAD] = sid
    ctl[PRE_TAIL] = sid
    ctl[N_PREFILL] += 1


@njit(cache=True, forceinline=True, _nrt=False)
def unlink_running(e, sid):
    ctl, seq = e.ctl, e.seq
    before, after = seq[sid, PREV], seq[sid, NEXT]
    if before >= 0:
        seq[before, NEXT] = after
    else:
        ctl[RUN_HEAD] = after
    if after >= 0:
        seq[after, PREV] = before
    else:
        ctl[RUN_TAIL] = before
    ctl[N_RUNNING] -= 1


@njit(cache=True, forceinline=True, _nrt=False)
def unlink_prefill(e, sid):
    ctl, seq = e.ctl, e.seq
    before, after = seq[sid, PPREV], seq[sid, PNEXT]
    if before >= 0:
        seq[before, PNEXT] = after
    else:
        ctl[PRE_HEAD] = after
    if after >= 0:
        seq[after, PPREV] = before
    else:
        ctl[PRE_TAIL] = before
    ctl[N_PREFILL] -= 1
