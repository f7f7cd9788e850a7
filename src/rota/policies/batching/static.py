"""Static batching (FasterTransformer): a batch is filled and runs until its last member has finished; then comes the next."""

from __future__ import annotations

import numpy as np

from rota.contracts.columns import (
    BLOCK_SIZE,
    FREE,
    HEADER,
    KNOWN,
    MAX_LEN,
    MAX_NEW,
    N_RUNNING,
    NEXT,
    PADDED,
    PROMPT,
    WAIT_HEAD,
    Twin,
)
from rota.contracts.serving import ALWAYS, ARRIVAL, FINISH, EngineView, StepPlan, Work
from rota.policies.batching.compiled import Floats, Ints, begin_plan, compile_twin, put_work, reject_only
from rota.policies.batching.policy import Batching, flag, whole


class Static(Batching):
    """Request-level batching.

    Parameters
    ----------
    max_num_seqs : int
        Size of a batch.
    padded : bool
        Whether a finished sequence keeps its row and its blocks until the whole batch has finished, as in the original; otherwise
        it stops costing anything.
    """

    name = "static"
    title = "Static batching: a whole batch at a time"
    paper = "NVIDIA FasterTransformer, 2021"

    def __init__(self, *, max_num_seqs: int = 8, padded: bool = False) -> None:
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        self.padded = flag("padded", padded)
        self.requires = frozenset({"padded"}) if self.padded else frozenset()
        self._run = StepPlan(padded=self.padded, repeat=ALWAYS, wake=0)

    def plan(self, view: EngineView) -> StepPlan:
        """Decode what runs; with nothing running, prompts of the next batch, each with room for its longest possible output."""
        if view.n_running:
            return self._run
        size = self.block_size
        free = view.free_blocks
        work: list[Work] = []
        for seq in view.waiting:
            known = seq.n_known
            if known > self.longest:
                return StepPlan(decode=False, reject=(seq.sid,), padded=self.padded)
            reserve = min(self.limits.max_len, seq.n_prompt + seq.max_new, self.capacity)
            free -= -(-reserve // size)
            if free < 0:
                break
            work.append(Work(seq.sid, known, reserve))
            if len(work) == self.max_seqs:
                break
        return StepPlan(tuple(work), padded=self.padded)

    def twin(self) -> tuple[Twin, Ints]:
        """`plan`, compiled."""
        return compile_twin(_plan), np.array([self.max_seqs, self.padded, self.longest], np.int64)


def _plan(seq: Ints, tim: Floats, ctl: Ints, par: Ints, out: Ints) -> None:
    max_seqs, padded, longest = par[0], par[1], par[2]
    if ctl[N_RUNNING] > 0:
        begin_plan(out, 1, ALWAYS, 0, 0)
        out[PADDED] = padded
        return
    begin_plan(out, 1, 1, ARRIVAL | FINISH, 0)
    size = ctl[BLOCK_SIZE]
    free = ctl[FREE]
    at = HEADER
    sid = ctl[WAIT_HEAD]
    admitted = 0
    while sid >= 0 and admitted < max_seqs:
        if seq[sid, KNOWN] > longest:
            reject_only(out, sid)
            break
        reserve = min(ctl[MAX_LEN], seq[sid, PROMPT] + seq[sid, MAX_NEW], longest + 1)
        free -= (reserve + size - 1) // size
        if free < 0:
            break
        at = put_work(out, at, sid, seq[sid, KNOWN], reserve)
        admitted += 1
        sid = seq[sid, NEXT]
    out[PADDED] = padded
