"""The solver for blocking job shops with swaps: annealed iterated greedy search on every worker, each cooling twice as long as the last."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Schedule, require
from rota.errors import UnsupportedPolicy
from rota.policies.solvers.blocking import build, iterate
from rota.policies.solvers.disjunctive import job_shop
from rota.policies.solvers.incumbent import Incumbent
from rota.policies.solvers.job_shop import lower_bound, schedule_of
from rota.policies.solvers.recognise import NamedShop, as_job_shop
from rota.policies.solvers.threads import in_threads

#: Jobs taken out at once, at most; shares of the makespan that a step may cost at first and at last, one time in e.
MOST, HOT, COLD = 6, 0.01, 0.001
#: Seconds of the first cooling as a share of the budget; seconds between two looks at the clock.
_FIRST, _SLICE = 0.06, 0.5


@dataclass(frozen=True, slots=True)
class BlockingSearch:
    """Iterated greedy search; the bound is that of single machines without blocking."""

    name: str = "iterated-greedy"

    def capabilities(self) -> frozenset[Feature]:
        """Job shops whose machines are held until the next operation starts."""
        return frozenset({"makespan", "until"})

    def prepare(self) -> None:
        """Compile, which is not to count as time of the search."""
        _compile()

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The best schedule found; `hint` is the first to be improved."""
        require(self, problem)
        named = as_job_shop(problem, self.name, blocking=True)
        _refuse_empty(named, self.name)
        self.prepare()
        incumbent = Incumbent(problem, budget, on_progress)
        incumbent.raise_bound(lower_bound(named.shop))
        given = None if hint is None else np.array([hint.start[task] for task in named.tasks], np.int64)
        search = _Search(named, budget, incumbent, given)
        try:
            in_threads(search.work, budget.workers or os.cpu_count() or 1)
        except KeyboardInterrupt:
            incumbent.interrupted = True
        return incumbent.outcome(self.name)


@cache
def _compile() -> None:
    shop = job_shop([[(0, 1), (1, 1)], [(1, 1), (0, 1)]])
    firsts = np.array([0, 2])
    iterate(shop, build(shop, np.arange(2), firsts), firsts, 2, HOT, COLD, 1, 0, np.ones(1, np.int64))


def _refuse_empty(named: NamedShop, solver: str) -> None:
    # two empty operations at one instant have no order by time, on which the method rests
    empty = np.flatnonzero(named.shop.duration[:-1] == 0)
    if len(empty):
        raise UnsupportedPolicy(f"{solver} needs durations above 0; task {named.tasks[empty[0]]} has none; choose another solver")


@dataclass
class _Search:
    named: NamedShop
    budget: Budget
    incumbent: Incumbent
    given: np.ndarray[tuple[int], np.dtype[np.int64]] | None

    def work(self, worker: int, stop: threading.Event) -> None:
        """One cooling after the other, until the incumbent is done."""
        shop = self.named.shop
        rng = np.random.default_rng([self.budget.seed, worker])
        state = rng.integers(1, 2**62, 1)
        firsts = np.flatnonzero(shop.before[:-1] == len(shop.job) - 1)
        lasts = _FIRST * self.budget.wall_s
        rate = 100.0  # rounds per second, first guess
        while not stop.is_set() and not self.incumbent.done:
            start = build(shop, rng.permutation(len(firsts)), firsts)
            if self.given is not None:
                start, self.given = self.given, None
            self._offer(start)
            began = time.perf_counter()
            # what would be too short to cool again is given to this one
            ends = min(lasts, self.incumbent.left) if self.incumbent.left > 2 * lasts else self.incumbent.left
            while not stop.is_set() and not self.incumbent.done:
                passed = (time.perf_counter() - began) / max(ends, 1e-6)
                if passed >= 1:
                    break
                slice_s = min(_SLICE, ends * (1 - passed))
                rounds = max(1, int(rate * slice_s))
                hot, cold = (HOT + (COLD - HOT) * share for share in (passed, min(1.0, passed + slice_s / ends)))
                then = time.perf_counter()
                start, best, _ = iterate(shop, start, firsts, rounds, hot, cold, MOST, self.incumbent.bound or 0, state)
                rate = rounds / max(time.perf_counter() - then, 1e-6)
                self._offer(best)
            lasts *= 2

    def _offer(self, start: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        length = int((start + self.named.shop.duration[:-1]).max())
        self.incumbent.offer(length, lambda: schedule_of(self.named, start))
