"""Sarathi-Serve with dynamic chunking: the later a chunk lies in its prompt, the smaller it is, as its attention costs more."""

from __future__ import annotations

from rota.contracts.serving import ALWAYS, ARRIVAL, FINISH, EngineView, Limits, StepPlan, Work
from rota.errors import InputError
from rota.policies.batching.policy import Batching, share, step_tokens, whole
from rota.policies.batching.recompute import by_arrival, make_room


class SarathiDynamic(Batching):
    """Sarathi-Serve whose token budget depends on where in its prompt a sequence stands.

    The budget falls linearly over `chunk_schedule_stages` stages of equal length, from `max_num_batched_tokens` at the prompt's
    start to `low_chunk_size` in the last, which goes on beyond `chunk_schedule_max_tokens`; each is rounded to a multiple of 32
    (of `low_chunk_size` where that is smaller). All else is as in `Sarathi`.

    Parameters
    ----------
    max_num_batched_tokens : int
        Largest budget of a step.
    low_chunk_size : int or None
        Smallest budget; None for a quarter of the largest.
    chunk_schedule_stages : int
    chunk_schedule_max_tokens : int
        Prompt position, in tokens, at which the schedule ends.
    max_num_seqs : int
        Most sequences held at once.
    watermark : float
        Share of the KV blocks that an admission must leave free.
    """

    name = "sarathi-dynamic"
    title = "Sarathi-Serve with chunks that shrink along the prompt"
    paper = "Agrawal et al., Sarathi-Serve, OSDI 2024 (released code)"
    requires = frozenset({"chunk", "hybrid"})

    def __init__(
        self, *, max_num_batched_tokens: int = 1024, low_chunk_size: int | None = None, chunk_schedule_stages: int = 16,
        chunk_schedule_max_tokens: int = 8192, max_num_seqs: int = 128, watermark: float = 0.01,
    ) -> None:  # fmt: skip
        self.max_seqs = whole("max_num_seqs", max_num_seqs)
        self.max_step_tokens = high = step_tokens(max_num_batched_tokens, self.max_seqs)
        low = whole("low_chunk_size", max(1, high // 4) if low_chunk_size is None else low_chunk_size)
        stages = whole("chunk_schedule_stages", chunk_schedule_stages)
        end = whole("chunk_schedule_max_tokens", chunk_schedule_max_tokens)
        if low > high:
            raise InputError(f"low_chunk_size={low} is above max_num_batched_tokens={high}; swap them or lower the first")
        self.watermark = share("watermark", watermark)
        self.stage_tokens = -(-end // stages)
        unit = min(32, low)
        sizes = [high - (high - low) * i / max(1, stages - 1) for i in range(stages)]
        self.chunk_sizes = [min(high, max(unit, round(size / unit) * unit)) for size in sizes]
        self._until_arrival = StepPlan(repeat=ALWAYS, wake=ARRIVAL, headroom=1)
        self._until_finish = StepPlan(repeat=ALWAYS, wake=FINISH, headroom=1)

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits."""
        super().start(limits)
        self._spare = int(self.watermark * limits.blocks)
        self.longest = min(self.longest, (limits.blocks - self._spare) * limits.block_size)

    def budget_at(self, position: int) -> int:
        """Token budget of a step for a sequence with so many tokens computed."""
        return self.chunk_sizes[min(position // self.stage_tokens, len(self.chunk_sizes) - 1)]

    def plan(self, view: EngineView) -> StepPlan:
        """As `Sarathi.plan`, each sequence under the budget of its own position."""
        tokens = view.n_decode
        free = view.free_blocks - view.decode_need
        evicted: tuple[int, ...] = ()
        if free < 1 and tokens:
            evicted, tokens, free = make_room(view)
        work: list[Work] = []
        steps = 1
        if view.n_prefill:
            prefills = view.prefills if self.limits.pp == 1 else sorted(view.prefills, key=by_arrival)
            for seq in prefills:
                if evicted and seq.sid in evicted:
                    continue
                done = seq.n_computed
                left = seq.n_known - done
                n = min(left, self.budget_at(done) - tokens)
                if n > 0:
                    work.append(Work(seq.sid, n))
                    tokens += n
                    steps = self._steps(done, left, n)
        if evicted:
            return StepPlan(tuple(work), evict=evicted)
        first = self.chunk_sizes[0]
        waits = view.n_waiting
        seats = self.max_seqs - view.n_running
        if tokens < first and seats > 0 and waits:
            size = self.block_size
            free -= self._spare
            for seq in view.waiting:
                known = seq.n_known
                if known > self.longest:
                    return StepPlan(decode=False, reject=(seq.sid,))
                free -= -(-known // size)
                if free < 0:
                    break
                n = min(known, first - tokens)
                work.append(Work(seq.sid, n, known))
                tokens += n
                steps = self._steps(0, known, n)
                seats -= 1
                waits -= 1
                if tokens == first or seats == 0:
                    break
        admits = tokens < first and seats > 0 and not waits
        if not work:
            return self._until_arrival if admits else self._until_finish
        if len(work) == 1:
            wake = ARRIVAL | FINISH if admits else FINISH
            return StepPlan(tuple(work), repeat=steps, wake=wake, headroom=1)
        return StepPlan(tuple(work))

    def _steps(self, done: int, left: int, n: int) -> int:
        """Steps for which a lone chunk of `n` tokens is what the budget allows: within its stage, and while the prompt lasts."""
        whole_chunks = left // n
        stage = done // self.stage_tokens
        if stage >= len(self.chunk_sizes) - 1:
            return whole_chunks
        return min(whole_chunks, -(-((stage + 1) * self.stage_tokens - done) // n))
