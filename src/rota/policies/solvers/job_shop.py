"""Solvers for job shops: one dispatch rule, its best rollouts, and tabu search with a pool."""

from __future__ import annotations

import heapq
import os
from dataclasses import dataclass
from functools import cache

import numpy as np

from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Schedule, require
from rota.jit import njit
from rota.policies.dispatch.priorities import PRIORITIES, priorities
from rota.policies.dispatch.sequencing import Ints
from rota.policies.solvers.disjunctive import Shop, graph, job_shop
from rota.policies.solvers.evolve import evolve
from rota.policies.solvers.generation import line_of
from rota.policies.solvers.incumbent import Incumbent
from rota.policies.solvers.recognise import NamedShop, as_job_shop
from rota.policies.solvers.rollouts import rollouts
from rota.policies.solvers.tabu import tabu_search

_FEATURES: frozenset[Feature] = frozenset({"makespan"})


@dataclass(frozen=True, slots=True)
class DispatchRule:
    """A rule of `PRIORITIES` run once in a non-delay schedule, or, with `best_of_many`, with noise for as long as the budget lasts."""

    rule: str
    best_of_many: bool = False

    @property
    def name(self) -> str:
        """As on the command line."""
        return self.rule.lower() + ("-rollouts" if self.best_of_many else "")

    def capabilities(self) -> frozenset[Feature]:
        """Plain job shops."""
        return _FEATURES

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The rule's schedule, or the best of its rollouts."""
        require(self, problem)
        named = as_job_shop(problem, self.name)
        incumbent = Incumbent(problem, budget, on_progress)
        incumbent.raise_bound(lower_bound(named.shop))
        schemes = "both" if self.best_of_many else "non-delay"
        try:
            for start, value in rollouts(named.shop, self.rule, budget.seed, schemes):
                incumbent.offer(value, lambda start=start: schedule_of(named, start))  # type: ignore[misc]
                if not self.best_of_many or incumbent.done:
                    break
        except KeyboardInterrupt:
            incumbent.interrupted = True
        return incumbent.outcome(self.name)


@dataclass(frozen=True, slots=True)
class TabuSearch:
    """Tabu search with a pool, on all workers, from every rule's schedule; the bound is that of single machines."""

    name: str = "tabu"

    def capabilities(self) -> frozenset[Feature]:
        """Plain job shops."""
        return _FEATURES

    def prepare(self) -> None:
        """Compile, which is not to count as time of the search."""
        _compile()

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The best schedule found; proven where it meets the bound."""
        require(self, problem)
        named = as_job_shop(problem, self.name)
        self.prepare()
        incumbent = Incumbent(problem, budget, on_progress)
        search(named, incumbent, budget, hint)
        return incumbent.outcome(self.name)


@cache
def _compile() -> None:
    shop = job_shop([[(0, 2), (1, 1)], [(1, 2), (0, 1)], [(0, 1), (1, 1)]])
    start, _ = next(rollouts(shop, "MWKR", schemes="non-delay"))
    lower_bound(shop)
    tabu_search(shop, line_of(shop, start), 1, 1, 0, np.ones(1, np.int64))


def search(named: NamedShop, incumbent: Incumbent, budget: Budget, hint: Schedule | None) -> None:
    """Improve the incumbent by tabu search until it is done."""
    shop = named.shop
    incumbent.raise_bound(lower_bound(shop))

    def better(line: Ints, value: int) -> None:
        incumbent.offer(value, lambda: schedule_of(named, graph(shop, line).head[:-1]))

    starts = []
    if hint is not None:
        starts.append(line_of(shop, np.array([hint.start[task] for task in named.tasks], np.int64)))
    try:
        for rule in PRIORITIES:
            start, value = next(rollouts(shop, rule, schemes="non-delay"))
            incumbent.offer(value, lambda start=start: schedule_of(named, start))  # type: ignore[misc]
            starts.append(line_of(shop, start))
            if incumbent.done:
                return
        workers = budget.workers or os.cpu_count() or 1
        evolve(shop, incumbent.left, workers, budget.seed, starts, incumbent.bound or 0, better, lambda: incumbent.done)
    except KeyboardInterrupt:
        incumbent.interrupted = True


def schedule_of(named: NamedShop, start: Ints) -> Schedule:
    """Start times by task."""
    return Schedule(dict(zip(named.tasks, start.tolist(), strict=True)), dict.fromkeys(named.tasks, 0))


def lower_bound(shop: Shop) -> int:
    """The longest job, or the largest preemptive one-machine bound (Jackson 1955; Carlier 1982) with heads and tails along the jobs."""
    n = len(shop.job) - 1
    duration = shop.duration[:n]
    total = np.bincount(shop.job[:n], duration).astype(np.int64)[shop.job[:n]]
    tail = priorities("LWKR", duration, shop.job[:n]).astype(np.int64)
    bound = int(total.max())
    by_machine = np.argsort(shop.machine[:n], kind="stable")
    for ops in np.split(by_machine, np.flatnonzero(np.diff(shop.machine[by_machine])) + 1):
        bound = max(bound, _one_machine(total[ops] - tail[ops], duration[ops], tail[ops] - duration[ops]))
    return bound


@njit(cache=True)
def _one_machine(head: Ints, duration: Ints, rest: Ints) -> int:
    """Makespan of one machine when operations may be interrupted: always the released one with the most left after it."""
    order = np.argsort(head)
    left = duration.copy()
    waiting = [(np.int64(0), np.int64(0)) for _ in range(0)]
    now, at, longest = np.int64(0), 0, np.int64(0)
    while at < len(order) or len(waiting) > 0:
        if len(waiting) == 0:
            now = max(now, head[order[at]])
        while at < len(order) and head[order[at]] <= now:
            heapq.heappush(waiting, (-rest[order[at]], order[at]))
            at += 1
        op = waiting[0][1]
        step = left[op]
        if at < len(order):
            step = min(step, head[order[at]] - now)
        now += step
        left[op] -= step
        if left[op] == 0:
            heapq.heappop(waiting)
            longest = max(longest, now + rest[op])
    return int(longest)
