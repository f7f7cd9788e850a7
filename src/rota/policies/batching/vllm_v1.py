"""vLLM v1: no phases. Each step hands out one token budget, memory is taken chunk by chunk, prompts begin behind a cached prefix.

Running sequences come first, in order, until what is computed catches up with what is known; then waiting ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rota.contracts.columns import (
    BLOCK_SIZE,
    BLOCKS,
    COMPUTED,
    DECODE_FLAG,
    DECODE_NEED,
    FLIGHT,
    FREE,
    HEADER,
    IDLE_HITS,
    IN_FLIGHT,
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
    RUN_HEAD,
    RUN_TAIL,
    STAGES,
    WAIT_HEAD,
    WAKE,
    Twin,
)
from rota.contracts.serving import ALWAYS, ARRIVAL, DECODE, FINISH, EngineView, Limits, SeqView, StepPlan, Work
from rota.errors import InputError
from rota.jit import njit
from rota.policies.batching.compiled import (
    Floats,
    Ints,
    begin_plan,
    compile_twin,
    is_evicted,
    later,
    put_work,
    reject_only,
)
from rota.policies.batching.policy import Batching, flag, step_tokens, whole

#: In place of a promise: the plan that evicts leaves nothing to run.
NOTHING = -2, 0


class VllmV1(Batching):
    """vLLM's second scheduler.

    A plan that only evicts takes no time, so evictions come one by one: the next call, at the same instant, sees what the last
    one freed, shared blocks and all. Nothing is admitted in a step that evicts; where that leaves nothing to run, the next step begins
    at once, or, with pipeline stages, when one in flight has ended: or else two half-done prompts could evict each other for ever.

    Parameters
    ----------
    enable_prefix_caching : bool
    max_num_batched_tokens : int
        Token budget of a step.
    max_num_seqs : int
        Most sequences held at once.
    long_prefill_token_threshold : int
        Most tokens of one prompt in a step; 0 for no limit but the budget.
    scheduling_policy : {"fcfs", "priority"}
        Order of the queue; and who is evicted: the last admitted, or the one of the largest (priority, arrival).
    """

    name = "vllm-v1"
    title = "vLLM v1: one token budget for prompts and decodes, prefix cache"
    paper = "vLLM 0.10, 2025; Kwon et al., PagedAttention, SOSP 2023"

    def __init__(
        self, *, enable_prefix_caching: bool = True, max_num_batched_tokens: int = 2048, max_num_seqs: int = 256,
        long_prefill_token_threshold: int = 0, scheduling_policy: str = "fcfs",
    ) -> None:  # fmt: skip
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        self.max_step_tokens = step_tokens(max_num_batched_tokens, self.max_seqs)
        self.prefix_caching = flag("enable_prefix_caching", enable_prefix_caching)
        self.longest_chunk = whole("long_prefill_token_threshold", long_prefill_token_threshold, 0) or self.max_step_tokens
        if scheduling_policy not in ("fcfs", "priority"):
            raise InputError(f"scheduling_policy must be 'fcfs' or 'priority', not {scheduling_policy!r}")
        self.order = scheduling_policy
        wants = {"chunk", "hybrid", "pause"}
        wants |= {"prefix_cache"} if self.prefix_caching else set()
        wants |= {"priority"} if self.order == "priority" else set()
        self.requires = frozenset(wants)

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits."""
        super().start(limits)
        #: After a plan that only evicts: the running sequence it made room for, and the tokens that one was to get.
        self._promise: tuple[int, int] | None = None

    def plan(self, view: EngineView) -> StepPlan:
        """Decodes and unfinished prompts, evicting where memory is short; then, if nobody was evicted, new prompts."""
        promise, self._promise = self._promise, None
        if promise == NOTHING:
            if len(view.running) < view.n_running:
                return StepPlan(decode=False)
            promise = None
        size = self.block_size
        budget = self.max_step_tokens - view.n_decode
        free = view.free_blocks - view.decode_need
        work: list[Work] = []
        left = 0
        if view.n_prefill:
            for seq in view.prefills:
                if budget <= 0:
                    break
                done = seq.n_computed
                left = seq.n_known - done
                n = min(left, self.longest_chunk, budget)
                if promise and promise[0] == seq.sid:
                    n = min(n, promise[1])
                free -= max(0, -(-(done + n) // size) - seq.kv_blocks)
                budget -= n
                work.append(Work(seq.sid, n))
        if free < 0 or (budget == 0 and work and self.limits.pp > 1):
            return self._in_order(view, promise)
        if promise and not work and not view.n_decode:
            if view.n_running:
                return StepPlan(decode=False)
            promise = None
        seats = self.max_seqs - view.n_running
        waits = view.n_waiting
        full = False
        if waits and not promise and budget > 0 and seats > 0:
            ledger = view.ledger() if self.prefix_caching else None
            for seq in view.waiting:
                known = seq.n_known
                if known > self.longest:
                    return StepPlan(decode=False, reject=(seq.sid,))
                hit = seq.n_reusable if ledger else 0
                n = min(known - hit, self.longest_chunk, budget)
                need = ledger.need(seq.sid, hit + n) if ledger else -(-n // size)
                if need > free:
                    full = True
                    break
                if ledger:
                    ledger.reserve(seq.sid, hit + n)
                free -= need
                left = known - hit
                budget -= n
                work.append(Work(seq.sid, n))
                seats -= 1
                waits -= 1
                if budget == 0 or seats == 0:
                    break
        if len(work) > 1 or promise or (full and self.prefix_caching):
            # a blocked head may yet gain cached blocks from those that run, so with a prefix cache each step looks at it
            return StepPlan(tuple(work))
        wake = FINISH
        if (full and self.order == "priority") or (budget > 0 and seats > 0 and not waits):
            wake = ARRIVAL | FINISH if work or full else ARRIVAL
        return StepPlan(tuple(work), repeat=left // work[0].n_tokens if work else ALWAYS, wake=wake)

    def _in_order(self, view: EngineView, promise: tuple[int, int] | None) -> StepPlan:
        """Serve running sequences one by one, in order of admission: memory is short, or (pipeline stages) a prompt that stands
        before decodes may leave them no budget.
        """
        size = self.block_size
        running = view.running
        victim = running[-1] if self.order == "fcfs" else max(running, key=_urgency)
        if self.order == "fcfs" and self.limits.pp == 1:
            # whoever lacks blocks, the last one goes; and no prompt stands before a decode that it leaves no budget
            self._promise = -1, 0
            return StepPlan(decode=False, evict=(victim.sid,))
        free, budget = view.free_blocks, self.max_step_tokens
        work: list[Work] = []
        pause: list[int] = []
        decodes = 0
        for i, seq in enumerate(running):
            done = seq.n_computed
            n = min(seq.n_known - done, self.longest_chunk, budget)
            if promise and promise[0] == seq.sid:
                n = min(n, promise[1])
            need = max(0, -(-(done + n) // size) - seq.kv_blocks) if n else 0
            if need > free:
                if seq.sid == victim.sid and self.order == "priority":
                    # vLLM's loop over running sequences ends here: those behind get nothing in this step
                    if self.limits.pp > 1 and not work and not decodes:
                        self._promise = NOTHING
                        return StepPlan(decode=False, evict=(seq.sid,))
                    pause += [other.sid for other in running[i + 1 :] if other.phase == DECODE]
                    return StepPlan(tuple(work), evict=(seq.sid,), pause=tuple(pause))
                self._promise = seq.sid, n
                return StepPlan(decode=False, evict=(victim.sid,))
            free -= need
            budget -= n
            if seq.phase == DECODE:
                decodes += n
                if n == 0:
                    pause.append(seq.sid)
            elif n:
                work.append(Work(seq.sid, n))
        return StepPlan(tuple(work), pause=tuple(pause))

    @property
    def twin(self) -> Callable[[], tuple[Twin, Ints]]:
        """`plan`, compiled: a method without arguments. Offered where the columns show all that `plan` looks at."""
        if self.prefix_caching and self.longest_chunk < self.max_step_tokens:
            raise AttributeError("the columns do not show what every request admitted in one step could reuse")
        return self._twin

    def _twin(self) -> tuple[Twin, Ints]:
        par = [self.max_seqs, self.longest, self.max_step_tokens, self.longest_chunk, self.prefix_caching]
        return compile_twin(_plan), np.array([*par, self.order == "priority"], np.int64)


def _urgency(seq: SeqView) -> tuple[int, float, int]:
    return seq.priority, seq.arrival, seq.sid


@njit(cache=True)
def _evict_only(out: Ints, sid: int, promised: int, promise: int) -> None:
    """Evict `sid`. The two entries behind the list remind the next call of what `VllmV1._promise` says."""
    begin_plan(out, 0, 1, ARRIVAL | FINISH, 0)
    out[N_EVICT] = 1
    out[HEADER] = sid
    out[HEADER + 1] = promised
    out[HEADER + 2] = promise


@njit(cache=True)
def _victim(seq: Ints, tim: Floats, ctl: Ints, priority: int) -> int:
    found = -1
    sid: int = ctl[RUN_HEAD]
    while sid >= 0:
        if seq[sid, FLIGHT] == 0 and (
            found < 0
            or priority == 0
            or seq[sid, PRIORITY] > seq[found, PRIORITY]
            or (seq[sid, PRIORITY] == seq[found, PRIORITY] and later(tim, sid, found))
        ):
            found = sid
        sid = seq[sid, NEXT]
    return found


@njit(cache=True)
def _plan_in_order(seq: Ints, tim: Floats, ctl: Ints, par: Ints, out: Ints, promised: int, promise: int) -> None:
    """`VllmV1._in_order`."""
    budget, longest_chunk, priority = par[2], par[3], par[5]
    victim = _victim(seq, tim, ctl, priority)
    begin_plan(out, 1, 1, ARRIVAL | FINISH, 0)
    size = ctl[BLOCK_SIZE]
    free = ctl[FREE]
    tokens = np.zeros(ctl[N_RUNNING], np.int64)
    stopped = False
    served = False
    i = 0
    sid = ctl[RUN_HEAD]
    while sid >= 0:
        if seq[sid, FLIGHT] == 0 and not stopped:
            done = seq[sid, COMPUTED]
            n = min(seq[sid, KNOWN] - done, longest_chunk, budget)
            if sid == promised:
                n = min(n, promise)
            need = max(0, (done + n + size - 1) // size - seq[sid, BLOCKS]) if n > 0 else 0
            if need > free:
                if sid != victim or priority == 0:
                    _evict_only(out, victim, sid, n)
                    return
                if not served and ctl[STAGES] > 1:
                    _evict_only(out, sid, NOTHING[0], NOTHING[1])
                    return
                out[N_EVICT] = 1
                out[HEADER] = sid
                stopped = True
            else:
                free -= need
                budget -= n
                tokens[i] = n
                served = served or n > 0
        i += 1
        sid = seq[sid, NEXT]
    at = HEADER + out[N_EVICT]
    for work in (False, True):
        i = 0
        sid = ctl[RUN_HEAD]
        while sid >= 0:
            if seq[sid, FLIGHT] == 0 and not is_evicted(out, sid):
                if work and seq[sid, PHASE] != DECODE and tokens[i] > 0:
                    at = put_work(out, at, sid, tokens[i], 0)
                elif not work and seq[sid, PHASE] == DECODE and tokens[i] == 0:
                    out[at] = sid
                    out[N_PAUSE] += 1
                    at += 1
            i += 1
            sid = seq[sid, NEXT]


def _plan(seq: Ints, tim: Floats, ctl: Ints, par: Ints, out: Ints) -> None:
    max_seqs, longest, budget, longest_chunk, caching, priority = par[0], par[1], par[2], par[3], par[4], par[5]
    # the plan of the call before still stands in `out`: if it only evicted, this is its next round
    evicted = out[N_EVICT] > 0 and out[DECODE_FLAG] == 0
    promised = out[HEADER + 1] if evicted else -1
    promise = out[HEADER + 2]
    if promised == NOTHING[0]:
        if ctl[IN_FLIGHT] > 0:
            begin_plan(out, 0, 1, ARRIVAL | FINISH, 0)
            return
        evicted = False
    begin_plan(out, 1, ALWAYS, FINISH, 0)
    size = ctl[BLOCK_SIZE]
    budget -= ctl[N_DECODE]
    free = ctl[FREE] - ctl[DECODE_NEED]
    at = HEADER
    left = 0
    if ctl[N_PREFILL] > 0:
        sid = ctl[PRE_HEAD]
        while sid >= 0 and budget > 0:
            if seq[sid, FLIGHT] == 0:
                done = seq[sid, COMPUTED]
                left = seq[sid, KNOWN] - done
                n = min(left, longest_chunk, budget)
                if sid == promised:
                    n = min(n, promise)
                free -= max(0, (done + n + size - 1) // size - seq[sid, BLOCKS])
                budget -= n
                at = put_work(out, at, sid, n, 0)
            sid = seq[sid, PNEXT]
    if free < 0 or (budget == 0 and out[N_WORK] > 0 and ctl[STAGES] > 1):
        if priority == 0 and ctl[STAGES] == 1:
            _evict_only(out, ctl[RUN_TAIL], -1, 0)
        else:
            _plan_in_order(seq, tim, ctl, par, out, promised, promise)
        return
    if evicted and out[N_WORK] == 0 and ctl[N_DECODE] == 0:
        if ctl[IN_FLIGHT] > 0:
            begin_plan(out, 0, 1, ARRIVAL | FINISH, 0)
            return
        evicted = False
    seats = max_seqs - ctl[N_RUNNING]
    waits = ctl[N_WAITING]
    full = False
    if not evicted:
        sid = ctl[WAIT_HEAD]
        while sid >= 0 and budget > 0 and seats > 0:
            known = seq[sid, KNOWN]
            if known > longest:
                reject_only(out, sid)
                return
            hit = seq[sid, REUSABLE] if caching else 0
            n = min(known - hit, longest_chunk, budget)
            need = max(0, (hit + n + size - 1) // size - hit // size)
            if caching:
                need += seq[sid, IDLE_HITS]
            if need > free:
                full = True
                break
            free -= need
            left = known - hit
            budget -= n
            at = put_work(out, at, sid, n, 0)
            seats -= 1
            waits -= 1
            sid = seq[sid, NEXT]
    if out[N_WORK] > 1 or evicted or (full and caching):
        out[REPEAT] = 1
        out[WAKE] = ARRIVAL | FINISH
        return
    if out[N_WORK] == 1:
        out[REPEAT] = left // out[HEADER + 1]
    if (full and priority) or (budget > 0 and seats > 0 and waits == 0):
        out[WAKE] = ARRIVAL | FINISH if out[N_WORK] > 0 or full else ARRIVAL
