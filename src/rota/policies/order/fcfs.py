"""First come, first served, evicted ones ahead: the order in which the engine keeps its queue."""

from __future__ import annotations

from collections.abc import Iterator

from rota.contracts.serving import EngineView, Limits, SeqView


class Fcfs:
    """The engine's own queue. With ``by_priority`` the engine keeps it by (priority, arrival) instead, as vLLM's ``priority`` does."""

    dynamic = False

    def __init__(self, *, by_priority: bool = False) -> None:
        self.keeps = "priority" if by_priority else "fcfs"
        self.dynamic = by_priority

    def start(self, limits: Limits) -> None:
        """Nothing to forget."""

    def joins(self, seq: SeqView, evicted: bool) -> None:
        """The engine has put it into its place."""

    def queue(self, view: EngineView) -> Iterator[SeqView]:
        """The engine's queue."""
        return view.waiting

    def leaves(self, seq: SeqView, admitted: bool) -> None:
        """The engine takes it out."""

    def finished(self, seq: SeqView) -> None:
        """Nothing to learn."""
