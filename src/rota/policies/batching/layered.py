"""Layered prefill: prompts advance by groups of layers instead of chunks of tokens (Lee et al., "From Tokens to Layers", 2025).

A cohort of whole prompts passes one contiguous group of layers per step while every decode passes all layers. A step then costs about as much as
one with a 512-token chunk, but each layer's experts are read for the prompts once, not once per chunk.
"""

from __future__ import annotations

from rota.contracts.serving import ALWAYS, ARRIVAL, FINISH, EngineView, Limits, StepPlan, Work
from rota.policies.batching.room import make_room, reject_head
from rota.policies.options import whole


class Layered:
    """Layered prefill.

    Parameters
    ----------
    stages : int
        Most groups of layers (4, 8, 16, ...).
    unit : int
        Prompt tokens per group: a cohort of n tokens is cut into the smallest power of two of groups with at most `unit` tokens each,
        at most `stages`.
    max_cohort_tokens : int
        Most prompt tokens of a cohort.
    max_num_seqs : int
    """

    name = "layered"
    requires = frozenset({"chunk", "hybrid", "layers"})
    order = "fcfs"
    prefix_caching = False
    max_step_tokens = 0

    def __init__(self, stages: int = 16, unit: int = 512, max_cohort_tokens: int = 8192, max_num_seqs: int = 128) -> None:
        self._stages = whole(self.name, "stages", stages)
        self._unit = whole(self.name, "unit", unit)
        self._most_tokens = whole(self.name, "max_cohort_tokens", max_cohort_tokens)
        self.max_seqs = whole(self.name, "max_num_seqs", max_num_seqs)

    def start(self, limits: Limits) -> None:
        self._size = limits.block_size
        self._layers = limits.n_layers
        self._blocks = limits.blocks
        self._cohort: list[tuple[int, int]] = []
        self._ranges: list[tuple[int, int] | None] = []

    def groups(self, tokens: int) -> int:
        """Groups of layers for a cohort of so many tokens."""
        count = 1
        while count < self._stages and tokens > count * self._unit:
            count *= 2
        return min(count, self._stages, self._layers)

    def plan(self, view: EngineView) -> StepPlan:
        free = view.free_blocks - view.decode_need
        evict: tuple[int, ...] = ()
        if view.n_decode and free < 1:
            evict, _, free = make_room(view)
            if evict:
                self._cohort = [member for member in self._cohort if member[0] not in evict]
        if not self._cohort or not self._ranges:
            refusal = self._form(view, free, evict)
            if refusal is not None:
                return refusal
        if self._cohort:
            layers = self._ranges.pop(0)
            return StepPlan(tuple(Work(sid, tokens, reserve, layers) for sid, tokens, reserve in self._items(view)), True, evict)
        if evict:
            return StepPlan((), True, evict)
        wake = ARRIVAL if view.n_waiting == 0 and view.n_running < self.max_seqs else FINISH
        return StepPlan((), True, (), (), (), False, ALWAYS, wake, 1)

    def _items(self, view: EngineView) -> list[tuple[int, int, int]]:
        return [(sid, tokens, view.seq(sid).n_known) for sid, tokens in self._cohort]

    def _form(self, view: EngineView, free: int, evict: tuple[int, ...]) -> StepPlan | None:
        """Choose the next cohort: unfinished prompts, then waiting ones whose whole prompt fits. A plan only to refuse impossible requests."""
        self._cohort = []
        room = self._most_tokens
        for seq in view.prefills:
            if seq.sid not in evict and room > 0:
                tokens = min(seq.n_known - seq.n_computed, room)
                self._cohort.append((seq.sid, tokens))
                room -= tokens
        running = view.n_running
        if room > 0 and view.n_waiting and not evict:
            for seq in view.waiting:
                known = seq.n_known
                blocks = -(-known // self._size)
                if blocks > self._blocks:
                    return reject_head(view, self._blocks) if not self._cohort else None
                if running >= self.max_seqs or blocks > free or room <= 0:
                    break
                tokens = min(known, room)
                self._cohort.append((seq.sid, tokens))
                room -= tokens
                free -= blocks
                running += 1
        count = self.groups(self._most_tokens - room)
        share, extra = divmod(self._layers, count)
        ends = [share * (i + 1) + min(i + 1, extra) for i in range(count)]
        self._ranges = [None] if count == 1 else list(zip([0, *ends[:-1]], ends, strict=True))
        return None
