"""vLLM's first scheduler (v0): prompts first, whole, and never in one step with decodes; eviction by recompute or by swap."""

from __future__ import annotations

import numpy as np

from rota.contracts.columns import (
    BLOCK_SIZE,
    DECODE_FLAG,
    DECODE_NEED,
    FREE,
    HEADER,
    HEADROOM,
    KNOWN,
    N_DECODE,
    N_EVICT,
    N_RUNNING,
    N_WAITING,
    NEXT,
    REPEAT,
    WAIT_HEAD,
    WAKE,
    Twin,
)
from rota.contracts.serving import ALWAYS, ARRIVAL, FINISH, EngineView, Limits, StepPlan, Work
from rota.errors import InputError
from rota.policies.batching.compiled import Floats, Ints, begin_plan, compile_twin, make_room, put_work, reject_only
from rota.policies.batching.policy import Batching, flag, share, step_tokens, whole
from rota.policies.batching.recompute import make_room as make_room_view


class VllmV0(Batching):
    """Prefill-first batching.

    Parameters
    ----------
    max_num_batched_tokens : int or None
        Most prompt tokens in a step; a longer prompt is rejected. None stands for the larger of 2048 and the engine's longest
        request.
    max_num_seqs : int
        Most sequences held at once.
    watermark : float
        Share of the KV blocks that an admission must leave free.
    padded_prompts : bool
        Count each prompt of a step as long as the longest of them, as vLLM did up to 0.2.
    preemption : str
        What becomes of an evicted sequence's KV: ``"recompute"``, or ``"swap"``: it goes to host memory as long as that has room (vLLM gave
        up without it) and comes back, ahead of new prompts, in a step with the decodes.
    """

    name = "vllm-v0"
    title = "vLLM v0: whole prompts first, decodes otherwise"
    paper = "Kwon et al., PagedAttention, SOSP 2023"

    def __init__(
        self, *, max_num_batched_tokens: int | None = None, max_num_seqs: int = 256, watermark: float = 0.01,
        padded_prompts: bool = False, preemption: str = "recompute",
    ) -> None:  # fmt: skip
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        if max_num_batched_tokens is not None:
            self.max_step_tokens = step_tokens(max_num_batched_tokens, self.max_seqs)
        self.watermark = share("watermark", watermark)
        self.padded_prompts = flag("padded_prompts", padded_prompts)
        if preemption not in ("recompute", "swap"):
            raise InputError(f"preemption must be recompute or swap, not {preemption!r}")
        self._swaps = preemption == "swap"
        self.requires = frozenset({"swap", "hybrid"} if self._swaps else ())
        self._until_arrival = StepPlan(repeat=ALWAYS, wake=ARRIVAL, headroom=1)
        self._until_finish = StepPlan(repeat=ALWAYS, wake=FINISH, headroom=1)

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits."""
        super().start(limits)
        self._spare = int(self.watermark * limits.blocks)
        self._budget = self.max_step_tokens or max(2048, limits.max_len)
        self.longest = min(self.longest, self._budget, (limits.blocks - self._spare) * limits.block_size)

    def plan(self, view: EngineView) -> StepPlan:
        """Whole prompts if the first fits; else one token for everybody, evicting the latest arrivals where memory is short."""
        seats = self.max_seqs - view.n_running
        if view.n_waiting and seats > 0:
            size = self.block_size
            free = view.free_blocks - self._spare
            total = widest = 0
            work: list[Work] = []
            for seq in view.waiting:
                if self._swaps and seq.n_reusable:
                    break
                known = seq.n_known
                if known > self.longest:
                    return StepPlan(decode=False, reject=(seq.sid,))
                total += known
                widest = max(widest, known)
                if (widest * (len(work) + 1) if self.padded_prompts else total) > self._budget:
                    break
                free -= -(-known // size)
                if free < 0:
                    break
                work.append(Work(seq.sid, known, known))
                if len(work) == seats:
                    break
            if work:
                return StepPlan(tuple(work), False)
        if view.n_decode and view.free_blocks - view.decode_need < 1:
            evicted, _, _ = make_room_view(view)
            if evicted:
                return StepPlan(evict=evicted, swap=self._to_swap(view, evicted) if self._swaps else ())
        if self._swaps and view.n_waiting and seats > 0:
            back = self._come_back(view, seats)
            if back is not None:
                return back
        return self._until_finish if view.n_waiting or seats <= 0 else self._until_arrival

    def _to_swap(self, view: EngineView, evicted: tuple[int, ...]) -> tuple[int, ...]:
        """Those whose KV the host has room for."""
        free, swap = view.free_host_blocks, []
        for sid in evicted:
            blocks = -(-view.seq(sid).n_computed // self.block_size)
            if 0 < blocks <= free:
                free -= blocks
                swap.append(sid)
        return tuple(swap)

    def _come_back(self, view: EngineView, seats: int) -> StepPlan | None:
        """The next tokens of swapped sequences at the head of the queue, each with a block to spare beside others that run."""
        free = view.free_blocks - view.decode_need - self._spare
        work: list[Work] = []
        for seq in view.waiting:
            kept, known = seq.n_reusable, seq.n_known
            if not kept or len(work) == seats:
                break
            alone = not work and view.n_running == 0
            if -(-known // self.block_size) > free if alone else -(-kept // self.block_size) + 1 > free:
                if alone:
                    return StepPlan(decode=False, reject=(seq.sid,))
                break
            free -= -(-known // self.block_size)
            work.append(Work(seq.sid, known - kept))
        return StepPlan(tuple(work)) if work else None

    def twin(self) -> tuple[Twin, Ints] | None:
        """`plan`, compiled; not that with swaps."""
        if self._swaps:
            return None
        par = [self.max_seqs, self.longest, self._budget, self._spare, self.padded_prompts]
        return compile_twin(_plan), np.array(par, np.int64)


def _plan(seq: Ints, tim: Floats, ctl: Ints, par: Ints, out: Ints) -> None:
    max_seqs, longest, budget, spare, padded_prompts = par[0], par[1], par[2], par[3], par[4]
    seats = max_seqs - ctl[N_RUNNING]
    begin_plan(out, 1, ALWAYS, FINISH, 1)
    if ctl[N_WAITING] > 0:
        size = ctl[BLOCK_SIZE]
        free = ctl[FREE] - spare
        at = HEADER
        total, widest, count = 0, 0, 0
        sid = ctl[WAIT_HEAD]
        while sid >= 0 and count < seats:
            known = seq[sid, KNOWN]
            if known > longest:
                reject_only(out, sid)
                return
            total += known
            widest = max(widest, known)
            if (widest * (count + 1) if padded_prompts else total) > budget:
                break
            free -= (known + size - 1) // size
            if free < 0:
                break
            at = put_work(out, at, sid, known, known)
            count += 1
            sid = seq[sid, NEXT]
        if count > 0:
            out[DECODE_FLAG] = 0
            out[REPEAT] = 1
            out[WAKE] = ARRIVAL | FINISH
            out[HEADROOM] = 0
            return
    elif seats > 0:
        out[WAKE] = ARRIVAL
    if ctl[N_DECODE] > 0 and ctl[FREE] - ctl[DECODE_NEED] < 1:
        make_room(seq, tim, ctl, out)
        if out[N_EVICT] > 0:
            out[REPEAT] = 1
