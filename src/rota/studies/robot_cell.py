"""Rules for robots in the cell simulator: one run and its independent check, and rules side by side under the same luck."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rota.contracts.cell import CellRule
from rota.contracts.shop import Outcome, Problem, Schedule
from rota.mechanisms.shop.cell import simulate_cell
from rota.mechanisms.shop.cell_log import CellRun
from rota.mechanisms.shop.checker import Report, check
from rota.mechanisms.shop.violations import Violation
from rota.policies.dispatch.cell import cell_rule_names, make_cell_rule
from rota.studies.solve import Solved
from rota.workload.shop.cell import Cell, work_times
from rota.workload.shop.cell_problem import Assigned, in_order, run_problem, stage_name, task_name


@dataclass(frozen=True, slots=True)
class CellResult:
    """A run and the independent check of it.

    Parameters
    ----------
    rule : str
    seed : int
    run : CellRun
    problem : Problem
        What the run had to keep, residency limits too.
    schedule : Schedule
    report : Report
    wall_s : float
    """

    rule: str
    seed: int
    run: CellRun
    problem: Problem
    schedule: Schedule
    report: Report
    wall_s: float

    @property
    def overstays(self) -> list[Violation]:
        """Sheets that stayed in a station for longer than its limit."""
        return [one for one in self.report.violations if one.kind == "max_lag" and one.subject.split(" ")[1] == "in"]

    @property
    def ok(self) -> bool:
        """Whether nothing is violated but residency limits, which a rule may fail to keep."""
        return len(self.overstays) == len(self.report.violations)

    def record(self) -> dict[str, Any]:
        """For JSON and tables."""
        return {
            "rule": self.rule, "seed": self.seed, "makespan": self.run.makespan, "ticks_per_sheet": self.run.ticks_per_sheet,
            "overstays": len(self.overstays), "decisions": self.run.decisions, "wall_s": self.wall_s, "checked": self.ok,
            "violations": [violation._asdict() for violation in self.report.violations],
        }  # fmt: skip

    def solved(self) -> Solved:
        """In the form that is written and drawn."""
        value = self.report.objective
        outcome = Outcome("feasible", self.schedule, value, value and (None,) * len(value), (), self.rule)
        return Solved(self.problem, outcome, self.report, self.wall_s)


def check_cell(cell: Cell, run: CellRun, work: Sequence[Sequence[int]] | None = None) -> tuple[Problem, Schedule, Report]:
    """What the run had to keep, the run as a schedule, and what the checker of all schedules says of it."""
    assigned = [Assigned(one.kind, one.robot, one.sheet, one.stage, one.station) for one in run.log]
    kinds = {"pick": "from", "place": "to"}
    start: dict[str, int] = {}
    swapped = []
    for one in run.log:
        name = task_name(kinds[one.kind], one.sheet, stage_name(cell, one.stage))
        start[name] = one.start
        if one.kind == "place" and 0 < one.stage <= len(cell.stages):
            start[task_name("in", one.sheet, stage_name(cell, one.stage))] = one.end
        if one.swap:
            swapped.append(name)
    swaps = list(zip(swapped[::2], swapped[1::2], strict=True))
    problem = run_problem(cell, assigned, swaps, work_times(cell) if work is None else work)
    schedule = Schedule(start, {})
    return problem, schedule, check(problem, schedule)


def run_cell(cell: Cell, rule: CellRule, work: Sequence[Sequence[int]] | None = None, seed: int = 0) -> CellResult:
    """Run and check."""
    began = time.perf_counter()
    run = simulate_cell(cell, rule, work)
    wall = time.perf_counter() - began
    return CellResult(rule.name, seed, run, *check_cell(cell, run, work), wall)


def compare_cells(cell: Cell, rules: Sequence[Callable[[int], CellRule]], seeds: Sequence[int], noise: float = 0.0) -> list[CellResult]:
    """Every rule under every seed; a seed means the same luck for all of them."""
    lucks = [work_times(cell, seed, noise) for seed in seeds]
    return [run_cell(cell, make(seed), work, seed) for make in rules for seed, work in zip(seeds, lucks, strict=True)]


def best_by_rules(cell: Cell) -> Schedule | None:
    """The shortest of what rules make of the cell when all goes as expected and no limit is broken, to plan from; None if there is none."""
    arms = max(robot.arms for robot in cell.robots)
    rules = [rule for rule in map(make_cell_rule, cell_rule_names()) if rule.arms <= arms]
    kept = [one for one in (run_cell(cell, rule) for rule in rules) if not one.report.violations]
    best = min(kept, key=lambda one: one.run.makespan, default=None)
    return None if best is None else Schedule(in_order(cell, best.schedule.start), {})


def summary(results: Sequence[CellResult]) -> list[dict[str, Any]]:
    """A row per rule: means over its runs of the makespan, ticks per sheet once the cell has filled, and overstays."""
    rows = []
    for rule in dict.fromkeys(one.rule for one in results):
        own = [one for one in results if one.rule == rule]
        spans = [one.run.makespan for one in own]
        rows.append({
            "rule": rule, "runs": len(own), "makespan": statistics.mean(spans), "best_makespan": min(spans), "worst_makespan": max(spans),
            "ticks_per_sheet": statistics.mean(one.run.ticks_per_sheet for one in own),
            "overstays": statistics.mean(len(one.overstays) for one in own), "seconds": statistics.mean(one.wall_s for one in own),
        })  # fmt: skip
    return rows
