"""Steps of a simulated engine (compiled): one at a time, or a stretch of decode-only steps, whose times form an arithmetic series, in one jump."""

from __future__ import annotations

import math

from rota.contracts.columns import (
    BLOCK_SIZE,
    BLOCKS,
    CHUNK,
    COMPUTED,
    CURSOR,
    DECODE_FLAG,
    FIRST_TOKEN,
    FREE,
    HEADROOM,
    KNOWN,
    LAST_TOKEN,
    MAX_TBT,
    N_LAYERS,
    N_PAUSE,
    N_WORK,
    PADDED,
    PROMPT,
    WAKE,
    WORK_SIZE,
)
from rota.contracts.serving import ARRIVAL, FINISH
from rota.cost.kernel import CPU, CPU_SEQ, LAUNCH, decode_segment, lookup, noise_factor
from rota.jit import njit
from rota.mechanisms.simulator.account import device_seconds, note
from rota.mechanisms.simulator.blocks import commit, grow
from rota.mechanisms.simulator.decodes import (
    count_gaps,
    count_reader,
    due,
    gap_bin,
    join,
    leave,
    member,
    record_gap,
    schedule,
    series,
    steps_with_memory,
    steps_within,
    turn,
)
from rota.mechanisms.simulator.plans import allocate, blocks_for, rejoin_paused, works_at
from rota.mechanisms.simulator.queues import unlink_prefill
from rota.mechanisms.simulator.requests import finish, free_ended, next_arrival
from rota.mechanisms.simulator.state import (
    A_BUSY,
    A_CONTEXT,
    A_DECODE,
    A_EXPERT,
    A_PASSES,
    A_SHARED,
    A_STEPS,
    AVAIL,
    B_NEXT,
    CACHING,
    FLAGS,
    FRESH,
    G_AT,
    G_BUCKETED,
    G_CONTEXT,
    G_FRESH,
    G_HEAP,
    G_N,
    G_SHARED,
    G_STEP,
    GHOST_CONTEXT,
    GHOSTS,
    JOIN,
    LAST_FINISHED,
    LEFT,
    N_ENDING,
    N_PAUSED,
    NOW,
    OUTPUT,
    RELOAD,
    STEPS,
    UNTIL,
    WAKE_AT,
)


@njit(cache=True, forceinline=True, _nrt=False)
def take_decode_blocks(e, g):
    """Blocks that the group's next step needs; with a prefix cache also those it fills."""
    at = e.grp[g, G_AT]
    if e.ctl[CACHING]:
        sid = e.bucket_head[g, at]
        while sid >= 0:
            grow(e, sid, e.seq[sid, BLOCKS] + 1)
            sid = e.own[sid, B_NEXT]
    else:
        e.ctl[FREE] -= e.bucket[g, at]


@njit(cache=True, _nrt=False)
def commit_filled(e, g):
    """After a step: members whose next token needs a new block have filled their last one."""
    sid = e.bucket_head[g, e.grp[g, G_AT]]
    while sid >= 0:
        commit(e, sid, e.seq[sid, BLOCKS] * e.ctl[BLOCK_SIZE], False)
        sid = e.own[sid, B_NEXT]


@njit(cache=True, _nrt=False)
def finish_due(e, g, now, padded):
    """End the members whose last token was emitted; place those anew that begin to need blocks. Returns how many ended."""
    ended = 0
    step = e.grp[g, G_STEP]
    while e.grp[g, G_HEAP] > 0 and due(e.heap[g, 0]) <= step:
        sid = member(e.heap[g, 0])
        leave(e, g, sid)
        if e.seq[sid, KNOWN] == e.seq[sid, PROMPT] + e.own[sid, OUTPUT]:
            finish(e, sid, now, padded)
            ended += 1
        else:
            e.grp[g, G_N] += 1
            e.grp[g, G_CONTEXT] += e.seq[sid, KNOWN]
            count_reader(e, g, sid, 1)
            schedule(e, g, sid)
    return ended


@njit(cache=True, forceinline=True, _nrt=False)
def emit_group(e, g, now):
    """Every member of the group has taken one token, at `now`."""
    n = e.grp[g, G_N]
    fresh = e.grp[g, G_FRESH]
    turn(e, g)
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


@njit(cache=True, _nrt=False)
def advance_work(e, sid, count, lo, hi, now, padded):
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
    unlink_prefill(e, sid)
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


@njit(cache=True, forceinline=True, _nrt=False)
def _one_step(e):
    """Run one step (no pipeline). Returns flags: 1 a request ended, 2 a prompt was completed."""
    ctl, out, cp = e.ctl, e.out, e.cp
    g = ctl[AVAIL]
    works = works_at(out)
    decode = out[DECODE_FLAG] != 0
    padded = out[PADDED] != 0
    ghosts = ctl[GHOSTS] if decode else 0
    rows = (e.grp[g, G_N] if decode else 0) + ghosts
    context = (e.grp[g, G_CONTEXT] if decode else 0) + (ctl[GHOST_CONTEXT] if decode else 0)
    layers_s, head_s, tokens, seqs = device_seconds(e, rows, context, e.grp[g, G_SHARED] if decode else 0, works)
    start = e.flt[NOW]
    dt = max(layers_s + head_s, cp[LAUNCH]) * noise_factor(cp, ctl[STEPS]) + cp[CPU] + cp[CPU_SEQ] * seqs
    dt += e.flt[RELOAD]
    e.flt[RELOAD] = 0.0
    now = start + dt
    ctl[STEPS] += 1
    e.acc[A_BUSY] += dt
    if decode and rows > ghosts:
        take_decode_blocks(e, g)
    note(e, start, now, rows, tokens, 1)
    e.flt[NOW] = now
    ended = 0
    if decode:
        ctl[GHOST_CONTEXT] += ghosts
        if rows > ghosts:
            emit_group(e, g, now)
            if ctl[CACHING]:
                commit_filled(e, g)
            ended = finish_due(e, g, now, padded)
    completed = 0
    at = works
    for _ in range(out[N_WORK]):
        r = advance_work(e, out[at], out[at + 1], out[at + 3], out[at + 4], now, padded)
        if r > 0:
            completed += 1
        if r == 2:
            ended += 1
        at += WORK_SIZE
    if ctl[N_PAUSED] > 0:
        rejoin_paused(e)
    if ctl[N_ENDING] > 0:
        free_ended(e)
    ctl[LAST_FINISHED] = ended
    return (1 if ended > 0 else 0) | (2 if completed > 0 else 0)


@njit(cache=True, forceinline=True, _nrt=False)
def _stretch(e, limit):
    """Cross decode-only steps until something happens, at most to the first step that ends at or after `limit`. Flags as `_one_step`."""
    ctl, out, cp, acc = e.ctl, e.out, e.cp, e.acc
    g = ctl[AVAIL]
    members = e.grp[g, G_N]
    rows = members + ctl[GHOSTS]
    step = e.grp[g, G_STEP]
    most = min(ctl[LEFT], due(e.heap[g, 0]) - step)
    most = steps_with_memory(e, g, ctl[FREE], out[HEADROOM], most)
    start = e.flt[NOW]
    now = start
    done = 0
    context = e.grp[g, G_CONTEXT] + ctl[GHOST_CONTEXT]
    shared = e.grp[g, G_SHARED]
    longest = 0.0
    while done < most and now < limit:
        first, slope, length = decode_segment(cp, e.layer, e.head, e.decode_table, rows, context, shared, ctl[STEPS])
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
    acc[A_SHARED] += float(shared) * done
    note(e, start, now, rows, 0, done)
    size = ctl[BLOCK_SIZE]
    if ctl[CACHING]:
        for _ in range(done):
            take_decode_blocks(e, g)
            turn(e, g)
            commit_filled(e, g)
    else:
        turns = done // size
        used = turns * e.grp[g, G_BUCKETED]
        at = e.grp[g, G_AT]
        for _ in range(done - turns * size):
            used += e.bucket[g, at]
            at = at + 1 if at + 1 < size else 0
        ctl[FREE] -= used
        e.grp[g, G_STEP] += done
        e.grp[g, G_AT] = at
    e.grp[g, G_CONTEXT] += members * done
    ctl[GHOST_CONTEXT] += ctl[GHOSTS] * done
    record_gap(e, g, longest)
    e.last[g] = now
    e.flt[NOW] = now
    ctl[LEFT] -= done - 1
    ended = finish_due(e, g, now, out[PADDED] != 0)
    if ctl[N_ENDING] > 0:
        free_ended(e)
    ctl[LAST_FINISHED] = ended
    return 1 if ended > 0 else 0


@njit(cache=True, forceinline=True, _nrt=False)
def still_holds(e, flags):
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
        if ctl[FREE] - e.bucket[g, e.grp[g, G_AT]] < out[HEADROOM]:
            return False
    if out[N_WORK] == 0:
        return ctl[FREE] >= e.bucket[g, e.grp[g, G_AT]]
    at = works_at(out)
    need = e.bucket[g, e.grp[g, G_AT]] if out[DECODE_FLAG] else 0
    for _ in range(out[N_WORK]):
        sid = out[at]
        if out[at + 4] > 0 or seq[sid, KNOWN] - seq[sid, COMPUTED] < out[at + 1]:
            return False
        need += max(0, blocks_for(e, max(out[at + 2], seq[sid, COMPUTED] + out[at + 1])) - seq[sid, BLOCKS])
        at += WORK_SIZE
    if ctl[FREE] - need < 0:
        return False
    return allocate(e, works_at(out)) == 0


@njit(cache=True, forceinline=True, _nrt=False)
def execute(e):
    """Run the standing plan once: a step or a stretch."""
    ctl, out = e.ctl, e.out
    g = ctl[AVAIL]
    if (
        out[N_WORK] == 0 and ctl[N_PAUSED] == 0 and e.grp[g, G_FRESH] == 0 and e.last[g] == e.flt[NOW]
        and ctl[LEFT] > 1 and e.grp[g, G_N] > 0 and e.flt[WAKE_AT] > e.flt[NOW] and e.flt[RELOAD] == 0.0
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
