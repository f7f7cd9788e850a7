"""vLLM v1: one token budget for everything, prefix caching, priorities (vLLM 0.10 V1 scheduler).

No phases: every request gets tokens until what is computed catches up with what is known. Memory is taken per chunk, so a half-done
prompt can be evicted. Nothing is admitted in a step that evicts.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rota.contracts.columns import (
    ARRIVED,
    BLOCK_SIZE,
    BLOCKS,
    COMPUTED,
    DECODE_FLAG,
    DECODE_NEED,
    FLIGHT,
    FREE,
    HEADER,
    IDLE_HITS,
    KNOWN,
    N_DECODE,
    N_EVICT,
    N_PAUSE,
    N_PREFILL,
    N_RUNNING,
    N_WAITING,
    N_WORK,
    NEXT,
    PHASE,
    PNEXT,
    PRE_HEAD,
    PRIORITY,
    REPEAT,
    REUSABLE,
    REUSABLE_ROWS,
    RUN_HEAD,
    TOTAL_BLOCKS,
    TWIN,
    WAIT_HEAD,
    WAKE,
    Twin,
)
from rota.contracts.serving import ALWAYS, ARRIVAL, DECODE, FINISH, EngineView, Limits, SeqView, StepPlan, Work
from rota.errors import InputError
from rota.policies.batching.room import put_work, reject_head, reject_head_compiled, start_plan
from rota.policies.options import budget_covers_seats, whole


class VllmV1:
    """vLLM's present scheduler.

    Parameters
    ----------
    max_num_batched_tokens : int
        Token budget of a step.
    max_num_seqs : int
    enable_prefix_caching : bool
    long_prefill_token_threshold : int
        Most tokens of one prompt in a step; 0 for no limit but the budget.
    scheduling_policy : str
        ``"fcfs"``, or ``"priority"``: by (priority, arrival), smallest first; the largest is evicted.
    """

    name = "vllm-v1"
    requires = frozenset({"chunk", "hybrid"})

    def __init__(self, max_num_batched_tokens: int = 2048, max_num_seqs: int = 256, enable_prefix_caching: bool = True,
                 long_prefill_token_threshold: int = 0, scheduling_policy: str = "fcfs") -> None:  # fmt: skip
        self.max_step_tokens = whole(self.name, "max_num_batched_tokens", max_num_batched_tokens)
        self.max_seqs = whole(self.name, "max_num_seqs", max_num_seqs)
        budget_covers_seats(self.name, self.max_step_tokens, self.max_seqs)
        self._threshold = whole(self.name, "long_prefill_token_threshold", long_prefill_token_threshold, 0) or 1 << 40
        if scheduling_policy not in ("fcfs", "priority"):
            raise InputError(f"{self.name}: scheduling_policy must be fcfs or priority, not {scheduling_policy!r}")
        self.order = scheduling_policy
        self.prefix_caching = bool(enable_prefix_caching)
        extra = {"prefix_cache"} if self.prefix_caching else set()
        self.requires = VllmV1.requires | extra | ({"priority"} if scheduling_policy == "priority" else set())

    def start(self, limits: Limits) -> None:
        self._size = limits.block_size
        self._blocks = limits.blocks

    def plan(self, view: EngineView) -> StepPlan:
        budget = self.max_step_tokens - view.n_decode
        free = view.free_blocks - view.decode_need
        size = self._size
        work: list[Work] = []
        left = 0
        if view.n_prefill:
            for seq in view.prefills:
                left = seq.n_known - seq.n_computed
                tokens = min(left, self._threshold, budget)
                if tokens <= 0:
                    continue
                free -= max(0, -(-(seq.n_computed + tokens) // size) - seq.kv_blocks)
                work.append(Work(seq.sid, tokens))
                budget -= tokens
        if free < 0:
            return self._evict(view)
        running = view.n_running
        stopped = False
        if budget > 0 and view.n_waiting and running < self.max_seqs:
            ledger = view.ledger() if self.prefix_caching else None
            for seq in view.waiting:
                known = seq.n_known
                if -(-known // size) > self._blocks:
                    return StepPlan(tuple(work)) if work else reject_head(view, self._blocks)
                if running >= self.max_seqs:
                    break
                hit = seq.n_reusable if ledger else 0
                tokens = min(known - hit, self._threshold, budget)
                blocks = ledger.need(seq.sid, hit + tokens) if ledger else -(-tokens // size)
                if blocks > free:
                    stopped = True
                    break
                left = known - hit
                work.append(Work(seq.sid, tokens))
                budget -= tokens
                free -= blocks
                running += 1
                if budget <= 0:
                    break
        if work:
            if budget <= 0 and len(work) == 1:
                return StepPlan((work[0],), True, (), (), (), False, max(1, left // work[0].n_tokens), FINISH, 0)
            return StepPlan(tuple(work))
        if stopped and self.prefix_caching:
            return StepPlan()  # what the head could reuse, and so needs, may change with every block taken
        wake = FINISH
        if running < self.max_seqs and budget > 0 and (view.n_waiting == 0 or self.order == "priority"):
            wake = ARRIVAL | (FINISH if view.n_waiting else 0)
        return StepPlan((), True, (), (), (), False, ALWAYS, wake, 0)

    def _evict(self, view: EngineView) -> StepPlan:
        """Memory is short: give blocks in the order of admission, evicting from the other end (or the least urgent)."""
        ledger = view.ledger()
        budget = self.max_step_tokens
        alive = {seq.sid: seq for seq in view.running}
        granted: dict[int, int] = {}
        evict: list[int] = []
        for seq in list(alive.values()):
            if seq.sid not in alive:
                continue
            left = 1 if seq.phase == DECODE else seq.n_known - seq.n_computed
            tokens = min(left, self._threshold, budget)
            if tokens <= 0:
                continue
            served = ledger.reserve(seq.sid, seq.n_computed + tokens)
            while not served:
                victim = self._victim(alive)
                del alive[victim.sid]
                ledger.evict(victim.sid)
                evict.append(victim.sid)
                budget += granted.pop(victim.sid, 0)
                if victim.sid == seq.sid:
                    break
                served = ledger.reserve(seq.sid, seq.n_computed + tokens)
            if not served:
                break
            granted[seq.sid] = tokens
            budget -= tokens
        work = tuple(Work(sid, n) for sid, n in granted.items() if alive[sid].phase != DECODE)
        pause = tuple(sid for sid, seq in alive.items() if seq.phase == DECODE and sid not in granted)
        return StepPlan(work, True, tuple(evict), (), pause)

    def _victim(self, alive: dict[int, SeqView]) -> SeqView:
        if self.order == "priority":
            return max(alive.values(), key=lambda s: (s.priority, s.arrival, s.sid))
        return alive[next(reversed(alive))]

    def twin(self) -> tuple[Twin, NDArray[np.int64]] | None:
        """Compiled `plan`. Evictions that must tell shared blocks from own ones are left to Python: none with a prefix cache."""
        par = [self.max_step_tokens, self.max_seqs, self._threshold, self.prefix_caching, self.order == "priority"]
        return _twin, np.array(par, np.int64)


@njit(cache=True)
def _evict_compiled(seq, tim, ctl, par, out):
    at = start_plan(out, 1, ARRIVAL | FINISH, 0)
    budget, threshold, priority = par[0], par[2], par[4]
    size = ctl[BLOCK_SIZE]
    n = 0
    order = np.empty(ctl[N_RUNNING], np.int64)
    sid = ctl[RUN_HEAD]
    while sid >= 0:
        if seq[sid, FLIGHT] == 0 and seq[sid, PHASE] <= DECODE:
            order[n] = sid
            n += 1
        sid = seq[sid, NEXT]
    granted = np.zeros(n, np.int64)  # tokens; -1 evicted
    taken = np.zeros(n, np.int64)  # blocks taken for them
    free = ctl[FREE]
    for i in range(n):
        sid = order[i]
        if granted[i] < 0:
            continue
        left = 1 if seq[sid, PHASE] == DECODE else seq[sid, KNOWN] - seq[sid, COMPUTED]
        tokens = min(min(left, threshold), budget)
        if tokens <= 0:
            continue
        need = max(0, (seq[sid, COMPUTED] + tokens + size - 1) // size - seq[sid, BLOCKS])
        while need > free:
            victim = -1
            for j in range(n):
                if granted[j] >= 0 and (victim < 0 or not priority or _less_urgent(seq, tim, order[j], order[victim])):
                    victim = j
            free += seq[order[victim], BLOCKS] + taken[victim]
            budget += granted[victim]
            granted[victim] = -1
            out[at] = order[victim]
            at += 1
            out[N_EVICT] += 1
            if victim == i:
                break
        if granted[i] < 0:
            break
        free -= need
        granted[i] = tokens
        taken[i] = need
        budget -= tokens
    for i in range(n):
        if granted[i] == 0 and seq[order[i], PHASE] == DECODE:
            out[at] = order[i]
            at += 1
            out[N_PAUSE] += 1
    for i in range(n):
        if granted[i] > 0 and seq[order[i], PHASE] != DECODE:
            at = put_work(out, at, order[i], granted[i], 0)


@njit(cache=True)
def _less_urgent(seq, tim, a, b):
    if seq[a, PRIORITY] != seq[b, PRIORITY]:
        return seq[a, PRIORITY] > seq[b, PRIORITY]
    if tim[a, ARRIVED] != tim[b, ARRIVED]:
        return tim[a, ARRIVED] > tim[b, ARRIVED]
    return a > b


@njit(TWIN, cache=True)
def _twin(seq, tim, ctl, par, out):
    seats, threshold, caching, priority = par[1], par[2], par[3], par[4]
    at = start_plan(out, 1, ARRIVAL | FINISH, 0)
    size = ctl[BLOCK_SIZE]
    budget = par[0] - ctl[N_DECODE]
    free = ctl[FREE] - ctl[DECODE_NEED]
    left = 0
    tokens = 0
    if ctl[N_PREFILL] > 0:
        sid = ctl[PRE_HEAD]
        while sid >= 0:
            if seq[sid, FLIGHT] == 0:
                left = seq[sid, KNOWN] - seq[sid, COMPUTED]
                count = min(min(left, threshold), budget)
                if count > 0:
                    tokens = count
                    free -= max(0, (seq[sid, COMPUTED] + tokens + size - 1) // size - seq[sid, BLOCKS])
                    at = put_work(out, at, sid, tokens, 0)
                    budget -= tokens
            sid = seq[sid, PNEXT]
    if free < 0:
        _evict_compiled(seq, tim, ctl, par, out)
        return
    running = ctl[N_RUNNING]
    stopped = False
    rows = 0
    if budget > 0 and ctl[N_WAITING] > 0 and running < seats:
        sid = ctl[WAIT_HEAD]
        while sid >= 0 and (rows < REUSABLE_ROWS or not caching):
            known = seq[sid, KNOWN]
            if (known + size - 1) // size > ctl[TOTAL_BLOCKS]:
                if out[N_WORK] == 0:
                    reject_head_compiled(seq, ctl, out, ctl[TOTAL_BLOCKS], 1 << 60)
                return
            if running >= seats:
                break
            hit = seq[sid, REUSABLE] if caching else 0
            count = min(min(known - hit, threshold), budget)
            blocks = (hit + count + size - 1) // size - hit // size + (seq[sid, IDLE_HITS] if caching else 0)
            if blocks > free:
                stopped = True
                break
            tokens = count
            left = known - hit
            at = put_work(out, at, sid, tokens, 0)
            budget -= tokens
            free -= blocks
            running += 1
            rows += 1
            if budget <= 0:
                break
            sid = seq[sid, NEXT]
    if out[N_WORK] > 0:
        if budget <= 0 and out[N_WORK] == 1:
            out[REPEAT] = max(1, left // tokens)
            out[WAKE] = FINISH
    elif not (stopped and caching):
        out[REPEAT] = ALWAYS
        out[WAKE] = FINISH
        if running < seats and budget > 0 and (ctl[N_WAITING] == 0 or priority):
            out[WAKE] = ARRIVAL | (FINISH if ctl[N_WAITING] > 0 else 0)
