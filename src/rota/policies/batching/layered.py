"""Layered prefill: prompts are cut along the model's layers, not along their tokens.

A cohort of prompts passes one group of layers per step while all decodes pass all layers in every step. Each group's weights,
and a mixture of experts' whole bank with them, are read once per cohort instead of once per chunk.
"""

from __future__ import annotations

from itertools import pairwise

from rota.contracts.serving import ALWAYS, ARRIVAL, FINISH, EngineView, Limits, StepPlan, Work
from rota.errors import InputError
from rota.policies.batching.policy import Batching, whole
from rota.policies.batching.recompute import make_room


class Layered(Batching):
    """Layered prefill.

    A cohort of n tokens is cut into the fewest layer groups G, a power of two up to `stages`, with n / G <= `unit`; so a step
    computes about as many tokens x layers as a chunk of `unit` tokens. Only one cohort is under way at a time. Memory for whole
    prompts is taken at admission; where decodes run short of it the latest sequence is evicted (recompute), a member of the
    cohort too.

    Parameters
    ----------
    stages : int
        Most layer groups: a power of two.
    max_cohort_tokens : int
        Most prompt tokens in a cohort; the rest of a longer prompt comes in the next.
    unit : int
        Tokens per layer group aimed at.
    max_num_seqs : int
        Most sequences held at once.
    """

    name = "layered"
    title = "Layered prefill: prompts advance by layer groups beside decodes"
    paper = "From Tokens to Layers, arXiv 2510.08055, MLSys 2026"
    requires = frozenset({"chunk", "hybrid", "layers"})

    def __init__(self, *, stages: int = 16, max_cohort_tokens: int = 8192, unit: int = 512, max_num_seqs: int = 128) -> None:
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        self.max_cohort_tokens = whole("max_cohort_tokens", max_cohort_tokens)
        self.max_step_tokens = self.max_cohort_tokens + self.max_seqs
        self.unit = whole("unit", unit)
        self.stages = whole("stages", stages)
        if self.stages & (self.stages - 1):
            raise InputError(f"stages must be a power of two such as 4, 8 or 16, not {stages}")
        self._until_arrival = StepPlan(repeat=ALWAYS, wake=ARRIVAL, headroom=1)
        self._until_finish = StepPlan(repeat=ALWAYS, wake=FINISH, headroom=1)

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits; no cohort is under way."""
        super().start(limits)
        self._cohort: list[Work] = []
        self._ranges: list[tuple[int, int]] = []

    def groups(self, tokens: int) -> int:
        """Layer groups of a cohort of so many tokens."""
        parts = -(-tokens // self.unit)
        return min(self.stages, 1 << (parts - 1).bit_length(), self.limits.n_layers)

    def plan(self, view: EngineView) -> StepPlan:
        """All decodes, and the cohort through its next group of layers; without one, a new cohort."""
        free = view.free_blocks - view.decode_need
        evicted: tuple[int, ...] = ()
        if free < 1 and view.n_decode:
            evicted, _, free = make_room(view)
            self._cohort = [item for item in self._cohort if item.sid not in evicted]
        seats = self.max_seqs - view.n_running
        if not (self._cohort and self._ranges):
            unfit = self._gather(view, free, seats, evicted)
            if unfit is not None:
                return StepPlan(decode=False, reject=(unfit,))
        if not self._cohort:
            if evicted:
                return StepPlan(evict=evicted)
            return self._until_finish if view.n_waiting or seats <= 0 else self._until_arrival
        layers = self._ranges.pop(0)
        if layers == (0, self.limits.n_layers):
            return StepPlan(tuple(self._cohort), evict=evicted)
        return StepPlan(tuple(Work(sid, n, reserve, layers) for sid, n, reserve, _ in self._cohort), evict=evicted)

    def _gather(self, view: EngineView, free: int, seats: int, evicted: tuple[int, ...]) -> int | None:
        """Form the next cohort: half-done prompts, then new ones in order. Returns a waiting one that can never run, if any."""
        room = self.max_cohort_tokens
        cohort: list[Work] = []
        self._cohort = cohort
        if view.n_prefill:
            for seq in view.prefills:
                if room == 0:
                    break
                if seq.sid in evicted:
                    continue
                n = min(seq.n_known - seq.n_computed, room)
                cohort.append(Work(seq.sid, n))
                room -= n
        if view.n_waiting and room and seats > 0 and not evicted:
            for seq in view.waiting:
                known = seq.n_known
                if known > self.longest:
                    cohort.clear()
                    return seq.sid
                free -= -(-known // self.block_size)
                if free < 0:
                    break
                n = min(known, room)
                cohort.append(Work(seq.sid, n, known))
                room -= n
                seats -= 1
                if room == 0 or seats == 0:
                    break
        depth = self.limits.n_layers
        groups = self.groups(max(1, self.max_cohort_tokens - room))
        share, extra = divmod(depth, groups)
        ends = [share * i + min(i, extra) for i in range(groups + 1)]
        self._ranges = list(pairwise(ends))
        return None
