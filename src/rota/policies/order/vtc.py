"""Virtual token counter: the tenant that has been served least comes next, where service is tokens at a price.

Serving is work-conserving and nobody is evicted for fairness; what differs from first come, first served is only whose oldest request is next.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import numpy as np

from rota.contracts.serving import EngineView, Limits, SeqView
from rota.errors import InputError
from rota.policies.order.prices import ACCOUNT_ROWS, PAPER_COST, Cost, Counters, charge, cost_of
from rota.policies.order.tenants import TenantQueues

#: Outputs of a tenant whose mean predicts its next one.
RECENT = 5
#: Counters of absent tenants are looked through for dispensable ones when there are this many more than after the last time.
SLACK = 64


class VTC:
    """The smallest counter first.

    A tenant's counter grows by the cost of what it is served, divided by its weight: the prompt at (first) admission, output as it comes. A
    tenant whose queue was empty is lifted to the smallest counter of those with work waiting, so idling earns no credit. This happens
    when the next choice is due, as does the count of output tokens.

    Parameters
    ----------
    cost : Cost
    weights : tuple of float
        By tenant; tenants beyond it have weight 1.
    predict : bool
        Charge the mean of the tenant's last five outputs at admission, and what is beyond it as it comes; settled at the end.
    """

    dynamic = True
    keeps = "fcfs"

    def __init__(self, cost: Cost = PAPER_COST, weights: tuple[float, ...] = (), predict: bool = False) -> None:
        if not all(0 < weight < math.inf for weight in weights):
            raise InputError(f"weights must be positive numbers, not {'/'.join(f'{w:g}' for w in weights)}")
        self.cost, self.weights, self.predict = cost, weights, predict

    def start(self, limits: Limits) -> None:
        """A new engine: forget everything."""
        self.counters = Counters()
        self._queued = TenantQueues()
        self._arrived: dict[int, None] = {}  # tenants to be lifted, in order
        self._running: list[int] = []  # requests in order of admission, as in `EngineView.held`; their tenants; and their accounts
        self._tenants: list[int] = []
        self._accounts = np.zeros((ACCOUNT_ROWS, limits.max_seqs))
        self._evicted: dict[int, tuple[float, float]] = {}  # cost counted, and output predicted, of those that wait again
        self._recent: dict[int, deque[int]] = {}
        self._last = -1  # the tenant who was last to leave the queue
        self._kept = 0

    def joins(self, seq: SeqView, evicted: bool) -> None:
        """Behind the tenant's other requests; an evicted one before them, and not as an arrival."""
        alone = self._queued.join(seq, evicted)
        if evicted:
            paid, predicted = self._close(seq.sid)
            self._evicted[seq.sid] = self._charge(seq, seq.tenant, paid, predicted), predicted
        elif alone:
            self._arrived[seq.tenant] = None

    def queue(self, view: EngineView) -> Iterator[SeqView]:
        """The oldest request of the tenant with the smallest counter; the earlier one where counters are equal."""
        charge(view.held, self._accounts, self.counters.array, *self.cost)
        self._lift()
        self._forget()
        while self._queued:
            array, place = self.counters.array.tolist(), self.counters.place
            yield view.seq(min([(array[place[tenant]], queue[0]) for tenant, queue in self._queued.items()])[1][1])

    def leaves(self, seq: SeqView, admitted: bool) -> None:
        """Its tenant pays for the prompt."""
        tenant = self._last = seq.tenant
        self._queued.leave(seq)
        paid, predicted = self._evicted.pop(seq.sid, (0.0, None))
        if not admitted:
            return
        if predicted is None:
            recent = self._recent.get(tenant) if self.predict else None
            predicted = round(sum(recent) / len(recent)) if recent else 0.0
        paid = self._charge(seq, tenant, paid, predicted)
        accounts, at = self._accounts, len(self._running)
        accounts[0, at], accounts[1, at], accounts[2, at] = paid, predicted, self._weight(tenant)
        accounts[3, at] = self.counters.place[tenant]
        self._running.append(seq.sid)
        self._tenants.append(tenant)

    def finished(self, seq: SeqView) -> None:
        """The last of its tokens; a prediction that was too long is paid back."""
        tenant = seq.tenant
        self._charge(seq, tenant, self._close(seq.sid)[0], 0.0)
        if self.predict:
            self._recent.setdefault(tenant, deque(maxlen=RECENT)).append(seq.n_known - seq.n_prompt)

    def _charge(self, seq: SeqView, tenant: int, paid: float, predicted: float) -> float:
        """Charge what a request has got since it had paid so much. Its cost."""
        prompt = seq.n_prompt
        cost = cost_of(prompt, max(seq.n_known - prompt, predicted), *self.cost)
        self.counters.array[self.counters.place[tenant]] += (cost - paid) / self._weight(tenant)
        return cost

    def _close(self, sid: int) -> tuple[float, float]:
        """A request runs no longer. Its cost counted, and output predicted."""
        at, n = self._running.index(sid), len(self._running)
        accounts = self._accounts
        paid, predicted = accounts.item(0, at), accounts.item(1, at)
        if at < n - 1:
            accounts[:, at : n - 1] = accounts[:, at + 1 : n]
        del self._running[at], self._tenants[at]
        return paid, predicted

    def _weight(self, tenant: int) -> float:
        return self.weights[tenant] if tenant < len(self.weights) else 1.0

    def _lift(self) -> None:
        if not self._arrived:
            return
        counters = self.counters
        level = min([counters[tenant] for tenant in self._queued if tenant not in self._arrived], default=None)
        for tenant in self._arrived:
            least = counters.get(self._last, 0.0) if level is None else level
            lifted = counters[tenant] = max(counters.get(tenant, 0.0), least)
            level = lifted if level is None else level
        self._arrived.clear()

    def _forget(self) -> None:
        """Drop counters of absent tenants that a return would lift anyway. Paying back may lower the level, so not with predictions."""
        if self.predict or len(self.counters) <= self._kept + SLACK:
            return
        present = {*self._queued, *self._tenants, self._last}
        level = min(self.counters[tenant] for tenant in present if tenant in self.counters)
        for tenant in [tenant for tenant, counter in self.counters.items() if tenant not in present and counter <= level]:
            del self.counters[tenant]
        self._kept = len(self.counters)
