"""One batching policy from five small decisions: composition, order, admission, victim and retention.

The composition says which tokens share a step and how much memory an admission takes; here the known ones are rows of a table. The
other decisions are objects (`rota.policies.parts`); those about the queue are asked by `Intake`. Put together from first-come order,
aggressive admission and the victim that each has by nature, a composition decides exactly as the policy of its name does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rota.contracts.serving import ALWAYS, ARRIVAL, FINISH, EngineView, Limits, StepPlan, Work
from rota.errors import InputError
from rota.policies.batching.compositions import COMPOSITIONS
from rota.policies.batching.intake import Intake
from rota.policies.batching.policy import Batching, step_tokens, whole
from rota.policies.batching.recompute import by_arrival, make_room
from rota.policies.parts import Admission, Order, Victim
from rota.policies.retention.pins import Pins


class Composed(Batching):
    """The decisions at work.

    Parameters
    ----------
    order, admission, victim
    batching : str
        A name of `COMPOSITIONS`.
    max_num_batched_tokens, max_num_seqs : int or None
        None: as the composition has it.
    prefix_caching : bool
    pins : Pins or None
        Retention, with its pins; needs a prefix cache.
    """

    name = "composed"
    title = "Composed: batching, order, admission and victim chosen one by one"
    paper = "the parts' own"
    follows = True

    def __init__(
        self, order: Order, admission: Admission, victim: Victim, *, batching: str, max_num_batched_tokens: int | None,
        max_num_seqs: int | None, prefix_caching: bool = False, pins: Pins | None = None,
    ) -> None:  # fmt: skip
        if batching not in COMPOSITIONS:
            raise InputError(f"batching must be one of {', '.join(COMPOSITIONS)}, not {batching!r}")
        shape = self.shape = COMPOSITIONS[batching]
        self.victim, self.pins = victim, pins
        self._intake = Intake(order, admission, pins, shape, prefix_caching)
        self.order = order.keeps
        self.max_seqs = shape.seqs if max_num_seqs is None else whole("max_num_seqs", max_num_seqs)
        tokens = shape.tokens if max_num_batched_tokens is None else max_num_batched_tokens
        if max_num_batched_tokens is not None or shape.chunked:
            self.max_step_tokens = step_tokens(tokens, self.max_seqs)
        self.prefix_caching = prefix_caching
        wants = {"priority"} if self.order == "priority" else set()
        wants |= {"hybrid"} if shape.hybrid else set()
        wants |= {"chunk"} if shape.chunked else set()
        wants |= {"pin"} if pins else set()
        self.requires = frozenset(wants | ({"prefix_cache"} if prefix_caching else set()))
        self._dynamic = order.dynamic
        self._by_chunk = shape.reserve == "chunk"
        self._headroom = 0 if self._by_chunk else 1
        #: Decodes alone, by what ends that.
        self._decodes = {wake: StepPlan(repeat=ALWAYS, wake=wake, headroom=self._headroom) for wake in (FINISH, ARRIVAL, ARRIVAL | FINISH)}

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits."""
        super().start(limits)
        self._budget = self.max_step_tokens or (ALWAYS if self.shape.hybrid else max(2048, limits.max_len))
        self.longest = self._intake.start(limits, self.longest if self.shape.chunked else min(self.longest, self._budget))
        #: The plan before only evicted: this one, at the same instant, is its second half and admits nobody.
        self._evicting = False

    def plan(self, view: EngineView) -> StepPlan:
        """What the parts decide."""
        finished, arrived = view.finished, view.arrived
        self._intake.listen(view, finished, arrived)
        pins = self.pins
        if pins is None:
            return self._decide(view)
        pin, unpin = pins.follow(view, finished, arrived)
        if pin or unpin:
            self._intake.refused = False
            if view.n_waiting or view.free_blocks < self._most_wanted(view) + pins.blocks(pin):
                # what that leaves free the engine says best; it asks again at once
                return StepPlan(decode=False, pin=pin, unpin=unpin)
        plan = self._decide(view)
        if pins.released:
            unpin += pins.take()
        until = pins.expiry
        if pin or unpin or until < plan.wake_at:
            return StepPlan(*plan[:9], min(plan.wake_at, until), pin, unpin)
        return plan

    def _most_wanted(self, view: EngineView) -> int:
        """Free blocks with which nothing is evicted in the next step."""
        return view.decode_need + 1 + (self._budget // self.block_size + view.n_prefill if view.n_prefill else 0)

    def _decide(self, view: EngineView) -> StepPlan:
        evicting, self._evicting = self._evicting, False
        if not self.shape.hybrid:
            return self._prompts_first(view, evicting)
        tokens, free = view.n_decode, view.free_blocks - view.decode_need
        work: list[Work] = []
        left = 0
        evicted: tuple[int, ...] = ()
        if not self._by_chunk and free < 1 and tokens:
            if self._dropped_pin(view, evicting):
                return StepPlan(decode=False)
            evicted, tokens, free = make_room(view, self.victim.rank)
            if evicted and self.prefix_caching:
                return self._evict_only(view, evicted[0])
        if view.n_prefill and self.shape.chunked:
            left, tokens, free = self._continue(view, work, evicted, tokens, free)
        if self._by_chunk and free < 0:
            if self._dropped_pin(view, evicting):
                return StepPlan(decode=False)
            return self._evict_only(view, self.victim.rank(view.running)[-1].sid)
        if evicted:
            return self._evict(view, work, evicted)
        if evicting and not work and not view.n_decode:
            evicting = False  # nothing is left that the evictions could have made room for
        intake = self._intake
        seats = self.max_seqs - view.n_running
        waits = view.n_waiting
        refused = intake.refused
        if waits and tokens < self._budget and seats > 0 and not evicting and not refused:
            begun = len(work)
            refused, rejected, known, more = intake.fill(view, work, self._budget - tokens, free, seats)
            if rejected:
                return StepPlan(tuple(work), bool(work), reject=rejected)
            if intake.yielded and len(work) == begun:
                return StepPlan(decode=False)
            left = known or left
            tokens += more
            seats -= len(work) - begun
            waits -= len(work) - begun
        return self._hold(work, left, tokens < self._budget and seats > 0, waits, refused, evicting)

    def _prompts_first(self, view: EngineView, evicting: bool) -> StepPlan:
        intake = self._intake
        seats = self.max_seqs - view.n_running
        waits = view.n_waiting
        if waits and seats > 0 and not evicting and not intake.refused:
            work: list[Work] = []
            rejected = intake.fill(view, work, self._budget, view.free_blocks, seats).rejected
            if work or rejected or intake.yielded:
                return StepPlan(tuple(work), False, reject=rejected)
        if view.n_decode and view.free_blocks - view.decode_need < 1:
            if self._dropped_pin(view, evicting):
                return StepPlan(decode=False)
            evicted, _, _ = make_room(view, self.victim.rank)
            if evicted:
                return self._evict_only(view, evicted[0]) if self.prefix_caching else self._evict(view, [], evicted)
        return self._hold([], 0, seats > 0, waits, intake.refused, evicting)

    def _continue(
        self, view: EngineView, work: list[Work], evicted: Sequence[int], tokens: int, free: int
    ) -> tuple[int, int, int]:
        """Chunks of admitted prompts. (what the last one has left, tokens, free blocks)."""
        left = 0
        prefills = view.prefills if self.limits.pp == 1 or self._by_chunk else sorted(view.prefills, key=by_arrival)
        for seq in prefills:
            if tokens >= self._budget:
                break
            if seq.sid in evicted:
                continue
            done = seq.n_computed
            left = seq.n_known - done
            n = min(left, self._budget - tokens)
            if self._by_chunk:
                free -= max(0, -(-(done + n) // self.block_size) - seq.kv_blocks)
            work.append(Work(seq.sid, n))
            tokens += n
        return left, tokens, free

    def _hold(self, work: list[Work], left: int, room: bool, waits: int, refused: bool, evicting: bool) -> StepPlan:
        """The plan, for as long as asking again would give the same one."""
        intake = self._intake
        if len(work) > 1 or evicting or intake.yielded or (refused and self.prefix_caching and not intake.sticky):
            return StepPlan(tuple(work), headroom=self._headroom)
        wake = FINISH
        if room and not waits:
            wake = ARRIVAL if not (work or self.pins) else ARRIVAL | FINISH
        elif self._dynamic:
            wake = ARRIVAL | FINISH
        until = intake.until() if room and waits else math.inf
        if not work:
            return self._decodes[wake] if until == math.inf else self._decodes[wake]._replace(wake_at=until)
        return StepPlan(tuple(work), repeat=left // work[0].n_tokens, wake=wake, headroom=self._headroom, wake_at=until)

    def _dropped_pin(self, view: EngineView, evicting: bool) -> bool:
        """Whether a pin could be dropped before anybody who runs is evicted; then the engine asks again at once."""
        if self.pins is None or not self.pins.yield_to(None, view.n_running):
            return False
        self._evicting = evicting
        return True

    def _evict(self, view: EngineView, work: list[Work], evicted: tuple[int, ...]) -> StepPlan:
        self._intake.evicted(view, evicted)
        return StepPlan(tuple(work), evict=evicted)

    def _evict_only(self, view: EngineView, sid: int) -> StepPlan:
        """Evict one and be asked again at once: only the engine knows what of its blocks is shared, and so what that frees."""
        self._evicting = True
        return self._evict(view, [], (sid,))._replace(decode=False)
