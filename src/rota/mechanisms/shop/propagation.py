"""A job shop as an environment of ordering decisions: earliest starts of all operations, propagated after every start.

Two constraints move them: an operation starts no earlier than the one before it in its job ends, and one that would overlap a started
operation on its machine waits until that ends. Time only moves on, so started operations never lie behind earliest starts, and per machine
the last end says it all. The shop waits by moving every job's next operation to the next event.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.contracts.ordering import Ints, OrderingRule, OrderingView
from rota.contracts.shop import Problem, Schedule
from rota.errors import UnsupportedPolicy
from rota.jit import njit
from rota.mechanisms.shop.compiled import Columns, columns
from rota.mechanisms.shop.plant import plant
from rota.workload.shop.realization import Realization


class Bounds(NamedTuple):
    """All that changes: starts or earliest starts (operations,), next operation (jobs,), last end (machines,). Changed in place."""

    start: Ints
    following: Ints
    free: Ints


class Ordered(NamedTuple):
    """What came out: the schedule, its makespan, how often the rule was asked, and how often it waited although something could start."""

    schedule: Schedule
    makespan: int
    decisions: int
    waits: int


class Propagation:
    """A partial schedule that a rule completes; `snapshot` and `restore` go back to any instant.

    Raises
    ------
    UnsupportedPolicy
        If the problem is not a job shop with one machine per operation and room to wait.
    """

    def __init__(self, problem: Problem) -> None:
        shop = columns(plant(problem, Realization()))
        if shop is None or shop.blocking:
            raise UnsupportedPolicy(f"{problem.name} is not a job shop without blocking, with one machine and mode per operation, to order")
        self.problem = problem
        self.shop: Columns = shop
        start = np.full(len(shop.machine), -1, np.int64)
        self._bounds = Bounds(start, shop.first[:-1].copy(), np.zeros(len(shop.down_first) - 1, np.int64))
        for job, at in enumerate(shop.arrival):
            _postpone(shop.first, shop.expected, shop.machine, self._bounds, job, shop.first[job], at)
        self.decisions = self.waits = 0

    @property
    def done(self) -> bool:
        """Whether every operation has started."""
        return bool((self._bounds.following == self.shop.first[1:]).all())

    def snapshot(self) -> tuple[Bounds, int, int]:
        """The partial schedule, apart from what goes on here."""
        return Bounds(*(part.copy() for part in self._bounds)), self.decisions, self.waits

    def restore(self, state: tuple[Bounds, int, int]) -> None:
        """Go back to a snapshot of this shop."""
        bounds, self.decisions, self.waits = state
        self._bounds = Bounds(*(part.copy() for part in bounds))

    def view(self) -> OrderingView:
        """The shop now; not to be asked for when it is done."""
        shop, (start, following, _) = self.shop, self._bounds
        now, following_event, legal, since = _look(shop.first, shop.expected, shop.arrival, start, following)
        return OrderingView(now, following_event, legal, following, since, shop.first, shop.machine, shop.expected, start)

    def step(self, order: Ints, who: str = "the rule") -> None:
        """Start the jobs in this order, and wait where it says so.

        Raises
        ------
        UnsupportedPolicy
            If the order is empty, names a job twice, or names one that cannot start, or waiting, when it is given.
        """
        view, shop = self.view(), self.shop
        jobs = len(view.following)
        wrong = [int(j) for j in order if not 0 <= j <= jobs or not view.legal[j]]
        if wrong:
            what = "waits" if wrong[0] == jobs else f"starts job {wrong[0]}"
            raise UnsupportedPolicy(f"{who} {what} at {view.now} in {self.problem.name}, which is not possible")
        if not len(order) or len(set(map(int, order))) < len(order):
            raise UnsupportedPolicy(f"{who} gives an order at {view.now} in {self.problem.name} that is empty or names a job twice")
        self.decisions += 1
        self.waits += _step(shop.first, shop.expected, shop.machine, self._bounds, np.asarray(order, np.int64), view.now)

    def run(self, rule: OrderingRule) -> Ordered:
        """Go on until everything has started."""
        while not self.done:
            self.step(rule.order(self.view()), rule.name)
        names = [self.problem.tasks[t].id for t in self.shop.task]
        start = self._bounds.start
        schedule = Schedule(dict(zip(names, start.tolist(), strict=True)), dict.fromkeys(names, 0))
        return Ordered(schedule, int((start + self.shop.expected).max()), self.decisions, self.waits)


@njit(cache=True, nogil=True)
def _postpone(first: Ints, duration: Ints, machine: Ints, bounds: Bounds, job: int, op: int, at: int) -> None:
    """`op` of `job` starts no earlier than `at`; what that means for those behind it."""
    start = bounds.start
    while op < first[job + 1]:
        at = max(at, bounds.free[machine[op]])
        if start[op] >= at:
            return
        start[op] = at
        at += duration[op]
        op += 1


@njit(cache=True, nogil=True)
def _begin(first: Ints, duration: Ints, machine: Ints, bounds: Bounds, job: int) -> None:
    """Start the job's next operation at its earliest start, and keep its machine from all others until it ends."""
    op = bounds.following[job]
    end = bounds.start[op] + duration[op]
    bounds.following[job] += 1
    bounds.free[machine[op]] = end
    _postpone(first, duration, machine, bounds, job, op + 1, end)
    for other in range(len(bounds.following)):
        for later in range(bounds.following[other], first[other + 1]):
            if machine[later] == machine[op] and bounds.start[later] < end:
                _postpone(first, duration, machine, bounds, other, later, end)


@njit(cache=True, nogil=True)
def _events(first: Ints, start: Ints, following: Ints) -> tuple[int, int]:
    """The two earliest different starts of next operations; -1 where there is none."""
    now, then = -1, -1
    for job in range(len(following)):
        if following[job] < first[job + 1]:
            at = start[following[job]]
            if now < 0 or at < now:
                now, then = at, now
            elif at > now and (then < 0 or at < then):
                then = at
    return now, then


@njit(cache=True, nogil=True)
def _look(first: Ints, duration: Ints, arrival: Ints, start: Ints, following: Ints) -> tuple[int, int, NDArray[np.bool_], Ints]:
    """Now, the next event, what is legal, and since when jobs wait."""
    jobs = len(following)
    now, then = _events(first, start, following)
    legal, since = np.zeros(jobs + 1, np.bool_), np.zeros(jobs, np.int64)
    for job in range(jobs):
        op = following[job]
        legal[job] = op < first[job + 1] and start[op] == now
        since[job] = start[op - 1] + duration[op - 1] if op > first[job] else arrival[job]
    legal[jobs] = then >= 0
    return now, then, legal, since


@njit(cache=True, nogil=True)
def _step(first: Ints, duration: Ints, machine: Ints, bounds: Bounds, order: Ints, now: int) -> int:
    """Apply an order until the instant is over; 1 if it was ended by waiting, while something could start."""
    jobs = len(bounds.following)
    for job in order:
        if job == jobs:
            still, then = _events(first, bounds.start, bounds.following)
            able = still == now and then >= 0
            for other in range(jobs):
                if able and bounds.following[other] < first[other + 1]:
                    _postpone(first, duration, machine, bounds, other, bounds.following[other], then)
            return int(able)
        op = bounds.following[job]
        if op < first[job + 1] and bounds.start[op] == now:
            _begin(first, duration, machine, bounds, job)
    return 0
