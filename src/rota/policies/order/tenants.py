"""A waiting queue for each tenant, for orders that choose between tenants."""

from __future__ import annotations

from collections import deque

from rota.contracts.serving import SeqView


class TenantQueues(dict[int, deque[tuple[float, int]]]):
    """(arrival, sid) of waiting requests by tenant, evicted ones first, then in order of arrival; tenants without any are not in it."""

    def join(self, seq: SeqView, evicted: bool) -> bool:
        """Add a request. Whether it is its tenant's only one."""
        queue = self.setdefault(seq.tenant, deque())
        if evicted:
            queue.appendleft((seq.arrival, seq.sid))
        else:
            queue.append((seq.arrival, seq.sid))
        return len(queue) == 1

    def leave(self, seq: SeqView) -> None:
        """Remove a request that was first of its tenant."""
        queue = self[seq.tenant]
        queue.popleft()
        if not queue:
            del self[seq.tenant]
