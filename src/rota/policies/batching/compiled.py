"""Compiled pieces that the twins of several policies share: writing a plan, and the eviction loop of `recompute`."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from rota.contracts.columns import (
    ARRIVED,
    BLOCK_SIZE,
    BLOCKS,
    COMPUTED,
    DECODE_FLAG,
    FLIGHT,
    FREE,
    HEADER,
    HEADROOM,
    N_EVICT,
    N_PAUSE,
    N_REJECT,
    N_RUNNING,
    N_WORK,
    NEXT,
    PADDED,
    PHASE,
    PNEXT,
    PRE_HEAD,
    REPEAT,
    RUN_HEAD,
    STAGES,
    TWIN,
    WAKE,
    WORK_SIZE,
    Twin,
)
from rota.contracts.serving import ARRIVAL, DECODE, FINISH, PREFILL
from rota.jit import njit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@cache
def compile_twin(function: Twin) -> Twin:
    """The function as machine code; compiled when first asked for, so that listing policies costs nothing."""
    compiled: Twin = njit(TWIN, cache=True)(function)
    return compiled


@njit(cache=True, forceinline=True)
def begin_plan(out: Ints, decode: int, repeat: int, wake: int, headroom: int) -> None:
    """A plan without work, evictions, rejections or pauses."""
    out[DECODE_FLAG] = decode
    out[REPEAT] = repeat
    out[WAKE] = wake
    out[HEADROOM] = headroom
    out[PADDED] = 0
    out[N_EVICT] = 0
    out[N_REJECT] = 0
    out[N_PAUSE] = 0
    out[N_WORK] = 0


@njit(cache=True, forceinline=True)
def put_work(out: Ints, at: int, sid: int, tokens: int, reserve_to: int) -> int:
    """Append a work item over all layers at `at`; returns where the next one goes."""
    out[N_WORK] += 1
    out[at] = sid
    out[at + 1] = tokens
    out[at + 2] = reserve_to
    out[at + 3] = 0
    out[at + 4] = 0
    return at + WORK_SIZE


@njit(cache=True, forceinline=True)
def reject_only(out: Ints, sid: int) -> None:
    """A plan that takes no time: reject, and be asked again."""
    begin_plan(out, 0, 1, ARRIVAL | FINISH, 0)
    out[N_REJECT] = 1
    out[HEADER] = sid


@njit(cache=True)
def later(tim: Floats, a: int, b: int) -> bool:
    """Whether `a` comes after `b` in order of arrival."""
    return bool(tim[a, ARRIVED] > tim[b, ARRIVED] or (tim[a, ARRIVED] == tim[b, ARRIVED] and a > b))


@njit(cache=True)
def make_room(seq: Ints, tim: Floats, ctl: Ints, out: Ints) -> tuple[int, int]:
    """`recompute.make_room` on columns: writes the evictions into a begun plan; returns (decodes, free)."""
    order = np.empty(ctl[N_RUNNING], np.int64)
    end = 0
    sid = ctl[RUN_HEAD]
    while sid >= 0:
        if seq[sid, FLIGHT] == 0 and (seq[sid, PHASE] == DECODE or seq[sid, PHASE] == PREFILL):
            at = end
            while at > 0 and later(tim, order[at - 1], sid):
                order[at] = order[at - 1]
                at -= 1
            order[at] = sid
            end += 1
        sid = seq[sid, NEXT]
    free = ctl[FREE]
    decodes = 0
    at = 0
    while at < end:
        sid = order[at]
        at += 1
        if seq[sid, PHASE] != DECODE:
            continue
        served = True
        while free < 1:
            served = at < end
            victim = sid
            if served:
                end -= 1
                victim = order[end]
            free += seq[victim, BLOCKS]
            out[HEADER + out[N_EVICT]] = victim
            out[N_EVICT] += 1
            if not served:
                break
        if served:
            decodes += 1
            if seq[sid, COMPUTED] == seq[sid, BLOCKS] * ctl[BLOCK_SIZE]:
                free -= 1
    return decodes, free


@njit(cache=True, forceinline=True)
def is_evicted(out: Ints, sid: int) -> bool:
    """Whether the plan evicts a sequence."""
    found = False
    for i in range(out[N_EVICT]):
        found = found or out[HEADER + i] == sid
    return found


@njit(cache=True)
def next_prefill(seq: Ints, tim: Floats, ctl: Ints, previous: int) -> int:
    """The unfinished prompt, not in flight, that comes after `previous` (-1: the first) in order of arrival, or -1.

    That is the order of admission, unless pipeline stages let a sequence be evicted ahead of later ones in flight.
    """
    sid: int = ctl[PRE_HEAD]
    if ctl[STAGES] == 1:
        if previous >= 0:
            sid = seq[previous, PNEXT]
        while sid >= 0 and seq[sid, FLIGHT] != 0:
            sid = seq[sid, PNEXT]
        return sid
    best = -1
    while sid >= 0:
        if seq[sid, FLIGHT] == 0 and (previous < 0 or later(tim, sid, previous)) and (best < 0 or later(tim, best, sid)):
            best = sid
        sid = seq[sid, PNEXT]
    return best
