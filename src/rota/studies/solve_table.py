"""Solvers and rules side by side over instances, each schedule checked; a run that was killed goes on where it stopped.

The log has a line with the settings and then one line per instance and solver, as JSON, written as soon as it is known.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rota.contracts.shop import Budget, Problem, Solver
from rota.errors import InputError, RotaError, UnsupportedPolicy
from rota.studies.row_log import RowLog
from rota.studies.solve import Solved, solve
from rota.workload.shop.sets import Bounds, instance_names


@dataclass(frozen=True, slots=True)
class Row:
    """One solver on one instance.

    Parameters
    ----------
    status : str
        As of `Outcome`; ``refused`` where the solver lacks a feature, ``unreadable`` where the instance is, ``wrong`` where the checker
        found something.
    value, bound : int or None
        Of the objective's first stage.
    wall_s, cpu_s : float
        Seconds on the clock, and of this process on all cores. What is far below the cores there were was disturbed.
    lb, ub : int or None
        What is published.
    note : str
        Why, where there is no value; or what is wrong.
    seed : int
        The budget's.
    """

    instance: str
    solver: str
    status: str
    value: int | None = None
    bound: int | None = None
    wall_s: float = 0.0
    lb: int | None = None
    ub: int | None = None
    note: str = ""
    cpu_s: float = 0.0
    seed: int = 0


def cases(path: str | Path, sample: int | None = None, seed: int = 0) -> list[str]:
    """What `load_problem` can load of a folder, a set of instances or a file; a random sample of it, in its order.

    Raises
    ------
    InputError
        If there is nothing.
    """
    path = Path(path)
    if path.is_dir():
        found = [str(file) for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    elif path.suffix == ".jsonl" and path.is_file():
        found = [f"{path}#{name}" for name in instance_names(path)]
    else:
        found = [str(path)]
    if not found:
        raise InputError(f"{path}: there are no files in this folder")
    if sample is None or sample >= len(found):
        return found
    if sample < 1:
        raise InputError(f"the sample must have at least 1 instance, not {sample}")
    return [found[i] for i in sorted(random.Random(seed).sample(range(len(found)), sample))]


class Log(RowLog[Row]):
    """The rows so far."""

    row, study = Row, "solvers over instances"


def run_table(
    instances: Sequence[str], solvers: Sequence[Solver], load: Callable[[str], Problem], budget: Budget, log: Log,
    bounds: Mapping[str, Bounds] | None = None, progress: Callable[[int, int], None] | None = None,
) -> list[Row]:  # fmt: skip
    """All solvers on all instances, taking turns; rows that the log has already for the budget's seed are not made again.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, with all finished rows in the log.
    """
    done = {(row.instance, row.solver) for row in log.rows if row.seed == budget.seed}
    total, count = len(instances) * len(solvers), 0
    for instance in instances:
        todo = [solver for solver in solvers if (instance, solver.name) not in done]
        count += len(solvers) - len(todo)
        if not todo:
            continue
        for row in _rows(instance, todo, load, budget, bounds or {}):
            log.add(row)
            count += 1
            if progress is not None:
                progress(count, total)
    return log.rows


def _rows(
    instance: str, solvers: Sequence[Solver], load: Callable[[str], Problem], budget: Budget, bounds: Mapping[str, Bounds]
) -> Iterable[Row]:
    try:
        problem = load(instance)
    except RotaError as error:
        for solver in solvers:
            yield Row(instance, solver.name, "unreadable", note=str(error), seed=budget.seed)
        return
    known = bounds.get(problem.name, Bounds(None, None, "unknown"))
    for solver in solvers:
        began = time.process_time()
        try:
            solved = solve(problem, solver, budget)
        except UnsupportedPolicy as refusal:
            yield Row(instance, solver.name, "refused", lb=known.lb, ub=known.ub, note=str(refusal), seed=budget.seed)
            continue
        if solved.outcome.interrupted:
            raise KeyboardInterrupt
        yield _row(instance, solver.name, solved, known, time.process_time() - began, budget.seed)


def _row(instance: str, solver: str, solved: Solved, known: Bounds, cpu_s: float, seed: int) -> Row:
    outcome = solved.outcome
    value = outcome.objective[0] if outcome.objective else None
    bound = outcome.bound[0] if outcome.bound else None
    note = _contradiction(solved, value, known)
    status = "wrong" if note else outcome.status
    return Row(instance, solver, status, value, bound, round(solved.wall_s, 3), known.lb, known.ub, note, round(cpu_s, 3), seed)


def _contradiction(solved: Solved, value: int | None, known: Bounds) -> str:
    """What is wrong with a schedule, or with a claim in the face of what is published."""
    if solved.report is not None and not solved.report.ok:
        return str(solved.report.violations[0])
    if value is not None and known.lb is not None and value < known.lb:
        return f"{value} is below the published lower bound {known.lb}"
    if value is not None and known.ub is not None and solved.outcome.status == "optimal" and value > known.ub:
        return f"{value} is called optimal, but {known.ub} is published"
    bound = solved.outcome.bound[0] if solved.outcome.bound else None
    if bound is not None and known.ub is not None and bound > known.ub:
        return f"bound {bound} is above the published {known.ub}"
    if solved.outcome.status == "infeasible" and known.ub is not None:
        return f"is called infeasible, but {known.ub} is published"
    if value is not None and known.status == "infeasible":
        return "has a schedule, but is published as infeasible"
    return ""


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A row per solver: how far above the best known (published, or of this table), how often best and proven, seconds.

    Gaps of different solvers are over the instances that all of those with any value have solved, so that they can be compared.
    """
    best: dict[str, int] = {}
    for row in rows:
        for value in (row.value if row.status != "wrong" else None, row.ub):
            if value is not None:
                best[row.instance] = min(value, best.get(row.instance, value))
    names = list(dict.fromkeys(row.solver for row in rows))
    valued = {name: {row.instance: row for row in rows if row.solver == name and row.value is not None} for name in names}
    common = set.intersection(*(set(found) for found in valued.values() if found)) if any(valued.values()) else set()
    table = []
    for name in names:
        mine = [row for row in rows if row.solver == name]
        gaps = [_above(row, best[instance]) for instance, row in valued[name].items() if instance in common]
        table.append(
            {
                "solver": name,
                "solved": len(valued[name]),
                "refused": sum(row.status == "refused" for row in mine),
                "wrong": sum(row.status == "wrong" for row in mine),
                "proven": sum(row.status in ("optimal", "infeasible") for row in mine),
                "best": sum(row.value == best[row.instance] for row in valued[name].values()),
                "mean gap": sum(gaps) / len(gaps) if gaps else None,
                "worst gap": max(gaps, default=None),
                "mean seconds": sum(row.wall_s for row in mine) / len(mine),
            }
        )
    return sorted(table, key=lambda line: (line["mean gap"] is None, line["mean gap"] or 0.0))


def _above(row: Row, best: int) -> float:
    """How far above the best known, as a share of it; of a best of 0, of 1."""
    return ((row.value or 0) - best) / max(abs(best), 1)
