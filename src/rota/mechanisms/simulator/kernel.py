"""The simulated engine (compiled): it checks a plan, carries it out, and advances time until it needs the next one.

`apply` takes the plan in ``out``; `advance` runs until a decision is due. A plan that repeats is executed without asking again; a stretch of
decode-only steps, whose times form an arithmetic series, is crossed in one jump.
"""

from __future__ import annotations

import math

from numba import njit, types

from rota.contracts.columns import (
    ARRIVED,
    BLOCK_SIZE,
    BLOCKS,
    CHUNK,
    COMPUTED,
    CURSOR,
    DECODE_FLAG,
    DECODE_NEED,
    FINISHED_AT,
    FIRST_SCHEDULED,
    FIRST_TOKEN,
    FLIGHT,
    FREE,
    HEADER,
    HEADROOM,
    IDLE_HITS,
    IN_FLIGHT,
    INTS,
    KNOWN,
    LAST_TOKEN,
    MAX_SEQS,
    MAX_STEP_TOKENS,
    MAX_TBT,
    N_DECODE,
    N_EVICT,
    N_LAYERS,
    N_PAUSE,
    N_PREFILL,
    N_REJECT,
    N_RUNNING,
    N_UNPIN,
    N_WAITING,
    N_WORK,
    NEXT,
    PADDED,
    PHASE,
    PNEXT,
    PPREV,
    PRE_HEAD,
    PREEMPTIONS,
    PREV,
    PROMPT,
    REPEAT,
    REUSABLE,
    RUN_HEAD,
    RUN_TAIL,
    STAGES,
    TOTAL_BLOCKS,
    TWIN,
    WAIT_HEAD,
    WAKE,
    WORK_SIZE,
)
from rota.contracts.serving import ARRIVAL, DECODE, FINISH, FINISHED, PREFILL, REJECTED, WAITING
from rota.cost.kernel import (
    CPU,
    CPU_SEQ,
    KV_SCALE,
    LAUNCH,
    SEND,
    SEND_TOKEN,
    decode_attention,
    decode_segment,
    lookup,
    noise_factor,
    prefill_attention,
)
from rota.mechanisms.simulator.blocks import commit, grow, hold_prefix, lookup_prefix, release
from rota.mechanisms.simulator.decodes import (
    count_gaps,
    gap_bin,
    join,
    leave,
    record_gap,
    schedule,
    series,
    settle,
    steps_with_memory,
    steps_within,
)
from rota.mechanisms.simulator.reference import state_ref_type
from rota.mechanisms.simulator.state import (
    A_AREA,
    A_BUSY,
    A_CONTEXT,
    A_DECODE,
    A_EXPERT,
    A_PASSES,
    A_PCONTEXT,
    A_PREFILL,
    A_STEPS,
    ADMISSIONS,
    ADMITTED,
    AVAIL,
    B_NEXT,
    BAD,
    BUDGET,
    CACHED,
    CACHING,
    CHILD,
    COMPRESS,
    DONE,
    EVENTS,
    FLAGS,
    FOLLOWS,
    FRESH,
    FRESH_PLAN,
    G_CONTEXT,
    G_FRESH,
    G_HEAP,
    G_N,
    G_STEP,
    GHOST_CONTEXT,
    GHOSTS,
    IN_HEAD,
    IN_TAIL,
    JOIN,
    KEY,
    L_ACTIVE,
    L_GROUP,
    L_WORK,
    LAST_FINISHED,
    LEFT,
    LEVEL,
    LEVELS,
    LOG_ON,
    LOG_ROWS,
    MARK,
    N_ARRIVED,
    N_ENDING,
    N_FINISHED,
    N_PAUSED,
    N_PINS,
    N_REL,
    NEXT_EVENT,
    NOW,
    OUTPUT,
    PEAK,
    PLANS,
    PRE_TAIL,
    RECOMPUTED,
    SERIAL,
    SIBLING,
    STEPS,
    TAKE_REL,
    TL_BINS,
    TL_COLUMNS,
    TL_WIDTH,
    UNTIL,
    WAIT_TAIL,
    WAKE_AT,
    WATCH,
)

NEED_PLAN, REACHED, ALL_DONE, STUCK, LOG_FULL, PAUSED = range(6)
#: `resume` returns this plus the number of the broken rule.
RULE = 100


# ---- queues ------------------------------------------------------------------------------------------------------------------------


@njit(cache=True)
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


@njit(cache=True)
def _level_tail(e, level):
    """Last waiting sequence of this priority level or a more urgent one, or -1."""
    while level >= 0:
        if e.level_tail[level] >= 0:
            return e.level_tail[level]
        level -= 1
    return -1


@njit(cache=True)
def enqueue(e, sid, evicted):
    """Put an arrival or an evicted sequence where the queue's order wants it."""
    if e.ctl[LEVELS] == 0:
        _insert_waiting(e, sid, -1 if evicted else e.ctl[WAIT_TAIL])
        return
    level = e.own[sid, LEVEL]
    if evicted:
        after = _level_tail(e, level - 1)
        at = e.seq[after, NEXT] if after >= 0 else e.ctl[WAIT_HEAD]
        while at >= 0 and e.own[at, LEVEL] == level and (
            e.tim[at, ARRIVED] < e.tim[sid, ARRIVED] or (e.tim[at, ARRIVED] == e.tim[sid, ARRIVED] and at < sid)
        ):
            after = at
            at = e.seq[at, NEXT]
        if at < 0 or e.own[at, LEVEL] != level:
            e.level_tail[level] = sid
    else:
        after = _level_tail(e, level)
        e.level_tail[level] = sid
    _insert_waiting(e, sid, after)


@njit(cache=True)
def _unlink_waiting(e, sid):
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


@njit(cache=True)
def _link_running(e, sid):
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


@njit(cache=True)
def _unlink_running(e, sid):
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


@njit(cache=True)
def _unlink_prefill(e, sid):
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


# ---- arrivals and ends -------------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _release_earlier(e, a, b):
    return e.tim[a, ARRIVED] < e.tim[b, ARRIVED] or (e.tim[a, ARRIVED] == e.tim[b, ARRIVED] and a < b)


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True, forceinline=True)
def next_arrival(e):
    """Time of the next arrival that the engine has not taken in, or infinity."""
    at = math.inf
    if e.ctl[IN_HEAD] < e.ctl[IN_TAIL]:
        at = e.tim[e.inbox[e.ctl[IN_HEAD]], ARRIVED]
    if e.ctl[TAKE_REL] and e.ctl[N_REL] > 0:
        at = min(at, e.tim[e.rel[0], ARRIVED])
    return at


@njit(cache=True)
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


@njit(cache=True)
def _end(e, sid, now):
    """The request is over (finished or rejected): release those that wait for it."""
    e.ctl[DONE] += 1
    if e.delay.size == 0:
        return
    child = e.own[sid, CHILD]
    while child >= 0:
        e.tim[child, ARRIVED] = now + e.delay[child]
        push_release(e, child)
        child = e.own[child, SIBLING]


@njit(cache=True)
def _free_blocks(e, sid):
    if e.ctl[CACHING]:
        commit(e, sid, e.seq[sid, COMPUTED], e.seq[sid, PHASE] != FINISHED)
        release(e, sid)
    else:
        e.ctl[FREE] += e.seq[sid, BLOCKS]
    e.seq[sid, BLOCKS] = 0


@njit(cache=True)
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
        _unlink_running(e, sid)
        if e.ctl[CACHING]:
            e.ending[e.ctl[N_ENDING]] = sid
            e.ctl[N_ENDING] += 1
        else:
            _free_blocks(e, sid)
    _end(e, sid, now)


@njit(cache=True)
def _free_ended(e):
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
        _free_blocks(e, e.ending[i])
    e.ctl[N_ENDING] = 0


@njit(cache=True)
def evict(e, sid):
    """Drop a sequence's KV and put it back into the queue; its generated tokens stay known."""
    if e.seq[sid, PHASE] == DECODE:
        leave(e, e.ctl[AVAIL], sid)
    else:
        _unlink_prefill(e, sid)
    _unlink_running(e, sid)
    e.own[sid, RECOMPUTED] += e.seq[sid, COMPUTED]
    _free_blocks(e, sid)
    e.seq[sid, COMPUTED] = 0
    e.seq[sid, CURSOR] = 0
    e.seq[sid, CHUNK] = 0
    e.seq[sid, PREEMPTIONS] += 1
    enqueue(e, sid, True)


# ---- plans -------------------------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _release_ghosts(e):
    """The padded batch is over: its finished rows give up their seats and blocks."""
    for i in range(e.ctl[GHOSTS]):
        _unlink_running(e, e.ghosts[i])
        _free_blocks(e, e.ghosts[i])
    e.ctl[GHOSTS] = 0
    e.ctl[GHOST_CONTEXT] = 0


@njit(cache=True)
def _blocks_for(e, tokens):
    size = e.ctl[BLOCK_SIZE]
    return (tokens + size - 1) // size


@njit(cache=True)
def apply(e):
    """Check the plan in `out` and change queues and blocks as it says. 0, or the number of the broken rule (BAD holds the sequence)."""
    ctl, seq, own, out = e.ctl, e.seq, e.own, e.out
    now = e.flt[NOW]
    ctl[PLANS] += 1
    ctl[SERIAL] += 1
    serial = ctl[SERIAL]
    n = seq.shape[0]
    if ctl[GHOSTS] > 0 and out[PADDED] == 0:
        _release_ghosts(e)
    at = HEADER
    for _ in range(out[N_EVICT]):
        sid = out[at]
        at += 1
        ctl[BAD] = sid
        if sid < 0 or sid >= n or (seq[sid, PHASE] != PREFILL and seq[sid, PHASE] != DECODE) or seq[sid, FLIGHT] != 0:
            return 7
        evict(e, sid)
        own[sid, MARK] = serial
    for _ in range(out[N_REJECT]):
        sid = out[at]
        at += 1
        ctl[BAD] = sid
        if sid < 0 or sid >= n or seq[sid, PHASE] != WAITING:
            return 7
        _unlink_waiting(e, sid)
        seq[sid, PHASE] = REJECTED
        _end(e, sid, now)
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
            _unlink_waiting(e, sid)
            _link_running(e, sid)
            seq[sid, PHASE] = PREFILL
            own[sid, ADMITTED] = ctl[ADMISSIONS]
            ctl[ADMISSIONS] += 1
            seq[sid, BLOCKS] = 0
            seq[sid, COMPUTED] = 0
            if ctl[CACHING]:
                hold_prefix(e, sid)
                own[sid, CACHED] = seq[sid, COMPUTED]
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
        # evictions, rejections and released pins are progress: ask again at once; otherwise wait for something to happen
        ctl[FRESH_PLAN] = 1 if out[N_EVICT] + out[N_REJECT] + out[N_UNPIN] == 0 else 0
        _rejoin_paused(e)
        return 0
    return _allocate(e, works)


@njit(cache=True)
def _allocate(e, at):
    """Take the KV blocks of the next step: the standing set's first, then each work item's. 0, or 4."""
    ctl, seq, out = e.ctl, e.seq, e.out
    for _ in range(out[N_WORK]):
        sid = out[at]
        more = _blocks_for(e, max(out[at + 2], seq[sid, COMPUTED] + out[at + 1])) - seq[sid, BLOCKS]
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
        need = e.bucket[g, e.grp[g, G_STEP] % ctl[BLOCK_SIZE]]
        if need > ctl[FREE]:
            ctl[BAD] = -1
            return 4
    return 0


@njit(cache=True)
def _rejoin_paused(e):
    for i in range(e.ctl[N_PAUSED]):
        join(e, e.ctl[AVAIL], e.paused[i])
    e.ctl[N_PAUSED] = 0


# ---- steps -------------------------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _take_decode_blocks(e, g):
    """Blocks that the group's next step needs; with a prefix cache also those it fills."""
    size = e.ctl[BLOCK_SIZE]
    at = e.grp[g, G_STEP] % size
    if e.ctl[CACHING]:
        sid = e.bucket_head[g, at]
        while sid >= 0:
            grow(e, sid, e.seq[sid, BLOCKS] + 1)
            sid = e.own[sid, B_NEXT]
    else:
        e.ctl[FREE] -= e.bucket[g, at]


@njit(cache=True)
def _commit_filled(e, g):
    """After a step: members whose next token needs a new block have filled their last one."""
    sid = e.bucket_head[g, e.grp[g, G_STEP] % e.ctl[BLOCK_SIZE]]
    while sid >= 0:
        commit(e, sid, e.seq[sid, BLOCKS] * e.ctl[BLOCK_SIZE], False)
        sid = e.own[sid, B_NEXT]


@njit(cache=True)
def _finish_due(e, g, now, padded):
    """End the members whose last token was emitted; place those anew that begin to need blocks. Returns how many ended."""
    ended = 0
    step = e.grp[g, G_STEP]
    while e.grp[g, G_HEAP] > 0 and e.own[e.heap[g, 0], KEY] <= step:
        sid = e.heap[g, 0]
        leave(e, g, sid)
        if e.seq[sid, KNOWN] == e.seq[sid, PROMPT] + e.own[sid, OUTPUT]:
            finish(e, sid, now, padded)
            ended += 1
        else:
            e.grp[g, G_N] += 1
            e.grp[g, G_CONTEXT] += e.seq[sid, KNOWN]
            schedule(e, g, sid)
    return ended


@njit(cache=True)
def _emit_group(e, g, now):
    """Every member of the group has taken one token, at `now`."""
    n = e.grp[g, G_N]
    fresh = e.grp[g, G_FRESH]
    e.grp[g, G_STEP] += 1
    e.grp[g, G_CONTEXT] += n
    gap = now - e.last[g]
    if n > fresh:
        e.hist[gap_bin(gap)] += n - fresh
        record_gap(e, g, gap)
    size = e.ctl[BLOCK_SIZE]
    for i in range(fresh):
        sid = e.fresh[g, i]
        own_gap = now - e.tim[sid, LAST_TOKEN]
        e.hist[gap_bin(own_gap)] += 1
        e.tim[sid, MAX_TBT] = max(e.tim[sid, MAX_TBT], own_gap)
        e.seq[sid, KNOWN] += 1
        e.seq[sid, COMPUTED] += 1
        e.seq[sid, BLOCKS] = max(e.seq[sid, BLOCKS], (e.seq[sid, COMPUTED] + size - 1) // size)
        e.own[sid, JOIN] = e.grp[g, G_STEP]
        e.own[sid, FRESH] = 0
    e.grp[g, G_FRESH] = 0
    e.last[g] = now


@njit(cache=True)
def _advance_work(e, sid, count, lo, hi, now, padded):
    """A work item's step is done. Returns 1 if the prompt is complete, 2 if the request is."""
    seq = e.seq
    if hi > 0 and hi < e.ctl[N_LAYERS]:
        seq[sid, CURSOR] = hi
        seq[sid, CHUNK] = count
        return 0
    seq[sid, CURSOR] = 0
    seq[sid, CHUNK] = 0
    seq[sid, COMPUTED] += count
    if e.ctl[CACHING]:
        commit(e, sid, seq[sid, COMPUTED], False)
    if seq[sid, COMPUTED] < seq[sid, KNOWN]:
        return 0
    _unlink_prefill(e, sid)
    seq[sid, KNOWN] += 1
    if math.isnan(e.tim[sid, FIRST_TOKEN]):
        e.tim[sid, FIRST_TOKEN] = now
    else:
        gap = now - e.tim[sid, LAST_TOKEN]
        e.hist[gap_bin(gap)] += 1
        e.tim[sid, MAX_TBT] = max(e.tim[sid, MAX_TBT], gap)
    e.tim[sid, LAST_TOKEN] = now
    if seq[sid, KNOWN] == seq[sid, PROMPT] + e.own[sid, OUTPUT]:
        finish(e, sid, now, padded)
        return 2
    join(e, e.ctl[AVAIL], sid)
    return 1


@njit(cache=True)
def _note(e, start, end, decodes, tokens, steps):
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


@njit(cache=True)
def _device_seconds(e, rows, context, works):
    """(layers, head, prompt tokens, sequences) of the step in `out`: seconds of all layers and of the output head; accumulates totals."""
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
        past_sum += (past + scale - 1) // scale * scale
        at += WORK_SIZE
    decode_s = decode_attention(cp, e.decode_table, rows, context)
    prefill_s = prefill_attention(cp, e.prefill_table, e.prefill_long, m, tokens, area, pcontext, squares, past_sum)
    span = hi - lo if m > 0 else 0
    seconds = span * (lookup(e.layer, rows + tokens) + decode_s + prefill_s)
    if span < layers:
        seconds += (layers - span) * (lookup(e.layer, rows) + decode_s)
    part = span / layers
    acc[A_STEPS] += 1
    acc[A_DECODE] += rows
    acc[A_PREFILL] += tokens * part
    acc[A_CONTEXT] += context
    acc[A_AREA] += area * part
    acc[A_PCONTEXT] += pcontext * part
    acc[A_EXPERT] += span * lookup(e.expert, rows + tokens) + (layers - span) * lookup(e.expert, rows)
    acc[A_PASSES] += layers if rows > 0 else span
    return seconds, lookup(e.head, emitted), tokens, rows + m


@njit(cache=True)
def _works_at(out):
    return HEADER + out[N_EVICT] + out[N_REJECT] + out[N_PAUSE]


@njit(cache=True)
def _one_step(e):
    """Run one step (no pipeline). Returns flags: 1 a request ended, 2 a prompt was completed."""
    ctl, out, cp = e.ctl, e.out, e.cp
    g = ctl[AVAIL]
    works = _works_at(out)
    decode = out[DECODE_FLAG] != 0
    padded = out[PADDED] != 0
    ghosts = ctl[GHOSTS] if decode else 0
    rows = (e.grp[g, G_N] if decode else 0) + ghosts
    context = (e.grp[g, G_CONTEXT] if decode else 0) + (ctl[GHOST_CONTEXT] if decode else 0)
    layers_s, head_s, tokens, seqs = _device_seconds(e, rows, context, works)
    start = e.flt[NOW]
    dt = max(layers_s + head_s, cp[LAUNCH]) * noise_factor(cp, ctl[STEPS]) + cp[CPU] + cp[CPU_SEQ] * seqs
    now = start + dt
    ctl[STEPS] += 1
    e.acc[A_BUSY] += dt
    if decode and rows > ghosts:
        _take_decode_blocks(e, g)
    _note(e, start, now, rows, tokens, 1)
    e.flt[NOW] = now
    ended = 0
    if decode:
        ctl[GHOST_CONTEXT] += ghosts
        if rows > ghosts:
            _emit_group(e, g, now)
            if ctl[CACHING]:
                _commit_filled(e, g)
            ended = _finish_due(e, g, now, padded)
    completed = 0
    at = works
    for _ in range(out[N_WORK]):
        r = _advance_work(e, out[at], out[at + 1], out[at + 3], out[at + 4], now, padded)
        if r > 0:
            completed += 1
        if r == 2:
            ended += 1
        at += WORK_SIZE
    if ctl[N_PAUSED] > 0:
        _rejoin_paused(e)
    if ctl[N_ENDING] > 0:
        _free_ended(e)
    ctl[LAST_FINISHED] = ended
    return (1 if ended > 0 else 0) | (2 if completed > 0 else 0)


@njit(cache=True)
def _stretch(e, limit):
    """Cross decode-only steps until something happens, at most to the first step that ends at or after `limit`. Flags as `_one_step`."""
    ctl, out, cp, acc = e.ctl, e.out, e.cp, e.acc
    g = ctl[AVAIL]
    members = e.grp[g, G_N]
    rows = members + ctl[GHOSTS]
    step = e.grp[g, G_STEP]
    most = min(ctl[LEFT], e.own[e.heap[g, 0], KEY] - step)
    most = steps_with_memory(e, g, ctl[FREE], out[HEADROOM], most)
    start = e.flt[NOW]
    now = start
    done = 0
    context = e.grp[g, G_CONTEXT] + ctl[GHOST_CONTEXT]
    longest = 0.0
    while done < most and now < limit:
        first, slope, length = decode_segment(cp, e.layer, e.head, e.decode_table, rows, context, ctl[STEPS])
        m = min(length, most - done)
        if now + series(first, slope, m) > limit:
            m = steps_within(first, slope, m, limit - now)
        count_gaps(e.hist, first, slope, m, members)
        longest = max(longest, first + slope * (m - 1))
        now += series(first, slope, m)
        acc[A_CONTEXT] += m * float(context) + rows * (0.5 * m * (m - 1))
        context += m * rows
        done += m
        ctl[STEPS] += m
    acc[A_BUSY] += now - start
    acc[A_STEPS] += done
    acc[A_DECODE] += float(rows) * done
    acc[A_EXPERT] += done * ctl[N_LAYERS] * lookup(e.expert, rows)
    acc[A_PASSES] += done * ctl[N_LAYERS]
    _note(e, start, now, rows, 0, done)
    size = ctl[BLOCK_SIZE]
    if ctl[CACHING]:
        for _ in range(done):
            _take_decode_blocks(e, g)
            e.grp[g, G_STEP] += 1
            _commit_filled(e, g)
    else:
        turns = done // size
        used = turns * e.grp[g, 6]
        for i in range(turns * size, done):
            used += e.bucket[g, (step + i) % size]
        ctl[FREE] -= used
        e.grp[g, G_STEP] += done
    e.grp[g, G_CONTEXT] += members * done
    ctl[GHOST_CONTEXT] += ctl[GHOSTS] * done
    record_gap(e, g, longest)
    e.last[g] = now
    e.flt[NOW] = now
    ctl[LEFT] -= done - 1
    ended = _finish_due(e, g, now, out[PADDED] != 0)
    if ctl[N_ENDING] > 0:
        _free_ended(e)
    ctl[LAST_FINISHED] = ended
    return 1 if ended > 0 else 0


@njit(cache=True)
def _still_holds(e, flags):
    """Whether the plan may run again as it is (its work is then allocated)."""
    ctl, seq, out = e.ctl, e.seq, e.out
    if ctl[LEFT] <= 0 or flags & 2 or out[N_PAUSE] > 0:
        return False
    if flags & 1 and out[WAKE] & FINISH:
        return False
    if out[WAKE] & ARRIVAL and next_arrival(e) <= e.flt[NOW]:
        return False
    if e.flt[WAKE_AT] <= e.flt[NOW]:
        return False
    g = ctl[AVAIL]
    if out[DECODE_FLAG]:
        if e.grp[g, G_N] == 0 and out[N_WORK] == 0:
            return False
        if ctl[FREE] - e.bucket[g, e.grp[g, G_STEP] % ctl[BLOCK_SIZE]] < out[HEADROOM]:
            return False
    if out[N_WORK] == 0:
        return ctl[FREE] >= e.bucket[g, e.grp[g, G_STEP] % ctl[BLOCK_SIZE]]
    at = _works_at(out)
    need = e.bucket[g, e.grp[g, G_STEP] % ctl[BLOCK_SIZE]] if out[DECODE_FLAG] else 0
    for _ in range(out[N_WORK]):
        sid = out[at]
        if out[at + 4] > 0 or seq[sid, KNOWN] - seq[sid, COMPUTED] < out[at + 1]:
            return False
        need += max(0, _blocks_for(e, max(out[at + 2], seq[sid, COMPUTED] + out[at + 1])) - seq[sid, BLOCKS])
        at += WORK_SIZE
    if ctl[FREE] - need < 0:
        return False
    return _allocate(e, _works_at(out)) == 0


@njit(cache=True)
def _execute(e):
    """Run the standing plan once: a step or a stretch."""
    ctl, out = e.ctl, e.out
    g = ctl[AVAIL]
    if (
        out[N_WORK] == 0 and ctl[N_PAUSED] == 0 and e.grp[g, G_FRESH] == 0 and e.last[g] == e.flt[NOW]
        and ctl[LEFT] > 1 and e.grp[g, G_N] > 0 and e.flt[WAKE_AT] > e.flt[NOW]
    ):  # fmt: skip
        limit = e.flt[UNTIL]
        if out[WAKE] & ARRIVAL:
            limit = min(limit, next_arrival(e))
        if limit <= e.flt[NOW]:  # a rejection has released a request at this very instant
            ctl[LEFT] = 0
            return
        flags = _stretch(e, min(limit, e.flt[WAKE_AT]))
    else:
        flags = _one_step(e)
    ctl[LEFT] -= 1
    ctl[FLAGS] = flags


# ---- pipeline ----------------------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _launch(e):
    """Start the plan's step on the first pipeline stage; its group and work travel with it."""
    ctl, out, cp = e.ctl, e.out, e.cp
    slot = 0
    while e.lane[slot, L_ACTIVE]:
        slot += 1
    works = _works_at(out)
    g = ctl[AVAIL]
    decode = out[DECODE_FLAG] != 0 and e.grp[g, G_N] > 0
    rows = e.grp[g, G_N] if decode else 0
    context = e.grp[g, G_CONTEXT] if decode else 0
    layers_s, head_s, tokens, seqs = _device_seconds(e, rows, context, works)
    pp = ctl[STAGES]
    host = cp[CPU] + cp[CPU_SEQ] * seqs
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
        _take_decode_blocks(e, g)
        e.lane[slot, L_GROUP] = g
        for i in range(e.grp[g, G_HEAP]):
            e.seq[e.heap[g, i], FLIGHT] = 1
        ctl[AVAIL] = _idle_group(e)
    e.lane[slot, L_WORK] = out[N_WORK]
    w = works
    for i in range(out[N_WORK]):
        for c in range(WORK_SIZE):
            e.lane_work[slot, i, c] = out[w + c]
        e.seq[out[w], FLIGHT] = 1
        w += WORK_SIZE
    ctl[IN_FLIGHT] += 1
    _note(e, start, e.stage_free[0], rows, tokens, 1)
    if ctl[N_PAUSED] > 0:
        _rejoin_paused(e)
    ctl[LEFT] = 0


@njit(cache=True)
def _idle_group(e):
    """An empty group; groups in flight never are, and there is one more group than steps in flight."""
    g = 0
    while e.grp[g, G_N] > 0:
        g += 1
    return g


@njit(cache=True)
def _complete(e, slot):
    """A step has left the last stage: its sequences emit and become available again."""
    ctl = e.ctl
    now = e.lane_end[slot]
    ended = 0
    g = e.lane[slot, L_GROUP]
    e.lane[slot, L_ACTIVE] = 0
    e.lane_end[slot] = math.inf
    ctl[IN_FLIGHT] -= 1
    if g >= 0:
        _emit_group(e, g, now)
        if ctl[CACHING]:
            _commit_filled(e, g)
        ended = _finish_due(e, g, now, False)
        for i in range(e.grp[g, G_HEAP]):
            e.seq[e.heap[g, i], FLIGHT] = 0
        other = ctl[AVAIL]
        if e.grp[other, G_N] == 0:
            ctl[AVAIL] = g
        else:
            if e.grp[g, G_N] > e.grp[other, G_N]:
                g, other = other, g
                ctl[AVAIL] = other
            while e.grp[g, G_HEAP] > 0:
                sid = e.heap[g, 0]
                leave(e, g, sid)
                join(e, other, sid)
    for i in range(e.lane[slot, L_WORK]):
        sid = e.lane_work[slot, i, 0]
        e.seq[sid, FLIGHT] = 0
        if _advance_work(e, sid, e.lane_work[slot, i, 1], e.lane_work[slot, i, 3], e.lane_work[slot, i, 4], now, False) == 2:
            ended += 1
    if ctl[N_ENDING] > 0:
        _free_ended(e)
    ctl[LAST_FINISHED] = ended


@njit(cache=True)
def _next_completion(e):
    slot = 0
    for s in range(1, e.lane_end.size):
        if e.lane_end[s] < e.lane_end[slot]:
            slot = s
    return slot


# ---- the loop ----------------------------------------------------------------------------------------------------------------------


@njit(cache=True)
def settle_all(e):
    """Bring the columns of all members of the standing set up to date."""
    g = e.ctl[AVAIL]
    for i in range(e.grp[g, G_HEAP]):
        settle(e, g, e.heap[g, i])


@njit(cache=True)
def _refresh_reusable(e):
    """Fill in REUSABLE and IDLE_HITS of the sequences at the head of the queue that one step could admit."""
    sid = e.ctl[WAIT_HEAD]
    seats = e.ctl[MAX_SEQS] - e.ctl[N_RUNNING]
    tokens = e.ctl[MAX_STEP_TOKENS] - e.ctl[N_DECODE]
    while sid >= 0 and seats > 0 and tokens > 0:
        hits, idle = lookup_prefix(e, sid)
        e.seq[sid, REUSABLE] = hits * e.ctl[BLOCK_SIZE]
        e.seq[sid, IDLE_HITS] = idle
        tokens -= e.seq[sid, KNOWN] - e.seq[sid, REUSABLE]
        seats -= 1
        sid = e.seq[sid, NEXT]


@njit(cache=True)
def _prepare_view(e):
    ctl = e.ctl
    g = ctl[AVAIL]
    ctl[N_DECODE] = e.grp[g, G_N]
    ctl[DECODE_NEED] = e.bucket[g, e.grp[g, G_STEP] % ctl[BLOCK_SIZE]]
    # rows must be up to date wherever the next step could be short of blocks
    chunks = ctl[MAX_STEP_TOKENS] // ctl[BLOCK_SIZE] + ctl[N_PREFILL] if ctl[N_PREFILL] > 0 else 0
    if ctl[FREE] - ctl[DECODE_NEED] <= 1 + chunks:
        settle_all(e)
    if ctl[CACHING] and ctl[N_WAITING] > 0:
        _refresh_reusable(e)


@njit(cache=True)
def advance(e):
    """Run until a plan is needed (NEED_PLAN), all is done, nothing can ever happen (STUCK), or time reaches UNTIL (REACHED).

    Then NEXT_EVENT says when this engine, left alone, will act again.
    """
    ctl, flt = e.ctl, e.flt
    if ctl[STAGES] > 1:
        return _advance_pipeline(e)
    until = flt[UNTIL]
    while True:
        flt[NEXT_EVENT] = flt[NOW]
        if 0 < ctl[WATCH] <= ctl[N_REL]:
            return REACHED
        if ctl[LOG_ON] and ctl[LOG_ROWS] >= e.log.shape[0] - 1:
            return LOG_FULL
        if ctl[LEFT] > 0:
            if flt[NOW] >= until:
                return REACHED
            if ctl[FRESH_PLAN] or _still_holds(e, ctl[FLAGS]):
                ctl[FRESH_PLAN] = 0
                _execute(e)
            else:
                ctl[LEFT] = 0
            continue
        if ctl[GHOSTS] > 0 and e.grp[ctl[AVAIL], G_N] == 0 and ctl[N_PREFILL] == 0:
            _release_ghosts(e)
        target = flt[NOW]
        if ctl[FRESH_PLAN]:
            target = min(next_arrival(e), flt[WAKE_AT])
            if target == math.inf and until == math.inf:
                return STUCK if ctl[N_WAITING] + ctl[N_RUNNING] > 0 else ALL_DONE
        elif ctl[N_WAITING] == 0 and ctl[N_RUNNING] == 0:
            target = next_arrival(e)
            if target == math.inf and until == math.inf:
                if ctl[N_PINS] == 0:
                    return ALL_DONE
                target = flt[NOW]
        if target >= until:
            flt[NEXT_EVENT] = target
            return REACHED
        flt[NOW] = max(flt[NOW], target)
        ctl[FRESH_PLAN] = 0
        flt[WAKE_AT] = math.inf
        deliver(e)
        _prepare_view(e)
        return NEED_PLAN


@njit(cache=True)
def _advance_pipeline(e):
    """`advance` with pipeline stages: plans start when the first stage is free and fewer steps than stages are in flight."""
    ctl, flt = e.ctl, e.flt
    until = flt[UNTIL]
    while True:
        flt[NEXT_EVENT] = flt[NOW]
        if 0 < ctl[WATCH] <= ctl[N_REL]:
            return REACHED
        if ctl[LOG_ON] and ctl[LOG_ROWS] >= e.log.shape[0] - 1:
            return LOG_FULL
        slot = _next_completion(e)
        done_at = e.lane_end[slot]
        if done_at <= flt[NOW]:
            _complete(e, slot)
            continue
        if ctl[LEFT] > 0:
            ctl[FRESH_PLAN] = 0
            _launch(e)
            continue
        if ctl[FRESH_PLAN]:
            target = min(min(done_at, next_arrival(e)), flt[WAKE_AT])
            if target == math.inf and until == math.inf:
                return STUCK if ctl[N_WAITING] + ctl[N_RUNNING] > 0 else ALL_DONE
        elif ctl[IN_FLIGHT] >= ctl[STAGES]:
            target = done_at
        elif e.stage_free[0] > flt[NOW]:
            target = min(done_at, e.stage_free[0])
        else:
            if flt[NOW] >= until:
                return REACHED
            deliver(e)
            if ctl[N_WAITING] > 0 or e.grp[ctl[AVAIL], G_N] > 0 or _prefill_available(e):
                _prepare_view(e)
                return NEED_PLAN
            target = min(done_at, next_arrival(e))
            if target == math.inf and until == math.inf:
                if ctl[N_PINS] == 0:
                    return ALL_DONE
                _prepare_view(e)
                return NEED_PLAN
        if target >= until:
            flt[NEXT_EVENT] = target
            return REACHED
        flt[NOW] = target
        ctl[FRESH_PLAN] = 0
        flt[WAKE_AT] = math.inf


@njit(cache=True)
def _prefill_available(e):
    """Whether an unfinished prompt is not in flight."""
    sid = e.ctl[PRE_HEAD]
    while sid >= 0:
        if e.seq[sid, FLIGHT] == 0:
            return True
        sid = e.seq[sid, PNEXT]
    return False


@njit(types.UniTuple(types.int64, 2)(types.FunctionType(TWIN), INTS, state_ref_type), cache=True)
def run_twin(twin, par, e):
    """`advance` and `apply` in turn with a compiled policy. (status, rule): PAUSED after BUDGET plans, so that Python can look up."""
    budget = e.ctl[BUDGET]
    while True:
        status = advance(e)
        if status != NEED_PLAN:
            return status, 0
        twin(e.seq, e.tim, e.ctl, par, e.out)
        rule = apply(e)
        if rule != 0:
            return status, rule
        budget -= 1
        if budget <= 0:
            return PAUSED, 0


@njit(cache=True)
def resume(e):
    """`apply` the plan in `out`, then `advance`; one call from Python per decision."""
    rule = apply(e)
    if rule != 0:
        return RULE + rule
    return advance(e)
