"""One problem, one solver, one independent check: the schedule and what is known about it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rota.contracts.shop import Budget, Event, OnProgress, Outcome, Problem, Schedule, Solver
from rota.mechanisms.shop.checker import Report, check
from rota.workload.shop.form import objective_to


@dataclass(frozen=True, slots=True)
class Solved:
    """What a solver made of a problem, and what the checker says of it.

    Parameters
    ----------
    problem : Problem
    outcome : Outcome
    report : Report or None
        None where there is no schedule.
    wall_s : float
        Seconds that the solver took.
    """

    problem: Problem
    outcome: Outcome
    report: Report | None
    wall_s: float

    @property
    def ok(self) -> bool:
        """Whether there is a schedule and nothing is wrong with it or with what is claimed of it."""
        return self.report is not None and self.report.ok

    @property
    def gap(self) -> float | None:
        """(objective - bound) / objective of the first stage that is not proven, or of the last; None where there is no bound."""
        if not self.outcome.objective or not self.outcome.bound:
            return None
        for value, bound in zip(self.outcome.objective, self.outcome.bound, strict=True):
            if value != bound:
                return None if bound is None else relative_gap(value, bound)
        return 0.0

    def rows(self) -> list[dict[str, Any]]:
        """A row per task, by start: task, job, mode, start, end and the resources that its mode uses."""
        if self.report is None or self.outcome.schedule is None:
            return []
        job_of = {name: job.id for job in self.problem.jobs for name in job.tasks}
        rows = []
        for task in self.problem.tasks:
            mode = self.outcome.schedule.mode.get(task.id, 0)
            times = self.report.times
            rows.append(
                {
                    "task": task.id, "job": job_of.get(task.id, ""), "mode": mode, "start": times[Event(task.id, "start")],
                    "end": times[Event(task.id, "end")], "resources": [use.resource for use in task.modes[mode].uses],
                }
            )  # fmt: skip
        return sorted(rows, key=lambda row: (row["start"], row["end"]))

    def record(self) -> dict[str, Any]:
        """Everything but the schedule's rows, for JSON."""
        stages = self.problem.objective.stages if self.problem.objective else ()
        return {
            "instance": self.problem.name,
            "tasks": len(self.problem.tasks),
            "solver": self.outcome.solver,
            "status": self.outcome.status,
            "interrupted": self.outcome.interrupted,
            "objective": [objective_to([stage]) for stage in stages],
            "value": self.outcome.objective,
            "bound": self.outcome.bound,
            "gap": self.gap,
            "terms": self.report.terms if self.report else {},
            "wall_s": self.wall_s,
            "checked": self.ok,
            "violations": [violation._asdict() for violation in self.report.violations] if self.report else [],
            "trace": [point._asdict() for point in self.outcome.trace],
        }


def relative_gap(value: int, bound: int) -> float:
    """How far `value` may be above the best there is, as a share of it."""
    return (value - bound) / max(abs(value), 1)


def solve(
    problem: Problem, solver: Solver, budget: Budget, *, hint: Schedule | None = None, on_progress: OnProgress | None = None
) -> Solved:
    """Solve and check.

    Raises
    ------
    UnsupportedPolicy
        If the solver cannot handle the problem.
    """
    began = time.perf_counter()
    outcome = solver.solve(problem, budget, hint, on_progress)
    wall = time.perf_counter() - began
    report = None
    if outcome.schedule is not None:
        report = check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound)
    return Solved(problem, outcome, report, wall)
