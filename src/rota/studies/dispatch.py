"""Dispatch rules in the shop simulator: one run, rules side by side under the same luck, and any rule as a solver."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rota.contracts.dispatch import DispatchRule, NumberedRule
from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Progress, Schedule, Status, require
from rota.mechanisms.shop.checker import Report, check
from rota.mechanisms.shop.compiled import columns, run_columns
from rota.mechanisms.shop.plant import RUNNABLE, plant
from rota.mechanisms.shop.simulator import Run, simulate
from rota.studies.solve import Solved
from rota.workload.shop.build import job_shop
from rota.workload.shop.realization import Realization, realized


def run_rule(problem: Problem, rule: DispatchRule, realization: Realization | None = None, *, compiled: bool | None = None) -> Run:
    """One run, compiled where rule and problem allow it.

    Parameters
    ----------
    compiled : bool or None
        False: never. The outcome is the same either way.
    """
    realization = realization or Realization()
    shop = columns(plant(problem, realization)) if compiled is not False and isinstance(rule, NumberedRule) else None
    if shop is None or not isinstance(rule, NumberedRule) or (rule.most_inside and not shop.blocking):
        return simulate(problem, rule, realization)
    start, end, rotations = run_columns(shop, rule)
    names = [problem.tasks[t].id for t in shop.task]
    schedule = Schedule(dict(zip(names, start.tolist(), strict=True)), dict.fromkeys(names, 0))
    return Run(schedule, dict(zip(names, end.tolist(), strict=True)), len(names), rotations)


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A run and the independent check of what was realised.

    Parameters
    ----------
    rule : str
    seed : int
    run : Run
    report : Report
        Of the realised schedule in the problem as it turned out.
    wall_s : float
    """

    rule: str
    seed: int
    run: Run
    report: Report
    wall_s: float

    def record(self) -> dict[str, Any]:
        """For JSON and tables."""
        return {
            "rule": self.rule, "seed": self.seed, "terms": self.report.terms, "rotations": self.run.rotations, "decisions": self.run.decisions,
            "wall_s": self.wall_s, "checked": self.report.ok, "violations": [violation._asdict() for violation in self.report.violations],
        }  # fmt: skip


def dispatch(problem: Problem, rule: DispatchRule, realization: Realization, seed: int = 0, *, compiled: bool | None = None) -> Dispatched:
    """Run and check."""
    began = time.perf_counter()
    run = run_rule(problem, rule, realization, compiled=compiled)
    wall = time.perf_counter() - began
    return Dispatched(rule.name, seed, run, check_run(problem, realization, run), wall)


def check_run(problem: Problem, realization: Realization, run: Run) -> Report:
    """The checker's report on the realised schedule; ends must be those that it works out itself from durations and breakdowns."""
    actual = realized(problem, realization, run.schedule.start)
    ends = {task.id: run.end[task.id] for task in actual.tasks if task.allow_breaks}
    return check(actual, Schedule(run.schedule.start, run.schedule.mode, ends))


@cache
def warm_up() -> None:
    """Compile, or load what was compiled, which is not to count as time of a run."""
    from rota.policies.dispatch.online import make_rule

    for blocking in ("none", "swap"):
        run_rule(job_shop([[(0, 1), (1, 1)], [(1, 1), (0, 1)]], 2, blocking=blocking), make_rule("FIFO"))


def compare(
    problem: Problem, rules: Sequence[Callable[[int], DispatchRule]], luck: Callable[[int], Realization], seeds: Sequence[int]
) -> list[Dispatched]:
    """Every rule under every seed; a seed means the same luck for all of them."""
    warm_up()
    lucks = [luck(seed) for seed in seeds]
    return [
        dispatch(problem, make(seed), realization, seed) for make in rules for seed, realization in zip(seeds, lucks, strict=True)
    ]


def summary(runs: Sequence[Dispatched]) -> list[dict[str, Any]]:
    """A row per rule: the mean of every term over its runs, the makespan's smallest and largest, mean rotations and seconds."""
    rows = []
    for rule in dict.fromkeys(run.rule for run in runs):
        own = [run for run in runs if run.rule == rule]
        spans = [run.run.makespan for run in own]
        row: dict[str, Any] = {"rule": rule, "runs": len(own)}
        row |= {term: statistics.mean(run.report.terms[term] for run in own) for term in own[0].report.terms}
        row |= {"best_makespan": min(spans), "worst_makespan": max(spans), "rotations": statistics.mean(run.run.rotations for run in own)}
        rows.append(row | {"seconds": statistics.mean(run.wall_s for run in own)})
    return rows


def solved_run(problem: Problem, realization: Realization, run: Dispatched) -> Solved:
    """The run in the form that is written and drawn: the problem as it turned out, and its schedule."""
    actual = realized(problem, realization, run.run.schedule.start)
    value = run.report.objective
    status: Status = "optimal" if actual.objective is None else "feasible"
    outcome = Outcome(status, run.run.schedule, value, value and (None,) * len(value), (), run.rule)
    return Solved(actual, outcome, run.report, run.wall_s)


@dataclass(frozen=True, slots=True)
class AsSolver:
    """A dispatch rule as a solver: what it does when everything goes as expected."""

    rule: DispatchRule

    @property
    def name(self) -> str:
        """The rule's."""
        return self.rule.name

    def capabilities(self) -> frozenset[Feature]:
        """What the shop simulator can run."""
        return RUNNABLE

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The rule's schedule; nothing is proven."""
        require(self, problem)
        began = time.perf_counter()
        schedule = run_rule(problem, self.rule).schedule
        value = check(problem, schedule).objective
        trace = () if not value else (Progress(time.perf_counter() - began, value[0], None),)
        if on_progress and trace:
            on_progress(trace[0], schedule)
        return Outcome("optimal" if problem.objective is None else "feasible", schedule, value, value and (None,) * len(value), trace, self.name)
