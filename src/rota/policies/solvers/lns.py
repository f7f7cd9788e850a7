"""Large-neighbourhood search around CP-SAT (Shaw 1998; Godard, Laborie, Nuijten 2005): part of the best schedule is planned anew, again and again.

Each worker takes a neighbourhood, freezes the rest to a partial order, and asks CP-SAT for something strictly better. Kinds of neighbourhoods
that find much are taken more often; what is searched to the end without success grows, what is not searched to the end in time shrinks. Once
a neighbourhood is everything, nothing better means that the schedule is optimal.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from typing import get_args

import numpy as np

from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Progress, Schedule, Status, require
from rota.policies.solvers.cpsat import CpSat, ortools_version, whole_bound
from rota.policies.solvers.evaluate import stage_values
from rota.policies.solvers.freeze import event_times, freeze
from rota.policies.solvers.neighbourhoods import NEIGHBOURHOODS, layout, middles
from rota.policies.solvers.threads import in_threads

#: Tasks of the first neighbourhood of each kind, and by how much it grows or shrinks.
FIRST, GROWTH = 30, 1.15
#: CP-SAT's own measure of work for one neighbourhood, about seconds; it does not depend on how busy the machine is.
EFFORT = 0.2
#: Share of a kind's score that one neighbourhood replaces, and the least score, so that none is forgotten.
_NEW, _LEAST = 0.15, 0.05


@dataclass(frozen=True, slots=True)
class NeighbourhoodSearch:
    """Large-neighbourhood search.

    Parameters
    ----------
    opening : float
        Share of the time that CP-SAT has first for the whole problem: it gives the bound, and a schedule where there is no hint.
    """

    name: str = "lns"
    opening: float = 0.1

    def capabilities(self) -> frozenset[Feature]:
        """All features."""
        return frozenset(get_args(Feature))

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The best schedule within the budget, the hint included; on Ctrl-C, the best so far."""
        require(self, problem)
        ortools_version(self.name)
        search = _Search(problem, budget, on_progress)
        status = search.open(hint, self.opening)
        if status == "feasible":
            try:
                in_threads(search.work, budget.workers or os.cpu_count() or 1)
            except KeyboardInterrupt:
                search.interrupted = True
        return search.outcome(self.name, status)


@dataclass(slots=True)
class _Kind:
    """How a kind of neighbourhood does."""

    size: float
    score: float = 1.0


class _Search:
    """The best so far, and what finds better."""

    def __init__(self, problem: Problem, budget: Budget, on_progress: OnProgress | None) -> None:
        self.problem, self.budget, self.on_progress = problem, budget, on_progress
        self.began = time.perf_counter()
        self.best: Schedule | None = None
        self.values: tuple[int, ...] = ()
        self.interrupted = False
        self.trace: list[Progress] = []
        self._stages = problem.objective.stages if problem.objective else ()
        self.bounds: list[int | None] = [None] * len(self._stages)
        self.stage = 0  # the first that is not closed
        self._layout = layout(problem)
        self._kinds = {name: _Kind(min(FIRST, len(problem.tasks))) for name in NEIGHBOURHOODS}
        self._lock = threading.RLock()

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.began + self.budget.wall_s - time.perf_counter()

    @property
    def done(self) -> bool:
        """Whether to stop."""
        return self.interrupted or self.left <= 0 or self.stage == len(self._stages)

    def open(self, hint: Schedule | None, share: float) -> Status:
        """A schedule and a bound to begin with; ``feasible`` if there is something to improve."""
        if hint is not None:
            self.offer(hint)
        status: Status = "feasible"
        if share > 0 or hint is None:
            status = self._whole(self.budget.wall_s * share, hint, first=False)
        if status == "unknown" and not self.interrupted and self.left > 0:
            status = self._whole(self.left, None, first=True)
        return "optimal" if status == "feasible" and not self._stages else status

    def _whole(self, wall_s: float, hint: Schedule | None, *, first: bool) -> Status:
        """CP-SAT on the whole problem, perhaps only to its first schedule."""
        found = False

        def on_progress(point: Progress, schedule: Schedule | None) -> None:
            nonlocal found
            if schedule is not None:
                found = True
                self.offer(schedule)
            if point.bound is not None and point.stage == 0:
                self._raise_bound(0, point.bound)
            if self.interrupted or (found and first):
                raise KeyboardInterrupt

        budget = Budget(max(0.01, min(wall_s, self.left)), self.budget.workers, self.budget.seed, self.budget.rel_gap)
        outcome = CpSat().solve(self.problem, budget, hint, on_progress)
        self.interrupted |= outcome.interrupted and not (found and first)
        if outcome.schedule is not None:
            self.offer(outcome.schedule)
            for k, bound in enumerate(outcome.bound or ()):
                # a later bound is for these values of the earlier stages
                if self.stage == k and bound is not None:
                    self._raise_bound(k, bound)
        return outcome.status

    def work(self, worker: int, stop: threading.Event) -> None:
        """One neighbourhood after the other."""
        rng = np.random.default_rng([self.budget.seed, worker])
        while not stop.is_set() and not self.done:
            with self._lock:
                assert self.best is not None
                names = list(self._kinds)
                scores = np.array([kind.score for kind in self._kinds.values()])
                name = names[rng.choice(len(names), p=scores / scores.sum())]
                kind, schedule, values, stage = self._kinds[name], self.best, self.values, self.stage
            middle = middles(self.problem, event_times(self.problem, schedule))
            chosen = NEIGHBOURHOODS[name](self._layout, middle, int(kind.size), rng)
            free = {self._layout.names[i] for i in chosen}
            status, found, bound = self._again(schedule, values, stage, free, int(rng.integers(2**31 - 1)))
            with self._lock:
                better = found is not None and self.offer(found)
                kind.score = max(_LEAST, (1 - _NEW) * kind.score + _NEW * better)
                if status == "infeasible":
                    kind.size = min(len(self.problem.tasks), kind.size * GROWTH + 1)
                elif status == "unknown":
                    kind.size = max(2, kind.size / GROWTH)
                if len(free) == len(self.problem.tasks) and bound is not None:
                    self._raise_bound(stage, bound)

    def _again(
        self, schedule: Schedule, values: tuple[int, ...], stage: int, free: Collection[str], seed: int
    ) -> tuple[Status, Schedule | None, int | None]:
        """Something strictly better in a stage, the rest frozen but for `free`; the bound is that of this neighbourhood."""
        from ortools.sat.python import cp_model

        from rota.policies.solvers.cpsat_model import Model

        target = values[stage] - 1
        model = Model(self.problem, self._horizon(values, stage))
        if len(free) < len(self.problem.tasks):
            frozen = freeze(self.problem, schedule, free)
            for task, mode in frozen.mode.items():
                model.cp.add(model.mode_lits(task)[mode] == 1)
            for a, b in frozen.order:
                model.cp.add(model.time(a) <= model.time(b))
        for k in range(stage):
            model.cp.add(model.stage(self._stages[k]) <= values[k])
        wanted = model.stage(self._stages[stage])
        model.cp.add(wanted <= target)
        model.cp.minimize(wanted)
        model.hint(schedule)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = seed
        solver.parameters.linearization_level = 0  # of what is small and tight, propagation alone finishes more
        solver.parameters.max_deterministic_time = EFFORT
        solver.parameters.max_time_in_seconds = max(0.01, self.left)
        solver.parameters.catch_sigint_signal = False
        status = solver.solve(model.cp)
        if status == cp_model.INFEASIBLE:
            return "infeasible", None, values[stage]
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return "unknown", None, None
        return "feasible", model.schedule(solver), whole_bound(solver.best_objective_bound)

    def _horizon(self, values: tuple[int, ...], stage: int) -> int:
        """Where the first stage is the makespan, nothing ends after what is still allowed; but a model must have room for every mode."""
        first = self._stages[0]
        weight = first.get("makespan", 0)
        if len(first) > 1 or weight <= 0:
            return self.problem.horizon
        longest = max(mode.duration for task in self.problem.tasks for mode in task.modes)
        return max((values[0] - (stage == 0)) // weight, longest)

    def offer(self, schedule: Schedule) -> bool:
        """Keep a schedule if it is better than what there is; whether it was."""
        with self._lock:
            values = stage_values(self.problem, schedule)
            if self.best is not None and values >= self.values:
                return False
            self.best, self.values = schedule, values
            self._tell(schedule)
            return True

    def _raise_bound(self, stage: int, bound: int) -> None:
        """A bound of a stage whose earlier stages are closed."""
        with self._lock:
            known = self.bounds[stage]
            if known is not None and bound <= known:
                return
            self.bounds[stage] = bound
            self._tell(None)

    def _closed(self, stage: int) -> bool:
        bound = self.bounds[stage]
        if bound is None or not self.values:
            return False
        return self.values[stage] - bound <= self.budget.rel_gap * max(abs(self.values[stage]), 1)

    def _tell(self, schedule: Schedule | None) -> None:
        """Report what is new, then go on to the next stage if that closes this one."""
        if not self._stages:
            point = Progress(time.perf_counter() - self.began, None, None)
        else:
            stage = min(self.stage, len(self._stages) - 1)
            value = self.values[stage] if self.values else None
            point = Progress(time.perf_counter() - self.began, value, self.bounds[stage], stage)
        self.trace.append(point)
        if self.on_progress is not None:
            try:
                self.on_progress(point, schedule)
            except KeyboardInterrupt:
                self.interrupted = True
        while self.stage < len(self._stages) and self._closed(self.stage):
            self.stage += 1

    def outcome(self, name: str, status: Status) -> Outcome:
        """All of it, as a solver hands it back."""
        solver = f"{name} (OR-Tools {version('ortools')})"
        if self.best is None or not self._stages:
            return Outcome(status, self.best, None, None, tuple(self.trace), solver, self.interrupted)
        proven = list(self.values) == self.bounds
        bounds = tuple(self.bounds)
        return Outcome("optimal" if proven else "feasible", self.best, self.values, bounds, tuple(self.trace), solver, self.interrupted)
