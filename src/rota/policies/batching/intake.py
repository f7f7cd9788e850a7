"""The queue's side of a composed policy: who joins, asking order, admission and retention, and how long a refusal of theirs stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rota.contracts.serving import EngineView, Ledger, Limits, SeqView, Work
from rota.policies.batching.compositions import Composition
from rota.policies.parts import Admission, Order, TimedOrder
from rota.policies.retention.pins import Pins


class Joined(NamedTuple):
    """What came of the queue: whether one was refused, which can never run, tokens that the last to join has left, and those of the step."""

    refused: bool
    rejected: tuple[int, ...]
    left: int
    tokens: int


class Intake:
    """Order, admission and pins at work.

    Parameters
    ----------
    order, admission
    pins : Pins or None
    shape : Composition
    prefix_caching : bool

    Attributes
    ----------
    sticky : bool
        Whether a refusal stands until something changes, because asking again at every step could answer otherwise.
    refused : bool
        One stands.
    yielded : bool
        In this plan a pin was dropped for the first in the queue.
    """

    def __init__(self, order: Order, admission: Admission, pins: Pins | None, shape: Composition, prefix_caching: bool) -> None:
        self.order, self.admission, self.pins, self.shape, self.prefix_caching = order, admission, pins, shape, prefix_caching
        self.sticky = order.dynamic or admission.learns
        self._timed = order if isinstance(order, TimedOrder) else None
        self._by_chunk = shape.reserve == "chunk"

    def start(self, limits: Limits, longest: int) -> int:
        """A new engine. The most known tokens with which a request can run: `longest`, or fewer."""
        self.order.start(limits)
        self.admission.start(limits)
        if self.pins:
            self.pins.start(limits)
        self.refused = self.yielded = False
        self._again = math.inf
        self._size = limits.block_size
        self._longest = min(longest, (limits.blocks - self.admission.spare) * limits.block_size)
        return self._longest

    def listen(self, view: EngineView, finished: Sequence[SeqView], arrived: Sequence[SeqView]) -> None:
        """Tell the parts what has arrived and finished."""
        self.yielded = False
        if self.refused and view.now >= self.until():
            self.refused = False
        for seq in finished:
            self.order.finished(seq)
            self.admission.finished(seq)
            self.refused = False
        for seq in arrived:
            self.order.joins(seq, False)
            if self.order.dynamic:
                self.refused = False

    def until(self) -> float:
        """When those who wait are to be asked for again although nothing happens."""
        until = self._timed.until if self._timed else math.inf
        return min(until, self._again) if self.refused else until

    def fill(self, view: EngineView, work: list[Work], budget: int, free: int, seats: int) -> Joined:
        """Add prompts to `work`, in order, as long as tokens, blocks and seats last."""
        order, admission, by_chunk = self.order, self.admission, self._by_chunk
        ledger: Ledger | None = view.ledger() if self.prefix_caching else None
        admission.begin(view)
        rejected: list[int] = []
        refused, left, room, waits = False, 0, budget, view.n_waiting
        for seq in order.queue(view):
            waits -= 1
            known = seq.n_known
            if known > self._longest:
                order.leaves(seq, False)
                if self.pins:
                    self.pins.rejected(seq)
                rejected.append(seq.sid)
                continue
            hit = seq.n_reusable if ledger else 0
            n = known - hit
            if n > budget:
                if not self.shape.chunked:
                    break
                n = budget
            upto = hit + n if by_chunk else known
            need = ledger.need(seq.sid, upto) if ledger else -(-upto // self._size)
            if need > free or not admission.admits(seq, free - need):
                self.yielded = self.pins is not None and self.pins.yield_to(seq, view.n_running + len(work))
                refused = not self.yielded
                break
            order.leaves(seq, True)
            if self.pins:
                self.pins.admitted(seq, hit, view.now)
            free -= need
            budget -= n
            seats -= 1
            left = known - hit
            work.append(Work(seq.sid, n, 0 if by_chunk else known))
            if budget == 0 or seats == 0 or waits == 0:
                break
            if ledger:
                ledger.reserve(seq.sid, upto)
        if refused:
            self.refused = self.sticky
            self._again = view.now + admission.again
        return Joined(refused, tuple(rejected), left, room - budget)

    def evicted(self, view: EngineView, sids: Sequence[int]) -> None:
        """Running requests are back in the queue."""
        for sid in sids:
            self.order.joins(view.seq(sid), True)
            if self.pins:
                self.pins.evicted(view.seq(sid))
        self.refused = False
