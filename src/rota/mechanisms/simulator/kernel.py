"""The simulated engine (compiled): it checks a plan, carries it out, and advances time until it needs the next one.

`plans.apply` takes the plan in ``out``; `advance` runs until a decision is due. A plan that repeats is executed without asking again;
a stretch of decode-only steps, whose times form an arithmetic series, is crossed in one jump (`steps`).
"""

from __future__ import annotations

import math

from numba import types

from rota.contracts.columns import (
    BLOCK_SIZE,
    BLOCKS,
    COMPUTED,
    DECODE_NEED,
    FREE,
    IDLE_HITS,
    IN_FLIGHT,
    INTS,
    KNOWN,
    MAX_NEW,
    MAX_SEQS,
    MAX_STEP_TOKENS,
    N_DECODE,
    N_PREFILL,
    N_RUNNING,
    N_WAITING,
    NEXT,
    PHASE,
    PROMPT,
    REUSABLE,
    RUN_HEAD,
    STAGES,
    TWIN,
    WAIT_HEAD,
)
from rota.contracts.serving import (
    DECODE,
    H_BLOCKS,
    H_COMPUTED,
    H_KNOWN,
    H_MAX_NEW,
    H_PHASE,
    H_PROMPT,
    H_SID,
    PREFILL,
)  # fmt: skip
from rota.jit import njit
from rota.mechanisms.simulator.blocks import look_up, new_claim, unclaimed
from rota.mechanisms.simulator.decodes import member, settle
from rota.mechanisms.simulator.pipeline import complete, launch, next_completion, prefill_available
from rota.mechanisms.simulator.plans import apply, release_ghosts
from rota.mechanisms.simulator.reference import state_ref_type
from rota.mechanisms.simulator.requests import deliver, next_arrival
from rota.mechanisms.simulator.state import (
    AVAIL,
    BUDGET,
    CACHING,
    FLAGS,
    FRESH_PLAN,
    G_AT,
    G_HEAP,
    G_N,
    GHOSTS,
    HITS,
    IDLE,
    LEFT,
    LOG_ON,
    LOG_ROWS,
    N_PINS,
    N_REL,
    NEXT_EVENT,
    NOW,
    UNTIL,
    WAKE_AT,
    WATCH,
)
from rota.mechanisms.simulator.steps import execute, still_holds

NEED_PLAN, REACHED, ALL_DONE, STUCK, LOG_FULL, PAUSED = range(6)
#: `resume` returns this plus the number of the broken rule.
RULE = 100


@njit(cache=True, _nrt=False)
def settle_all(e):
    """Bring the columns of all members of the standing set up to date."""
    g = e.ctl[AVAIL]
    for i in range(e.grp[g, G_HEAP]):
        settle(e, g, member(e.heap[g, i]))


@njit(cache=True, _nrt=False)
def held_table(e):
    """Fill in `rota.contracts.serving.EngineView.held`. How many rows it has."""
    settle_all(e)
    seq, table = e.seq, e.running
    n = 0
    sid = e.ctl[RUN_HEAD]
    while sid >= 0:
        if seq[sid, PHASE] == PREFILL or seq[sid, PHASE] == DECODE:
            table[n, H_SID] = sid
            table[n, H_PROMPT] = seq[sid, PROMPT]
            table[n, H_KNOWN] = seq[sid, KNOWN]
            table[n, H_COMPUTED] = seq[sid, COMPUTED]
            table[n, H_MAX_NEW] = seq[sid, MAX_NEW]
            table[n, H_BLOCKS] = seq[sid, BLOCKS]
            table[n, H_PHASE] = seq[sid, PHASE]
            n += 1
        sid = seq[sid, NEXT]
    return n


@njit(cache=True, _nrt=False)
def _refresh_reusable(e):
    """Fill in REUSABLE and IDLE_HITS of the sequences at the head of the queue that one step could admit."""
    size = e.ctl[BLOCK_SIZE]
    sid = e.ctl[WAIT_HEAD]
    before = -1
    claim = 0
    seats = e.ctl[MAX_SEQS] - e.ctl[N_RUNNING]
    tokens = e.ctl[MAX_STEP_TOKENS] - e.ctl[N_DECODE]
    free = max(0, e.ctl[FREE] - e.ctl[DECODE_NEED])
    while sid >= 0 and seats > 0 and tokens > 0 and free >= 0:
        look_up(e, sid)
        hits, idle = e.own[sid, HITS], e.own[sid, IDLE]
        if before >= 0:
            if claim == 0:
                claim = new_claim(e)
                unclaimed(e, before, claim, True)
            idle = unclaimed(e, sid, claim, True)
        e.seq[sid, REUSABLE] = hits * size
        e.seq[sid, IDLE_HITS] = idle
        tokens -= e.seq[sid, KNOWN] - hits * size
        free -= (e.seq[sid, KNOWN] + size - 1) // size - hits + idle
        seats -= 1
        before = sid
        sid = e.seq[sid, NEXT]


@njit(cache=True, forceinline=True, _nrt=False)
def _prepare_view(e):
    ctl = e.ctl
    g = ctl[AVAIL]
    ctl[N_DECODE] = e.grp[g, G_N]
    ctl[DECODE_NEED] = e.bucket[g, e.grp[g, G_AT]]
    # rows must be up to date wherever the next step could be short of blocks
    chunks = ctl[MAX_STEP_TOKENS] // ctl[BLOCK_SIZE] + ctl[N_PREFILL] if ctl[N_PREFILL] > 0 else 0
    if ctl[FREE] - ctl[DECODE_NEED] <= 1 + chunks:
        settle_all(e)
    if ctl[CACHING] and ctl[N_WAITING] > 0:
        if ctl[BUDGET] > 0:  # columns that only a twin reads
            _refresh_reusable(e)
        elif ctl[N_WAITING] == 1:  # whom the policy will ask for
            look_up(e, ctl[WAIT_HEAD])


@njit(cache=True, _nrt=False)
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
            if ctl[FRESH_PLAN] or still_holds(e, ctl[FLAGS]):
                ctl[FRESH_PLAN] = 0
                execute(e)
            else:
                ctl[LEFT] = 0
            continue
        if ctl[GHOSTS] > 0 and e.grp[ctl[AVAIL], G_N] == 0 and ctl[N_PREFILL] == 0:
            release_ghosts(e)
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


@njit(cache=True, _nrt=False)
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
        slot = next_completion(e)
        done_at = e.lane_end[slot]
        if done_at <= flt[NOW]:
            complete(e, slot)
            continue
        if ctl[LEFT] > 0:
            ctl[FRESH_PLAN] = 0
            launch(e)
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
            if ctl[N_WAITING] > 0 or e.grp[ctl[AVAIL], G_N] > 0 or prefill_available(e):
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
