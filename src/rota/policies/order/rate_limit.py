"""A limit on each tenant's requests per minute: what gateways do. It keeps the heavy in check, and keeps them there when nobody else asks."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rota.contracts.serving import EngineView, Limits, SeqView
from rota.policies.batching.policy import whole
from rota.policies.order.tenants import TenantQueues

MINUTE = 60.0


class RateLimit:
    """First come, first served among those below their limit; requests above it wait for the next minute.

    Parameters
    ----------
    requests_per_minute : int
        For each tenant, in minutes that begin at 0 s, 60 s, ...
    """

    dynamic = True
    keeps = "fcfs"
    until = math.inf

    def __init__(self, requests_per_minute: int = 60) -> None:
        self.requests_per_minute = whole("requests_per_minute", requests_per_minute)

    def start(self, limits: Limits) -> None:
        """A new engine: forget everything."""
        self.until = math.inf
        self._queued = TenantQueues()
        self._used: dict[int, int] = {}  # requests begun in this minute, by tenant
        self._again: set[int] = set()  # evicted requests, which have been counted
        self._minute = -1

    def joins(self, seq: SeqView, evicted: bool) -> None:
        """Behind the tenant's other requests; an evicted one before them."""
        self._queued.join(seq, evicted)
        if evicted:
            self._again.add(seq.sid)

    def queue(self, view: EngineView) -> Iterator[SeqView]:
        """The earliest arrival whose tenant is below its limit."""
        minute = int(view.now // MINUTE)
        if minute != self._minute:
            self._minute = minute
            self._used.clear()
        self.until = (minute + 1) * MINUTE
        while heads := [queue[0] for tenant, queue in self._queued.items() if self._below(tenant, queue[0][1])]:
            yield view.seq(min(heads)[1])

    def leaves(self, seq: SeqView, admitted: bool) -> None:
        """It counts when it begins."""
        self._queued.leave(seq)
        if seq.sid in self._again:
            self._again.remove(seq.sid)
        elif admitted:
            self._used[seq.tenant] = self._used.get(seq.tenant, 0) + 1

    def finished(self, seq: SeqView) -> None:
        """Nothing to learn."""

    def _below(self, tenant: int, sid: int) -> bool:
        return sid in self._again or self._used.get(tenant, 0) < self.requests_per_minute
