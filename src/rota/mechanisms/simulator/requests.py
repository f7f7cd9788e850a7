"""How requests come and go in a simulated engine (compiled): arrivals, also dependent ones, finishes and evictions."""

from __future__ import annotations

import math

from rota.contracts.columns import (
    ARRIVED,
    BLOCK_SIZE,
    BLOCKS,
    CHUNK,
    COMPUTED,
    CURSOR,
    FINISHED_AT,
    FREE,
    KNOWN,
    PHASE,
    PREEMPTIONS,
)
from rota.contracts.serving import DECODE, FINISHED
from rota.jit import njit
from rota.mechanisms.simulator.blocks import commit, release
from rota.mechanisms.simulator.decodes import leave
from rota.mechanisms.simulator.queues import enqueue, unlink_prefill, unlink_running
from rota.mechanisms.simulator.state import (
    ADMITTED,
    AVAIL,
    CACHING,
    CHILD,
    DONE,
    EVICTIONS,
    FOLLOWS,
    GHOST_CONTEXT,
    GHOSTS,
    H_LOADED,
    HOST_BLOCKS,
    HOST_FREE,
    IN_HEAD,
    IN_TAIL,
    N_ARRIVED,
    N_ENDING,
    N_FINISHED,
    N_REL,
    NOW,
    RECOMPUTED,
    RELOAD,
    SIBLING,
    SWAP_BLOCK,
    SWAPPED_OUT,
    TAKE_REL,
)


@njit(cache=True, _nrt=False)
def _release_earlier(e, a, b):
    return e.tim[a, ARRIVED] < e.tim[b, ARRIVED] or (e.tim[a, ARRIVED] == e.tim[b, ARRIVED] and a < b)


@njit(cache=True, _nrt=False)
def push_release(e, sid):
    """A dependent request becomes due at ARRIVED: into the heap of releases."""
    at = e.ctl[N_REL]
    e.ctl[N_REL] += 1
    while at > 0:
        up = (at - 1) >> 1
        if not _release_earlier(e, sid, e.rel[up]):
            break
        e.rel[at] = e.rel[up]
        at = up
    e.rel[at] = sid


@njit(cache=True, _nrt=False)
def pop_release(e):
    """The earliest due dependent request."""
    first = e.rel[0]
    e.ctl[N_REL] -= 1
    size = e.ctl[N_REL]
    if size > 0:
        sid = e.rel[size]
        at = 0
        while True:
            child = 2 * at + 1
            if child >= size:
                break
            if child + 1 < size and _release_earlier(e, e.rel[child + 1], e.rel[child]):
                child += 1
            if not _release_earlier(e, e.rel[child], sid):
                break
            e.rel[at] = e.rel[child]
            at = child
        e.rel[at] = sid
    return first


@njit(cache=True, forceinline=True, _nrt=False)
def next_arrival(e):
    """Time of the next arrival that the engine has not taken in, or infinity."""
    at = math.inf
    if e.ctl[IN_HEAD] < e.ctl[IN_TAIL]:
        at = e.tim[e.inbox[e.ctl[IN_HEAD]], ARRIVED]
    if e.ctl[TAKE_REL] and e.ctl[N_REL] > 0:
        at = min(at, e.tim[e.rel[0], ARRIVED])
    return at


@njit(cache=True, forceinline=True, _nrt=False)
def deliver(e):
    """Put everything that has arrived by now into the queue, in order of arrival (requests of the trace first on a tie)."""
    ctl = e.ctl
    now = e.flt[NOW]
    while True:
        static = e.tim[e.inbox[ctl[IN_HEAD]], ARRIVED] if ctl[IN_HEAD] < ctl[IN_TAIL] else math.inf
        dynamic = e.tim[e.rel[0], ARRIVED] if ctl[TAKE_REL] and ctl[N_REL] > 0 else math.inf
        if static <= now and static <= dynamic:
            sid = e.inbox[ctl[IN_HEAD]]
            ctl[IN_HEAD] += 1
        elif dynamic <= now:
            sid = pop_release(e)
        else:
            return
        enqueue(e, sid, False)
        if ctl[FOLLOWS]:
            e.arrived[ctl[N_ARRIVED]] = sid
            ctl[N_ARRIVED] += 1


@njit(cache=True, forceinline=True, _nrt=False)
def end(e, sid, now):
    """The request is over (finished or rejected): release those that wait for it."""
    e.ctl[DONE] += 1
    if e.delay.size == 0:
        return
    child = e.own[sid, CHILD]
    while child >= 0:
        e.tim[child, ARRIVED] = now + e.delay[child]
        push_release(e, child)
        child = e.own[child, SIBLING]


@njit(cache=True, forceinline=True, _nrt=False)
def free_blocks(e, sid):
    if e.ctl[CACHING]:
        commit(e, sid, e.seq[sid, COMPUTED], e.seq[sid, PHASE] != FINISHED)
        release(e, sid)
    else:
        e.ctl[FREE] += e.seq[sid, BLOCKS]
    e.seq[sid, BLOCKS] = 0


@njit(cache=True, _nrt=False)
def finish(e, sid, now, padded):
    """A running sequence, in no group, has emitted its last token."""
    e.tim[sid, FINISHED_AT] = now
    e.seq[sid, PHASE] = FINISHED
    if e.ctl[FOLLOWS]:
        e.finished[e.ctl[N_FINISHED]] = sid
        e.ctl[N_FINISHED] += 1
    if padded:
        e.ghosts[e.ctl[GHOSTS]] = sid
        e.ctl[GHOSTS] += 1
        e.ctl[GHOST_CONTEXT] += e.seq[sid, KNOWN]
    else:
        unlink_running(e, sid)
        if e.ctl[CACHING]:
            e.ending[e.ctl[N_ENDING]] = sid
            e.ctl[N_ENDING] += 1
        else:
            free_blocks(e, sid)
    end(e, sid, now)


@njit(cache=True, _nrt=False)
def free_ended(e):
    """Give back the blocks of those that ended in this step, in order of admission: with a prefix cache the order matters."""
    n = e.ctl[N_ENDING]
    for i in range(1, n):
        sid = e.ending[i]
        at = i
        while at > 0 and e.own[e.ending[at - 1], ADMITTED] > e.own[sid, ADMITTED]:
            e.ending[at] = e.ending[at - 1]
            at -= 1
        e.ending[at] = sid
    for i in range(n):
        free_blocks(e, e.ending[i])
    e.ctl[N_ENDING] = 0


@njit(cache=True, _nrt=False)
def evict(e, sid, keep):
    """Put a sequence back into the queue; its generated tokens stay known, and its KV is dropped or, with `keep`, swapped out.

    Whether there was enough host memory for that.
    """
    if e.seq[sid, PHASE] == DECODE:
        leave(e, e.ctl[AVAIL], sid)
    else:
        unlink_prefill(e, sid)
    unlink_running(e, sid)
    if keep:
        blocks = _blocks(e, e.seq[sid, COMPUTED])
        if blocks > e.ctl[HOST_FREE] or e.ctl[HOST_BLOCKS] == 0:
            return False
        e.ctl[HOST_FREE] -= blocks
        e.ctl[SWAPPED_OUT] += blocks
        e.kept[sid] = e.seq[sid, COMPUTED]
        e.flt[RELOAD] += blocks * e.flt[SWAP_BLOCK]
    else:
        e.own[sid, RECOMPUTED] += e.seq[sid, COMPUTED]
    free_blocks(e, sid)
    e.seq[sid, COMPUTED] = 0
    e.seq[sid, CURSOR] = 0
    e.seq[sid, CHUNK] = 0
    e.seq[sid, PREEMPTIONS] += 1
    e.ctl[EVICTIONS] += 1
    enqueue(e, sid, True)
    return True


@njit(cache=True, forceinline=True, _nrt=False)
def _blocks(e, tokens):
    return (tokens + e.ctl[BLOCK_SIZE] - 1) // e.ctl[BLOCK_SIZE]


@njit(cache=True, _nrt=False)
def forget_kept(e, sid):
    """Give back the host memory of a waiting sequence. How many of its tokens were kept there."""
    if e.ctl[HOST_BLOCKS] == 0:
        return 0
    kept = e.kept[sid]
    e.ctl[HOST_FREE] += _blocks(e, kept)
    e.kept[sid] = 0
    return kept


@njit(cache=True, _nrt=False)
def bring_back(e, sid):
    """An admitted sequence has what was kept of it again, in the blocks that it is about to be given; what it shares is not copied."""
    kept = forget_kept(e, sid)
    if kept > 0:
        copied = max(0, _blocks(e, kept) - e.seq[sid, BLOCKS])
        e.host_ctl[H_LOADED] += copied
        e.flt[RELOAD] += copied * e.flt[SWAP_BLOCK]
        e.seq[sid, COMPUTED] = max(e.seq[sid, COMPUTED], kept)
