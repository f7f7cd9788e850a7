"""Job shops by a pool of solutions: two are crossed, tabu search improves the child, and it joins the pool if it is good and different.

In the manner of TS/PR (Peng, Lue and Cheng 2015). A child is what lies between its parents' start times: both respect every job's order,
so any weighted mean does, and where the parents agree on who goes first, so does the child. No repair is ever needed. Several threads work on
one pool (compiled searches do not hold Python's lock).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from rota.policies.solvers.disjunctive import Graph, Ints, Shop, graph
from rota.policies.solvers.tabu import tabu_search
from rota.policies.solvers.threads import in_threads

#: Solutions kept; moves per operation, and at most, without improvement after which one search ends; children in a row that failed to join
#: before the pool starts anew.
POOL, PATIENCE, LONGEST, STALE = 12, 25, 12_500, 24
#: One search lasts at most about this long, in seconds, so that limits are kept.
_SLICE = 4.0


@dataclass
class Pool:
    """What the threads share."""

    shop: Shop
    size: int
    on_better: Callable[[Ints, int], None] | None = None
    members: list[tuple[int, Graph]] = field(default_factory=list)
    best: int = 2**62
    line: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    rejected: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, line: Ints, value: int) -> None:
        """A finished search: remember the best, and let it join the pool."""
        g = graph(self.shop, line)
        with self.lock:
            if value < self.best:
                self.best, self.line = value, line
                if self.on_better:
                    self.on_better(line, value)
            self.rejected += 1
            near = [m for m in self.members if np.count_nonzero(m[1].prev != g.prev) * 20 < len(line)]
            if near:
                closest = max(near, key=lambda m: m[0])
                if value < closest[0]:
                    self._replace(closest, (value, g))
            elif len(self.members) < self.size:
                self.members.append((value, g))
                self.rejected = 0
            else:
                worst = max(self.members, key=lambda m: m[0])
                if value < worst[0]:
                    self._replace(worst, (value, g))
            if self.rejected > STALE:
                self.members = []  # the best too, which would draw all others to itself again
                self.rejected = 0

    def _replace(self, old: tuple[int, Graph], new: tuple[int, Graph]) -> None:
        self.members = [m for m in self.members if m is not old] + [new]
        self.rejected = 0

    def next_line(self, todo: list[Ints], rng: np.random.Generator) -> Ints:
        """Where to search next: from `todo` while there is something, at random while the pool fills, then between two members."""
        with self.lock:
            if todo:
                return todo.pop(0)
            if len(self.members) < self.size:
                return random_line(self.shop, rng)
            i, j = rng.choice(len(self.members), 2, replace=False)
            (_, a), (_, b) = self.members[i], self.members[j]
        return between(a, b, rng.uniform(0.3, 0.7))


def between(a: Graph, b: Graph, weight: float) -> Ints:
    """The linear order by the weighted mean of two solutions' start times (places in the line decide ties)."""
    n = len(a.line)
    at = (1 - weight) * a.head[:n] + weight * b.head[:n]
    place = (1 - weight) * a.place[:n] + weight * b.place[:n]
    return np.lexsort((place, at)).astype(np.int64)


def random_line(shop: Shop, rng: np.random.Generator) -> Ints:
    """A random linear order: the jobs' operations, each job's in its order, shuffled."""
    jobs = rng.permutation(shop.job[:-1])
    by_job = np.argsort(jobs, kind="stable")
    line = np.empty(len(jobs), np.int64)
    line[by_job] = np.arange(len(jobs))
    return line


def evolve(
    shop: Shop,
    wall_s: float,
    workers: int = 1,
    seed: int = 0,
    starts: list[Ints] | None = None,
    target: int = 0,
    on_better: Callable[[Ints, int], None] | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> tuple[Ints, int]:
    """The best linear order found within `wall_s` seconds on `workers` threads, and its makespan.

    Parameters
    ----------
    starts : list of array (operations,), optional
        Linear orders to improve first.
    target : int
        A lower bound: stop when it is reached.
    on_better : callable, optional
        Called with every new best order and makespan, one call at a time.
    enough : callable, optional
        Asked between searches whether to stop.
    """
    until = time.perf_counter() + wall_s
    pool = Pool(shop, POOL, on_better)
    todo = list(starts or [])
    patience = min(LONGEST, PATIENCE * len(shop.job))

    def work(worker: int, stop: threading.Event) -> None:
        rng = np.random.default_rng([seed, worker])
        state = rng.integers(1, 2**62, 1)
        rate = 1000.0  # moves per second, first guess
        while pool.best > target and not stop.is_set() and not (len(pool.line) and enough()):
            left = until - time.perf_counter()
            if left <= 0 and len(pool.line):
                return
            line = pool.next_line(todo, rng)
            began = time.perf_counter()
            most = max(10, int(rate * min(_SLICE, max(left, 0))))
            line, value, moves = tabu_search(shop, line, patience, most, target, state)
            rate = max(1.0, moves / max(time.perf_counter() - began, 1e-6))
            pool.add(line, value)

    in_threads(work, workers)
    return pool.line, pool.best
