"""Orca: iteration-level scheduling and selective batching. New prompts run whole, in the same step as the decodes of all others.

Two forms: the original, which reserves room for the longest possible output at admission, so that nobody is ever evicted; and one
on paged memory, which grows block by block and evicts by recompute. The second differs from Sarathi-Serve in nothing but chunks.
"""

from __future__ import annotations

import numpy as np

from rota.contracts.columns import (
    BLOCK_SIZE,
    DECODE_NEED,
    FREE,
    HEADER,
    KNOWN,
    MAX_LEN,
    MAX_NEW,
    N_DECODE,
    N_EVICT,
    N_RUNNING,
    N_WAITING,
    NEXT,
    PROMPT,
    REPEAT,
    WAIT_HEAD,
    WAKE,
    Twin,
)
from rota.contracts.serving import ALWAYS, ARRIVAL, FINISH, EngineView, StepPlan, Work
from rota.policies.batching.compiled import Floats, Ints, begin_plan, compile_twin, make_room, put_work, reject_only
from rota.policies.batching.policy import Batching, whole
from rota.policies.batching.recompute import make_room as make_room_view


class OrcaReserve(Batching):
    """Orca as published.

    Parameters
    ----------
    max_num_seqs : int
        Most sequences held at once.
    """

    name = "orca"
    title = "Orca: whole prompts beside decodes, longest output reserved"
    paper = "Yu et al., Orca, OSDI 2022"
    requires = frozenset({"hybrid"})

    def __init__(self, *, max_num_seqs: int = 16) -> None:
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        self._until_arrival = StepPlan(repeat=ALWAYS, wake=ARRIVAL)
        self._until_finish = StepPlan(repeat=ALWAYS, wake=FINISH)

    def plan(self, view: EngineView) -> StepPlan:
        """All decodes, and prompts as long as there are seats and room for their longest output."""
        seats = self.max_seqs - view.n_running
        if not view.n_waiting:
            return self._until_arrival if seats > 0 else self._until_finish
        if seats <= 0:
            return self._until_finish
        size = self.block_size
        free = view.free_blocks - view.decode_need
        work: list[Work] = []
        for seq in view.waiting:
            known = seq.n_known
            if known > self.longest:
                return StepPlan(decode=False, reject=(seq.sid,))
            reserve = min(self.limits.max_len, seq.n_prompt + seq.max_new, self.capacity)
            free -= -(-reserve // size)
            if free < 0:
                break
            work.append(Work(seq.sid, known, reserve))
            if len(work) == seats:
                break
        return StepPlan(tuple(work)) if work else self._until_finish

    def twin(self) -> tuple[Twin, Ints]:
        """`plan`, compiled."""
        return compile_twin(_plan_reserve), np.array([self.max_seqs, self.longest], np.int64)


class OrcaPaged(Batching):
    """Orca's steps on paged memory: prompts are never chunked, blocks are taken as sequences grow, eviction is by recompute.

    Nothing is admitted in a step that evicts: the queue's head is then the evicted one.

    Parameters
    ----------
    max_num_seqs : int
        Most sequences held at once.
    """

    name = "orca-paged"
    title = "Orca on paged memory: whole prompts beside decodes, recompute"
    paper = "Yu et al., Orca, OSDI 2022; paged variant as in Agrawal et al., Sarathi-Serve, OSDI 2024"
    requires = frozenset({"hybrid"})

    def __init__(self, *, max_num_seqs: int = 128) -> None:
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        self._until_arrival = StepPlan(repeat=ALWAYS, wake=ARRIVAL, headroom=1)
        self._until_finish = StepPlan(repeat=ALWAYS, wake=FINISH, headroom=1)

    def plan(self, view: EngineView) -> StepPlan:
        """All decodes, evicting where memory is short, and prompts as long as there are seats and room for them."""
        free = view.free_blocks - view.decode_need
        if free < 1 and view.n_decode:
            evicted, _, free = make_room_view(view)
            if evicted:
                return StepPlan(evict=evicted)
        seats = self.max_seqs - view.n_running
        if not view.n_waiting:
            return self._until_arrival if seats > 0 else self._until_finish
        if seats <= 0:
            return self._until_finish
        size = self.block_size
        work: list[Work] = []
        for seq in view.waiting:
            known = seq.n_known
            if known > self.longest:
                return StepPlan(decode=False, reject=(seq.sid,))
            free -= -(-known // size)
            if free < 0:
                break
            work.append(Work(seq.sid, known, known))
            if len(work) == seats:
                break
        return StepPlan(tuple(work)) if work else self._until_finish

    def twin(self) -> tuple[Twin, Ints]:
        """`plan`, compiled."""
        return compile_twin(_plan_paged), np.array([self.max_seqs, self.longest], np.int64)


def _plan_reserve(seq: Ints, tim: Floats, ctl: Ints, par: Ints, out: Ints) -> None:
    max_seqs, longest = par[0], par[1]
    seats = max_seqs - ctl[N_RUNNING]
    begin_plan(out, 1, ALWAYS, FINISH, 0)
    if ctl[N_WAITING] == 0:
        if seats > 0:
            out[WAKE] = ARRIVAL
        return
    size = ctl[BLOCK_SIZE]
    free = ctl[FREE] - ctl[DECODE_NEED]
    at = HEADER
    sid = ctl[WAIT_HEAD]
    while sid >= 0 and seats > 0:
        if seq[sid, KNOWN] > longest:
            reject_only(out, sid)
            return
        reserve = min(ctl[MAX_LEN], seq[sid, PROMPT] + seq[sid, MAX_NEW], longest + 1)
        free -= (reserve + size - 1) // size
        if free < 0:
            break
        at = put_work(out, at, sid, seq[sid, KNOWN], reserve)
        seats -= 1
        sid = seq[sid, NEXT]
    if at > HEADER:
        out[REPEAT] = 1
        out[WAKE] = ARRIVAL | FINISH


def _plan_paged(seq: Ints, tim: Floats, ctl: Ints, par: Ints, out: Ints) -> None:
    max_seqs, longest = par[0], par[1]
    seats = max_seqs - ctl[N_RUNNING]
    begin_plan(out, 1, ALWAYS, FINISH, 1)
    free = ctl[FREE] - ctl[DECODE_NEED]
    if free < 1 and ctl[N_DECODE] > 0:
        _, free = make_room(seq, tim, ctl, out)
        if out[N_EVICT] > 0:
            out[REPEAT] = 1
            return
    if ctl[N_WAITING] == 0:
        if seats > 0:
            out[WAKE] = ARRIVAL
        return
    size = ctl[BLOCK_SIZE]
    at = HEADER
    sid = ctl[WAIT_HEAD]
    while sid >= 0 and seats > 0:
        known = seq[sid, KNOWN]
        if known > longest:
            reject_only(out, sid)
            return
        free -= (known + size - 1) // size
        if free < 0:
            break
        at = put_work(out, at, sid, known, known)
        seats -= 1
        sid = seq[sid, NEXT]
    if at > HEADER:
        out[REPEAT] = 1
