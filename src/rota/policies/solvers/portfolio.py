"""A portfolio: the solvers that suit a problem one after the other, each from the best schedule so far, on all workers.

What is made for a kind of problem finds good schedules; CP-SAT then raises the bound, or takes over where nothing special is known.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Progress, Schedule, Solver, Status, require
from rota.errors import UnsupportedPolicy
from rota.policies.solvers.blocking_shop import BlockingSearch
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.job_shop import TabuSearch
from rota.policies.solvers.lns import NeighbourhoodSearch
from rota.policies.solvers.project_solvers import Heft, ProjectSampling
from rota.policies.solvers.single_machine import Decomposition

#: Solvers, each with its share of the time.
Line = tuple[tuple[Solver, float], ...]
#: Lines, and the most tasks each is for; the first line whose first solver accepts the problem is taken. Proof ends it early. What CP-SAT
#: may prove, up to some 200 operations of a job shop or 50 with blocking, goes to it soon; above, its time is better spent on the search.
#: Where large-neighbourhood search helps is measured by benchmarks/shop_lns.py: on projects, not where tabu or iterated greedy search can go.
LINES: tuple[tuple[int, Line], ...] = (
    (10**9, ((Decomposition(), 1.0),)),
    (200, ((TabuSearch(), 0.02), (CpSat(), 0.3), (TabuSearch(), 0.68))),
    (10**9, ((TabuSearch(), 0.95), (CpSat(), 0.05))),
    (50, ((BlockingSearch(), 0.02), (CpSat(), 0.5), (BlockingSearch(), 0.48))),
    (10**9, ((BlockingSearch(), 0.9), (CpSat(), 0.1))),
    (50, ((ProjectSampling(), 0.01), (CpSat(), 0.99))),
    (10**9, ((ProjectSampling(), 0.05), (CpSat(), 0.15), (NeighbourhoodSearch(opening=0), 0.8))),
    (10**9, ((Heft(), 0.05), (CpSat(), 0.95))),
    (10**9, ((CpSat(), 1.0),)),
)


@dataclass(frozen=True, slots=True)
class Portfolio:
    """The solvers of the problem's line, of `LINES` or of one's own; the last must be able to do everything."""

    name: str = "portfolio"
    lines: tuple[tuple[int, Line], ...] = LINES

    def capabilities(self) -> frozenset[Feature]:
        """What CP-SAT can do: everything."""
        return CpSat().capabilities()

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The best schedule of all, with the best bound."""
        for largest, line in self.lines:
            if len(problem.tasks) > largest:
                continue
            try:
                return _Relay(problem, budget, on_progress).run(line, hint, self.name)
            except UnsupportedPolicy:
                if line is self.lines[-1][1]:
                    raise
        raise AssertionError


class _Relay:
    """One line of solvers on one problem."""

    def __init__(self, problem: Problem, budget: Budget, on_progress: OnProgress | None) -> None:
        self.problem, self.budget, self.on_progress = problem, budget, on_progress
        self.began = time.perf_counter()
        self.trace: list[Progress] = []
        self.best: Outcome | None = None

    def run(self, line: Line, hint: Schedule | None, name: str) -> Outcome:
        if find_spec("ortools") is None:
            line = tuple((solver, share) for solver, share in line if not isinstance(solver, CpSat | NeighbourhoodSearch)) or line
        for solver, _ in line:
            require(solver, self.problem)
            if hasattr(solver, "prepare"):
                solver.prepare()
        self.began = time.perf_counter()
        used: list[str] = []
        for number, (solver, share) in enumerate(line):
            left = self.budget.wall_s - (time.perf_counter() - self.began)
            rest = sum(share for _, share in line[number:])
            if self.best is not None and (left < 0.05 or self._done(self.best)):
                break
            budget = Budget(max(0.01, left * share / rest), self.budget.workers, self.budget.seed + number, self.budget.rel_gap)
            self._take(solver.solve(self.problem, budget, self.best.schedule if self.best else hint, self._progress()))
            used.append(solver.name)
        assert self.best is not None
        best, label = self.best, f"{name} of {', '.join(used)} (rota {version('rota')})"
        return Outcome(best.status, best.schedule, best.objective, best.bound, tuple(self.trace), label, best.interrupted)

    def _done(self, best: Outcome) -> bool:
        if best.status in ("optimal", "infeasible") or best.interrupted:
            return True
        if best.objective is None or best.bound is None or len(best.objective) != 1 or best.bound[0] is None:
            return False
        return best.objective[0] - best.bound[0] <= self.budget.rel_gap * max(abs(best.objective[0]), 1)

    def _take(self, new: Outcome) -> None:
        """The better schedule and bound of two outcomes, of one stage each if there are two."""
        old = self.best
        if old is None or old.objective is None or old.bound is None or new.status == "infeasible":
            self.best = new
            return
        if new.objective is None or new.bound is None:
            self.best = Outcome(old.status, old.schedule, old.objective, old.bound, interrupted=new.interrupted)
            return
        (value, schedule) = min((old.objective[0], old.schedule), (new.objective[0], new.schedule), key=lambda pair: pair[0])
        bounds = [bound for bound in (old.bound[0], new.bound[0]) if bound is not None]
        bound = max(bounds) if bounds else None
        status: Status = "optimal" if value == bound else "feasible"
        self.best = Outcome(status, schedule, (value,), (bound,), interrupted=new.interrupted)

    def _progress(self) -> OnProgress:
        """Passes on what is better than all before, on one clock."""
        offset = time.perf_counter() - self.began

        def on_progress(point: Progress, schedule: Schedule | None) -> None:
            last = self.trace[-1] if self.trace and self.trace[-1].stage == point.stage else Progress(0, None, None, point.stage)
            better = point.objective is not None and (last.objective is None or point.objective < last.objective)
            higher = point.bound is not None and (last.bound is None or point.bound > last.bound)
            if not better and not higher:
                return
            objective = point.objective if better else last.objective
            merged = Progress(offset + point.wall_s, objective, point.bound if higher else last.bound, point.stage)
            self.trace.append(merged)
            if self.on_progress is not None:
                self.on_progress(merged, schedule if better else None)

        return on_progress
