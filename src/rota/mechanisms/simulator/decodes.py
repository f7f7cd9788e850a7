"""The standing decode set (compiled): a group of sequences that each take one token per step, without being touched.

A group counts its own steps. What a member has gained since it joined follows from that count, so a step costs the same for 5 members
as for 500. Three structures answer what changes: a heap of the step at which members finish, a ring of buckets that says how many members need
a new KV block at each step, and a stack of decreasing token gaps from which a leaving member reads its largest.
With pipeline parallelism a group travels with the step that runs it, and joins the standing set again when that step is done.
"""

from __future__ import annotations

import math

from rota.contracts.columns import (
    BLOCK_SIZE,
    BLOCKS,
    COMPUTED,
    KNOWN,
    LAST_TOKEN,
    MAX_TBT,
    PHASE,
    PROMPT,
)
from rota.contracts.serving import DECODE
from rota.jit import njit
from rota.mechanisms.simulator.state import (
    B_NEXT,
    B_PREV,
    BUCKET,
    CACHING,
    FRESH,
    G_AT,
    G_BUCKETED,
    G_CONTEXT,
    G_FRESH,
    G_HEAP,
    G_N,
    G_SHARED,
    G_STACK,
    G_STEP,
    JOIN,
    OUTPUT,
    SID_BITS,
    SLOT,
)
from rota.results.run import TBT_BINS, TBT_MIN, TBT_STEP

_LOG_STEP = math.log(TBT_STEP)
_LOG_MIN = math.log(TBT_MIN)


@njit(cache=True, forceinline=True, _nrt=False)
def gap_bin(gap):
    """Histogram bin of a token gap."""
    if gap <= TBT_MIN:
        return 0
    return min(TBT_BINS - 1, int((math.log(gap) - _LOG_MIN) / _LOG_STEP))


@njit(cache=True, forceinline=True, _nrt=False)
def member(entry):
    """The sequence of a heap entry."""
    return entry & ((1 << SID_BITS) - 1)


@njit(cache=True, forceinline=True, _nrt=False)
def due(entry):
    """The step of a heap entry: there the member finishes, or begins to need blocks."""
    return entry >> SID_BITS


@njit(cache=True, forceinline=True, _nrt=False)
def _push(e, g, entry):
    at = e.grp[g, G_HEAP]
    e.grp[g, G_HEAP] = at + 1
    while at > 0:
        up = (at - 1) >> 1
        other = e.heap[g, up]
        if other < entry:
            break
        e.heap[g, at] = other
        at = up
    e.heap[g, at] = entry


@njit(cache=True, _nrt=False)
def _pop(e, g):
    """Take the first entry out of the heap."""
    size = e.grp[g, G_HEAP] - 1
    e.grp[g, G_HEAP] = size
    entry = e.heap[g, size]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        low = e.heap[g, child]
        if child + 1 < size and e.heap[g, child + 1] < low:
            child += 1
            low = e.heap[g, child]
        if low > entry:
            break
        e.heap[g, at] = low
        at = child
    e.heap[g, at] = entry


@njit(cache=True, _nrt=False)
def _drop(e, g, sid):
    """Take a member out of the heap: mostly the first; another is searched for and made the first."""
    if member(e.heap[g, 0]) != sid:
        at = 1
        while member(e.heap[g, at]) != sid:
            at += 1
        while at > 0:
            up = (at - 1) >> 1
            e.heap[g, at] = e.heap[g, up]
            at = up
    _pop(e, g)


@njit(cache=True, forceinline=True, _nrt=False)
def turn(e, g):
    """The group takes a step."""
    e.grp[g, G_STEP] += 1
    at = e.grp[g, G_AT] + 1
    e.grp[g, G_AT] = at if at < e.ctl[BLOCK_SIZE] else 0


@njit(cache=True, _nrt=False)
def _enter_bucket(e, g, sid, at):
    e.own[sid, BUCKET] = at
    e.bucket[g, at] += 1
    e.grp[g, G_BUCKETED] += 1
    if e.ctl[CACHING]:
        tail = e.bucket_tail[g, at]
        e.own[sid, B_NEXT] = -1
        e.own[sid, B_PREV] = tail
        if tail >= 0:
            e.own[tail, B_NEXT] = sid
        else:
            e.bucket_head[g, at] = sid
        e.bucket_tail[g, at] = sid


@njit(cache=True, _nrt=False)
def _leave_bucket(e, g, sid):
    at = e.own[sid, BUCKET]
    e.own[sid, BUCKET] = -1
    e.bucket[g, at] -= 1
    e.grp[g, G_BUCKETED] -= 1
    if e.ctl[CACHING]:
        before, after = e.own[sid, B_PREV], e.own[sid, B_NEXT]
        if before >= 0:
            e.own[before, B_NEXT] = after
        else:
            e.bucket_head[g, at] = after
        if after >= 0:
            e.own[after, B_PREV] = before
        else:
            e.bucket_tail[g, at] = before


@njit(cache=True, forceinline=True, _nrt=False)
def schedule(e, g, sid):
    """Place a member, whose columns are up to date, into the heap and the buckets."""
    step = e.grp[g, G_STEP]
    size = e.ctl[BLOCK_SIZE]
    left = e.seq[sid, PROMPT] + e.own[sid, OUTPUT] - e.seq[sid, KNOWN]
    room = e.seq[sid, BLOCKS] * size - e.seq[sid, COMPUTED]
    e.own[sid, JOIN] = step
    when = step + left
    if room < size:
        at = e.grp[g, G_AT] + room
        _enter_bucket(e, g, sid, at - size if at >= size else at)
    elif room < left:
        when = step + room - room % size
    _push(e, g, when << SID_BITS | sid)


@njit(cache=True, forceinline=True, _nrt=False)
def count_reader(e, g, sid, by):
    """With shared attention: a member begins (1) or ceases (-1) to read the blocks of its prompt; G_SHARED is what others read for it."""
    if e.readers.shape[1] == 0:
        return
    size = e.ctl[BLOCK_SIZE]
    slot = e.own[sid, SLOT]
    twice = 0
    for i in range(e.seq[sid, PROMPT] // size):
        b = e.held[slot, i]
        if by < 0:
            e.readers[g, b] -= 1
        if e.readers[g, b] > 0:
            twice += size
        if by > 0:
            e.readers[g, b] += 1
    e.grp[g, G_SHARED] += by * twice


@njit(cache=True, _nrt=False)
def join(e, g, sid):
    """A sequence whose prompt is complete (or that was paused) becomes a member; its last token came at LAST_TOKEN."""
    last = e.tim[sid, LAST_TOKEN]
    if e.grp[g, G_N] == 0:
        e.last[g] = last
        e.grp[g, G_STACK] = 0
    e.seq[sid, PHASE] = DECODE
    e.grp[g, G_N] += 1
    e.grp[g, G_CONTEXT] += e.seq[sid, KNOWN]
    count_reader(e, g, sid, 1)
    schedule(e, g, sid)
    if last != e.last[g]:
        e.own[sid, FRESH] = 1
        e.fresh[g, e.grp[g, G_FRESH]] = sid
        e.grp[g, G_FRESH] += 1


@njit(cache=True, _nrt=False)
def _largest_gap_since(e, g, step):
    """Largest gap among the group's steps after number `step`."""
    low, high = 0, e.grp[g, G_STACK]
    while low < high:
        mid = (low + high) >> 1
        if e.stack_step[g, mid] > step:
            high = mid
        else:
            low = mid + 1
    return e.stack_gap[g, low] if low < e.grp[g, G_STACK] else 0.0


@njit(cache=True, forceinline=True, _nrt=False)
def record_gap(e, g, gap):
    """Remember that the steps up to the group's present one had gaps of at most `gap`."""
    top = e.grp[g, G_STACK]
    while top > 0 and e.stack_gap[g, top - 1] <= gap:
        top -= 1
    if top == e.stack_gap.shape[1]:
        top = _compact(e, g, top)
    e.stack_step[g, top] = e.grp[g, G_STEP]
    e.stack_gap[g, top] = gap
    e.grp[g, G_STACK] = top + 1


@njit(cache=True, _nrt=False)
def _compact(e, g, top):
    """Forget entries that no member's join can ask for: at most one per member remains."""
    for i in range(top):
        e.stack_gap[g, i] = -e.stack_gap[g, i]
    for m in range(e.grp[g, G_HEAP]):
        step = e.own[member(e.heap[g, m]), JOIN]
        low, high = 0, top
        while low < high:
            mid = (low + high) >> 1
            if e.stack_step[g, mid] > step:
                high = mid
            else:
                low = mid + 1
        if low < top:
            e.stack_gap[g, low] = abs(e.stack_gap[g, low])
    kept = 0
    for i in range(top):
        if e.stack_gap[g, i] > 0.0:
            e.stack_gap[g, kept] = e.stack_gap[g, i]
            e.stack_step[g, kept] = e.stack_step[g, i]
            kept += 1
    return kept


@njit(cache=True, forceinline=True, _nrt=False)
def settle(e, g, sid):
    """Bring a member's own columns up to date with the group's step count."""
    gained = e.grp[g, G_STEP] - e.own[sid, JOIN]
    if e.own[sid, FRESH] == 0:
        e.tim[sid, LAST_TOKEN] = e.last[g]
    if gained > 0:
        e.seq[sid, KNOWN] += gained
        e.seq[sid, COMPUTED] += gained
        size = e.ctl[BLOCK_SIZE]
        e.seq[sid, BLOCKS] = max(e.seq[sid, BLOCKS], (e.seq[sid, COMPUTED] + size - 1) // size)
        largest = _largest_gap_since(e, g, e.own[sid, JOIN])
        if largest > e.tim[sid, MAX_TBT]:
            e.tim[sid, MAX_TBT] = largest
        e.own[sid, JOIN] = e.grp[g, G_STEP]


@njit(cache=True, _nrt=False)
def leave(e, g, sid):
    """Take a member out, its columns up to date."""
    settle(e, g, sid)
    _drop(e, g, sid)
    if e.own[sid, BUCKET] >= 0:
        _leave_bucket(e, g, sid)
    e.grp[g, G_N] -= 1
    e.grp[g, G_CONTEXT] -= e.seq[sid, KNOWN]
    count_reader(e, g, sid, -1)
    if e.own[sid, FRESH]:
        e.own[sid, FRESH] = 0
        n = e.grp[g, G_FRESH]
        for i in range(n):
            if e.fresh[g, i] == sid:
                e.fresh[g, i] = e.fresh[g, n - 1]
                break
        e.grp[g, G_FRESH] = n - 1


@njit(cache=True, _nrt=False)
def steps_within(first, slope, most, seconds):
    """Fewest steps, 1 to `most`, of the series first, first + slope, ... that together last at least `seconds`."""
    if slope == 0.0:
        estimate = seconds / first
    else:
        b = first - 0.5 * slope
        estimate = (math.sqrt(b * b + 2.0 * slope * seconds) - b) / slope
    m = most if estimate >= most else max(1, math.ceil(estimate))
    while m > 1 and series(first, slope, m - 1) >= seconds:
        m -= 1
    while m < most and series(first, slope, m) < seconds:
        m += 1
    return m


@njit(cache=True, forceinline=True, _nrt=False)
def series(first, slope, m):
    """Sum of the first m terms."""
    return m * first + slope * (0.5 * m * (m - 1))


@njit(cache=True, _nrt=False)
def count_gaps(hist, first, slope, m, n):
    """Count the gaps of `n` sequences over `m` steps of an arithmetic series."""
    low = gap_bin(first)
    high = gap_bin(first + slope * (m - 1)) if slope > 0.0 else low
    if low == high:
        hist[low] += n * m
    elif high - low >= m:
        for i in range(m):
            hist[gap_bin(first + slope * i)] += n
    else:
        done = 0
        for b in range(low, high):
            edge = math.exp(_LOG_MIN + (b + 1) * _LOG_STEP)
            upto = min(m, max(done, math.ceil((edge - first) / slope)))
            hist[b] += n * (upto - done)
            done = upto
        hist[high] += n * (m - done)


@njit(cache=True, _nrt=False)
def steps_with_memory(e, g, free, headroom, most):
    """Steps, 1 to `most`, after each of which the next still leaves `headroom` blocks; the first is taken as checked."""
    size = e.ctl[BLOCK_SIZE]
    members = e.grp[g, G_BUCKETED]
    if free - members * (most // size + 2) >= headroom:
        return most
    at = e.grp[g, G_AT]
    if members * (most // size + 2) > free and free > 2 * members + headroom:
        # skip whole turns of the ring, of which each takes one block per member
        turns = (free - headroom) // members - 2
        if turns > 0 and turns * size < most:
            skipped = turns * size
            left = free - turns * members
        else:
            skipped = 0
            left = free
    else:
        skipped = 0
        left = free
    k = skipped  # whole turns
    while True:
        left -= e.bucket[g, at]
        k += 1
        at = at + 1 if at + 1 < size else 0
        if k >= most or left - e.bucket[g, at] < headroom:
            return k
