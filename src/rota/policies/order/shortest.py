"""Shortest prompt first, by the tokens that are known to be needed: what an evicted request has generated counts too.

Good for the mean and hard on long prompts, which wait for as long as shorter ones keep coming.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from rota.contracts.serving import EngineView, Limits, SeqView


class ShortestPrompt:
    """A heap of what waits, by (known tokens, arrival)."""

    dynamic = True
    keeps = "fcfs"

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, int]] = []

    def start(self, limits: Limits) -> None:
        """Forget the queue."""
        self._heap = []

    def joins(self, seq: SeqView, evicted: bool) -> None:
        """Into its place."""
        heapq.heappush(self._heap, (seq.n_known, seq.arrival, seq.sid))

    def queue(self, view: EngineView) -> Iterator[SeqView]:
        """The shortest, then the next."""
        while self._heap:
            yield view.seq(self._heap[0][2])

    def leaves(self, seq: SeqView, admitted: bool) -> None:
        """It is the one offered last."""
        heapq.heappop(self._heap)

    def finished(self, seq: SeqView) -> None:
        """Nothing to learn."""
