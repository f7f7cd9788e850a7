"""Sarathi-Serve: stall-free batching. A step serves all decodes and fills the rest of a token budget with chunks of prompts."""

from __future__ import annotations

import numpy as np

from rota.contracts.columns import (
    BLOCK_SIZE,
    COMPUTED,
    DECODE_NEED,
    FREE,
    HEADER,
    KNOWN,
    N_DECODE,
    N_EVICT,
    N_PREFILL,
    N_RUNNING,
    N_WAITING,
    N_WORK,
    NEXT,
    REPEAT,
    WAIT_HEAD,
    WAKE,
    Twin,
)
from rota.contracts.serving import ALWAYS, ARRIVAL, FINISH, EngineView, Limits, StepPlan, Work
from rota.policies.batching.compiled import (
    Floats,
    Ints,
    begin_plan,
    compile_twin,
    is_evicted,
    make_room,
    next_prefill,
    put_work,
    reject_only,
)
from rota.policies.batching.policy import Batching, share, step_tokens, whole
from rota.policies.batching.recompute import by_arrival
from rota.policies.batching.recompute import make_room as make_room_view


class Sarathi(Batching):
    """Chunked prefill beside decodes under one token budget.

    Decodes count against the budget first. Memory for the whole prompt is taken at admission although only a chunk runs. Nothing
    is admitted in a step that evicts: the queue's head is then the evicted one, and the watermark would refuse it.

    Parameters
    ----------
    max_num_batched_tokens : int
        The token budget of a step ("chunk size").
    max_num_seqs : int
        Most sequences held at once.
    watermark : float
        Share of the KV blocks that an admission must leave free.
    """

    name = "sarathi"
    title = "Sarathi-Serve: chunked prefill beside decodes, stall-free"
    paper = "Agrawal et al., Sarathi-Serve, OSDI 2024"
    requires = frozenset({"chunk", "hybrid"})

    def __init__(self, *, max_num_batched_tokens: int = 512, max_num_seqs: int = 128, watermark: float = 0.01) -> None:
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        self.max_step_tokens = step_tokens(max_num_batched_tokens, self.max_seqs)
        self.watermark = share("watermark", watermark)
        self._until_arrival = StepPlan(repeat=ALWAYS, wake=ARRIVAL, headroom=1)
        self._until_finish = StepPlan(repeat=ALWAYS, wake=FINISH, headroom=1)

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits."""
        super().start(limits)
        self._spare = int(self.watermark * limits.blocks)
        self.longest = min(self.longest, (limits.blocks - self._spare) * limits.block_size)

    def plan(self, view: EngineView) -> StepPlan:
        """One token for every decode, then chunks of unfinished prompts, then of new ones."""
        tokens = view.n_decode
        free = view.free_blocks - view.decode_need
        evicted: tuple[int, ...] = ()
        if free < 1 and tokens:
            evicted, tokens, free = make_room_view(view)
        budget = self.max_step_tokens
        work: list[Work] = []
        left = 0
        if view.n_prefill:
            prefills = view.prefills if self.limits.pp == 1 else sorted(view.prefills, key=by_arrival)
            for seq in prefills:
                if tokens == budget:
                    break
                if evicted and seq.sid in evicted:
                    continue
                left = seq.n_known - seq.n_computed
                n = min(left, budget - tokens)
                work.append(Work(seq.sid, n))
                tokens += n
        seats = self.max_seqs - view.n_running
        if evicted:
            return StepPlan(tuple(work), evict=evicted)
        if tokens < budget and seats > 0 and view.n_waiting:
            size = self.block_size
            free -= self._spare
            for seq in view.waiting:
                known = seq.n_known
                if known > self.longest:
                    return StepPlan(decode=False, reject=(seq.sid,))
                free -= -(-known // size)
                if free < 0:
                    break
                left = known
                n = min(known, budget - tokens)
                work.append(Work(seq.sid, n, known))
                tokens += n
                seats -= 1
                if tokens == budget or seats == 0:
                    break
        if not work:
            return self._until_arrival if tokens < budget and seats > 0 and not view.n_waiting else self._until_finish
        if tokens == budget and len(work) == 1:
            return StepPlan(tuple(work), repeat=left // work[0].n_tokens, wake=FINISH, headroom=1)
        return StepPlan(tuple(work))

    def twin(self) -> tuple[Twin, Ints]:
        """`plan`, compiled."""
        return compile_twin(_plan), np.array([self.max_seqs, self.longest, self.max_step_tokens, self._spare], np.int64)


def _plan(seq: Ints, tim: Floats, ctl: Ints, par: Ints, out: Ints) -> None:
    max_seqs, longest, budget, spare = par[0], par[1], par[2], par[3]
    begin_plan(out, 1, ALWAYS, FINISH, 1)
    tokens = ctl[N_DECODE]
    free = ctl[FREE] - ctl[DECODE_NEED]
    if free < 1 and tokens > 0:
        tokens, free = make_room(seq, tim, ctl, out)
    at = HEADER + out[N_EVICT]
    left = 0
    if ctl[N_PREFILL] > 0:
        sid = -1
        while tokens < budget:
            sid = next_prefill(seq, tim, ctl, sid)
            if sid < 0:
                break
            if not is_evicted(out, sid):
                left = seq[sid, KNOWN] - seq[sid, COMPUTED]
                n = min(left, budget - tokens)
                at = put_work(out, at, sid, n, 0)
                tokens += n
    if out[N_EVICT] > 0:
        out[REPEAT] = 1
        return
    seats = max_seqs - ctl[N_RUNNING]
    if tokens < budget and seats > 0 and ctl[N_WAITING] > 0:
        size = ctl[BLOCK_SIZE]
        free -= spare
        sid = ctl[WAIT_HEAD]
        while sid >= 0 and seats > 0 and tokens < budget:
            known = seq[sid, KNOWN]
            if known > longest:
                reject_only(out, sid)
                return
            free -= (known + size - 1) // size
            if free < 0:
                break
            left = known
            n = min(known, budget - tokens)
            at = put_work(out, at, sid, n, known)
            tokens += n
            seats -= 1
            sid = seq[sid, NEXT]
    if out[N_WORK] == 0:
        if tokens < budget and seats > 0 and ctl[N_WAITING] == 0:
            out[WAKE] = ARRIVAL
    elif out[N_WORK] == 1 and tokens == budget:
        out[REPEAT] = left // out[HEADER + 1]
    else:
        out[REPEAT] = 1
