"""Flover: temporal fusion. Requests join a running batch one per turn of its loop and leave at any token; their prompts run alone.

Kept as published: while a prompt is computed the decodes wait, and a request holds room for the longest sequence from the start, so
that nobody is ever evicted. What its contiguous buffers cost an executor is priced in `rota.mechanisms.simulator.slots`.
"""

from __future__ import annotations

from rota.contracts.serving import ALWAYS, ARRIVAL, FINISH, EngineView, Limits, StepPlan, Work
from rota.policies.batching.policy import Batching, whole


class Flover(Batching):
    """One turn: at most one request joins, its prompt alone in a step; then all active requests take a token as one batch.

    Parameters
    ----------
    max_num_seqs : int
        Most requests in the batch (the paper's max_concurrency).
    """

    name = "flover"
    title = "Flover: requests join one per turn, prompts alone, longest output reserved"
    paper = "Yao et al., Flover, HiPC 2023"

    def __init__(self, *, max_num_seqs: int = 32) -> None:
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        self._until_arrival = StepPlan(repeat=ALWAYS, wake=ARRIVAL)
        self._until_finish = StepPlan(repeat=ALWAYS, wake=FINISH)

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits; nobody has joined in this turn yet."""
        super().start(limits)
        self._joined = False

    def plan(self, view: EngineView) -> StepPlan:
        """The next request's prompt, unless one has just joined: then a token for everybody first."""
        joined, self._joined = self._joined, False
        free_seat = view.n_running < self.max_seqs
        if not view.n_waiting:
            return self._until_arrival if free_seat else self._until_finish
        if not free_seat:
            return self._until_finish
        if joined and view.n_decode:
            return StepPlan()
        seq = next(iter(view.waiting))
        if seq.n_known > self.longest:
            return StepPlan(decode=False, reject=(seq.sid,))
        reserve = min(self.limits.max_len, seq.n_prompt + seq.max_new, self.capacity)
        if -(-reserve // self.block_size) > view.free_blocks - view.decode_need:
            return self._until_finish
        self._joined = True
        return StepPlan((Work(seq.sid, seq.n_known, reserve),), decode=False)
