"""Virtual token counter: the tenant that has been served least comes next, where service is tokens at a price.

Serving is work-conserving and nobody is evicted for fairness; what differs from first come, first served is only whose oldest request is next.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from rota.contracts.serving import H_KNOWN, H_PROMPT, H_SID, EngineView, Limits, SeqView
from rota.errors import InputError
from rota.policies.order.tenants import TenantQueues

#: What a request with so many prompt and output tokens has cost so far.
Cost = Callable[[int, int], float]
#: Outputs of a tenant whose mean predicts its next one.
RECENT = 5
#: Counters of absent tenants are looked through for dispensable ones when there are this many more than after the last time.
SLACK = 64


def linear(input_price: float, output_price: float, prompt: int, output: int) -> float:
    """Prices per token; output costs more because it is made one token at a time."""
    return input_price * prompt + output_price * output


#: Prices of the paper: an output token is twice an input token.
PAPER_COST: Cost = partial(linear, 1.0, 2.0)


def quadratic(prompt: int, output: int) -> float:
    """Fitted to measured time: tokens cost more the longer the context [Sheng et al., OSDI 2024]."""
    return 0.210 * prompt + 0.101 * output + 0.00399 * prompt * output + 0.00325 * output * output + 1.146


class VTC:
    """The smallest counter first.

    A tenant's counter grows by the cost of what it is served, divided by its weight: the prompt at (first) admission, output as it comes. A
    tenant whose queue was empty is lifted to the smallest counter of those with work waiting, so idling earns no credit. This happens
    when the next choice is due, as does the count of output tokens.

    Parameters
    ----------
    cost : callable
        Cost of a request with so many prompt and output tokens, such as ``partial(linear, 1.0, 2.0)``; must not fall with either.
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
        self.counters: dict[int, float] = {}
        self._queued = TenantQueues()
        self._arrived: dict[int, None] = {}  # tenants to be lifted, in order
        self._running: dict[int, int] = {}  # tenant by sid
        self._paid: dict[int, tuple[float, int]] = {}  # cost counted, and output predicted, of requests begun and not ended
        self._recent: dict[int, deque[int]] = {}
        self._last = -1  # the tenant who was last to leave the queue
        self._kept = 0

    def joins(self, seq: SeqView, evicted: bool) -> None:
        """Behind the tenant's other requests; an evicted one before them, and not as an arrival."""
        alone = self._queued.join(seq, evicted)
        if evicted:
            self._count(seq.sid, seq.tenant, seq.n_prompt, seq.n_known - seq.n_prompt)
            del self._running[seq.sid]
        elif alone:
            self._arrived[seq.tenant] = None

    def queue(self, view: EngineView) -> Iterator[SeqView]:
        """The oldest request of the tenant with the smallest counter; the earlier one where counters are equal."""
        for sid, prompt, known in view.held[:, [H_SID, H_PROMPT, H_KNOWN]].tolist():
            self._count(sid, self._running[sid], prompt, known - prompt)
        self._lift()
        self._forget()
        while self._queued:
            tenant = min(self._queued, key=lambda t: (self.counters[t], self._queued[t][0]))
            yield view.seq(self._queued[tenant][0][1])

    def leaves(self, seq: SeqView, admitted: bool) -> None:
        """Its tenant pays for the prompt."""
        tenant = seq.tenant
        self._queued.leave(seq)
        self._last = tenant
        if not admitted:
            self._paid.pop(seq.sid, None)
            return
        self._running[seq.sid] = tenant
        if seq.sid not in self._paid:
            recent = self._recent.get(tenant) if self.predict else None
            self._paid[seq.sid] = 0.0, round(sum(recent) / len(recent)) if recent else 0
        self._count(seq.sid, tenant, seq.n_prompt, seq.n_known - seq.n_prompt)

    def finished(self, seq: SeqView) -> None:
        """The last of its tokens; a prediction that was too long is paid back."""
        paid, _ = self._paid.pop(seq.sid)
        tenant = self._running.pop(seq.sid)
        output = seq.n_known - seq.n_prompt
        self._charge(tenant, self.cost(seq.n_prompt, output) - paid)
        if self.predict:
            self._recent.setdefault(tenant, deque(maxlen=RECENT)).append(output)

    def _count(self, sid: int, tenant: int, prompt: int, output: int) -> None:
        """Charge what a running request has got since it was last looked at."""
        paid, predicted = self._paid[sid]
        cost = self.cost(prompt, max(output, predicted))
        if cost != paid:
            self._paid[sid] = cost, predicted
            self._charge(tenant, cost - paid)

    def _charge(self, tenant: int, cost: float) -> None:
        weight = self.weights[tenant] if tenant < len(self.weights) else 1.0
        self.counters[tenant] += cost / weight

    def _lift(self) -> None:
        level = min((self.counters[tenant] for tenant in self._queued if tenant not in self._arrived), default=None)
        for tenant in self._arrived:
            least = self.counters.get(self._last, 0.0) if level is None else level
            self.counters[tenant] = max(self.counters.get(tenant, 0.0), least)
            level = self.counters[tenant] if level is None else level
        self._arrived.clear()

    def _forget(self) -> None:
        """Drop counters of absent tenants that a return would lift anyway. Paying back may lower the level, so not with predictions."""
        if self.predict or len(self.counters) <= self._kept + SLACK:
            return
        present = {*self._queued, *self._running.values(), self._last}
        level = min(self.counters[tenant] for tenant in present if tenant in self.counters)
        self.counters = {tenant: c for tenant, c in self.counters.items() if tenant in present or c > level}
        self._kept = len(self.counters)
