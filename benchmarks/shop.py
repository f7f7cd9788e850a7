"""Quality at equal time: Rota's portfolio against plain CP-SAT and PyJobShop, each with the same seconds on the same cores, one run at a time.

``python benchmarks/shop.py --data DIR [--sets job-shop blocking project tardiness] [--wall 60] [--workers 2]`` with the folder that has
``jobshop``, ``rcpsp`` and ``tardiness``. Solvers take turns on each instance, so that a disturbed machine disturbs all of them. Every
schedule is checked; results go to a file of JSON lines, one per run, and a run that is there is not made again, so that a killed
benchmark goes on where it was. The table at the end is made from the file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rota.contracts.shop import Budget, Problem, Schedule
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.registry import make_solver
from rota.policies.solvers.tardiness import minimise_tardiness
from rota.studies.rule_search import Instances
from rota.workload.shop.sets import read_bounds, read_set

console = Console()
#: Every n-th instance of what is compared: 31 of ta01-50 and dmu01-40, all of la01-40, 60 of the 600 projects.
STEPS = {"job-shop": 3, "blocking": 1, "project": 10}
WALL = {"job-shop": 60.0, "blocking": 30.0, "project": 60.0}
SOLVERS = {
    "job-shop": ("portfolio", "tabu", "cp-sat", "pyjobshop"),
    "blocking": ("portfolio", "cp-sat"),
    "project": ("portfolio", "cp-sat", "pyjobshop"),
}


def instances(which: str, data: Path) -> Iterator[tuple[str, str, int]]:
    """Name, line and best known value of every instance of a set, in its order."""
    folder, file, bounds = {
        "job-shop": ("jobshop", "classic.jsonl", "bounds_makespan.csv"),
        "blocking": ("jobshop", "classic.jsonl", "bounds_blocking_swap_makespan.csv"),
        "project": ("rcpsp", "j120.jsonl", "j120_bounds.csv"),
    }[which]
    known = read_bounds(data / folder / bounds)
    wanted = {
        "job-shop": {f"ta{i:02}" for i in range(1, 51)} | {f"dmu{i:02}" for i in range(1, 41)},
        "blocking": {f"la{i:02}" for i in range(1, 41)},
        "project": set(known),
    }[which]
    with (data / folder / file).open(encoding="utf-8") as lines:
        for line in lines:
            name = json.loads(line)["name"]
            if name in wanted and name in known:
                best = known[name].ub
                assert best is not None
                yield name, line, best


def by_rota(solver: str) -> Callable[[Problem, float, int, int], tuple[int | None, bool]]:
    """Value, and whether the checker finds nothing wrong."""

    def run(problem: Problem, wall: float, workers: int, seed: int) -> tuple[int | None, bool]:
        outcome = make_solver(solver).solve(problem, Budget(wall, workers, seed))
        if outcome.schedule is None or outcome.objective is None:
            return None, True
        return outcome.objective[0], check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound).ok

    return run


def by_pyjobshop(problem: Problem, wall: float, workers: int, seed: int) -> tuple[int | None, bool]:
    """The same with PyJobShop's own model."""
    from pyjobshop import Model

    model = Model()
    resources = {r.id: model.add_machine() if r.capacity == 1 else model.add_renewable(r.capacity) for r in problem.resources}
    tasks = {task.id: model.add_task() for task in problem.tasks}
    for task in problem.tasks:
        uses = task.modes[0].uses
        # with its units, a machine has no demand
        demands: list[int] = [0 if next(r for r in problem.resources if r.id == use.resource).capacity == 1 else use.amount for use in uses]
        model.add_mode(tasks[task.id], [resources[use.resource] for use in uses], task.modes[0].duration, demands or None)
    for lag in problem.lags:
        model.add_end_before_start(tasks[lag.a.task], tasks[lag.b.task])
    found = model.solve(solver="ortools", time_limit=wall, display=False, num_workers=workers, random_seed=seed)
    if not found.best.tasks:
        return None, True
    start = {task.id: int(data.start) for task, data in zip(problem.tasks, found.best.tasks, strict=True)}
    report = check(problem, Schedule(start, {}))
    return None if report.objective is None else int(report.objective[0]), report.ok


def compare(which: str, args: argparse.Namespace, done: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    """Run what is missing of a set."""
    chosen = list(instances(which, args.data))[:: args.step or STEPS[which]]
    wall = args.wall or WALL[which]
    for number, (name, line, best) in enumerate(chosen):
        problem = read_set(line, which, name, **({"blocking": "swap"} if which == "blocking" else {}))  # type: ignore[arg-type]
        for solver in args.solvers or SOLVERS[which]:
            if (which, name, solver) in done:
                continue
            run = by_pyjobshop if solver == "pyjobshop" else by_rota(solver)
            began, cpu = time.perf_counter(), time.process_time()
            value, ok = run(problem, wall, args.workers, args.seed)
            row = {
                "set": which, "instance": name, "solver": solver, "value": value, "best_known": best, "ok": ok, "limit_s": wall,
                "wall_s": round(time.perf_counter() - began, 2), "cpu_s": round(time.process_time() - cpu, 2), "workers": args.workers,
            }  # fmt: skip
            done[which, name, solver] = row
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            gap = "none" if value is None else f"{100 * (value / best - 1):.2f}%"
            console.print(f"{which} {number + 1}/{len(chosen)} {name} {solver}: {value} ({gap} above {best}){'' if ok else ' NOT FEASIBLE'}")


def show(which: str, rows: list[dict[str, Any]]) -> None:
    """Means over the instances that all solvers have run."""
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    by_instance: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_instance.setdefault(row["instance"], {})[row["solver"]] = row
    common = [found for found in by_instance.values() if len(found) == len(solvers) and all(row["value"] for row in found.values())]
    table = Table(title=f"{which}: {len(common)} instances, {rows[0]['limit_s']:g} s, {rows[0]['workers']} workers")
    for column in ("solver", "mean gap to best known, %", "best or tied", "CPU s per run", "no schedule", "infeasible"):
        table.add_column(column)
    for solver in solvers:
        gaps = [100 * (found[solver]["value"] / found[solver]["best_known"] - 1) for found in common]
        wins = sum(found[solver]["value"] == min(row["value"] for row in found.values()) for found in common)
        own = [row for row in rows if row["solver"] == solver]
        table.add_row(
            solver, f"{mean(gaps):.3f}" if gaps else "-", str(wins), f"{mean(row['cpu_s'] for row in own):.1f}",
            str(sum(row["value"] is None for row in own)), str(sum(not row["ok"] for row in own)),
        )  # fmt: skip
    console.print(table)


def tardiness() -> None:
    """CPU seconds to proof on drawn instances, tardiness factors 0.2 to 0.8 and all ranges of due dates."""
    table = Table(title="total tardiness: seconds of one core to proof, 60 drawn instances of each size")
    for column in ("jobs", "mean", "largest"):
        table.add_column(column)
    minimise_tardiness(np.array([2, 1]), np.array([1, 1]))
    for jobs in (100, 200, 300):
        times = []
        for late in (0.2, 0.4, 0.6, 0.8):
            drawn = Instances.drawn(15, jobs, seed=jobs, factors=(late,))
            for p, d in zip(drawn.p, drawn.d, strict=True):
                began = time.thread_time()
                found = minimise_tardiness(p, d)
                times.append(time.thread_time() - began)
                assert found.value == found.bound
        table.add_row(str(jobs), f"{mean(times):.3f}", f"{max(times):.3f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/shop"))
    parser.add_argument("--sets", nargs="+", default=["job-shop", "blocking", "project", "tardiness"])
    parser.add_argument("--solvers", nargs="+", help="default: those that the set is meant for")
    parser.add_argument("--wall", type=float, help="seconds per run; default 60, blocking 30")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", type=int, help="every n-th instance")
    parser.add_argument("--out", type=Path, default=Path("shop-benchmark.jsonl"))
    args = parser.parse_args()
    done: dict[tuple[str, str, str], dict[str, Any]] = {}
    if args.out.exists():
        for line in args.out.read_text().splitlines():
            row = json.loads(line)
            done[row["set"], row["instance"], row["solver"]] = row
    for which in args.sets:
        if which == "tardiness":
            tardiness()
            continue
        warm(which, args)
        compare(which, args, done)
        show(which, [row for row in done.values() if row["set"] == which])


def warm(which: str, args: argparse.Namespace) -> None:
    """Compile before the clock runs."""
    name, line, _ = next(instances(which, args.data))
    problem = read_set(line, which, name, **({"blocking": "swap"} if which == "blocking" else {}))  # type: ignore[arg-type]
    make_solver({"job-shop": "tabu", "blocking": "iterated-greedy", "project": "sampling"}[which]).solve(problem, Budget(1, args.workers))


if __name__ == "__main__":
    main()
