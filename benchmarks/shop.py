"""Quality at equal time: Rota's portfolio against plain CP-SAT and PyJobShop, each with the same seconds on the same cores, one run at a time.

    python benchmarks/shop.py FOLDER [--classes job-shop project blocking tardiness] [--log FILE] [--wall 60] [--sample 30] [--seeds 1]

FOLDER holds `jobshop` and `rcpsp` as JSON lines with their bounds (`rota.workload.shop.sets`). Solvers take turns on each instance, so that a
disturbed machine disturbs all of them. Every schedule is checked. The log has a line per instance, solver and seed, and a killed run goes on
from it; one that was made with other seconds, cores or versions is refused. The table at the end says whether each bar holds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean

from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Schedule, Solver, require
from rota.errors import InputError, RotaError
from rota.policies.dispatch.online import make_rule
from rota.policies.solvers.evaluate import stage_values
from rota.policies.solvers.registry import make_solver
from rota.studies.dispatch import AsSolver
from rota.studies.rule_search import Instances
from rota.studies.solve_table import Log, Row, run_table
from rota.warmup import warm_up_shops
from rota.workload.shop.build import due_jobs, single_machine
from rota.workload.shop.load import load_problem
from rota.workload.shop.sets import Bounds, read_bounds

INTERRUPTED, WRONG = 130, 3


@dataclass(frozen=True, slots=True)
class PyJobShop:
    """PyJobShop's own model of job shops and projects, solved by OR-Tools."""

    name: str = "pyjobshop"

    def capabilities(self) -> frozenset[Feature]:
        """One mode, precedence."""
        return frozenset({"makespan", "cumulative"})

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The best schedule; its library catches Ctrl-C itself, so an end before time without proof is taken for one."""
        require(self, problem)
        from pyjobshop import Model

        began = time.perf_counter()
        model = Model()
        machines = {resource.id for resource in problem.resources if resource.capacity == 1}
        resources = {r.id: model.add_machine() if r.id in machines else model.add_renewable(r.capacity) for r in problem.resources}
        tasks = {task.id: model.add_task() for task in problem.tasks}
        for task in problem.tasks:
            (mode,) = task.modes
            demands: list[int] = [0 if use.resource in machines else use.amount for use in mode.uses]
            model.add_mode(tasks[task.id], [resources[use.resource] for use in mode.uses], mode.duration, demands or None)
        for lag in problem.lags:
            model.add_end_before_start(tasks[lag.a.task], tasks[lag.b.task])
        found = model.solve(
            solver="ortools", time_limit=budget.wall_s, display=False, num_workers=budget.workers, random_seed=budget.seed
        )
        proven = found.status.name == "OPTIMAL"
        interrupted = not proven and time.perf_counter() - began < 0.9 * budget.wall_s
        if not found.best.tasks:
            return Outcome("unknown", None, None, None, solver=self.name, interrupted=interrupted)
        start = {task.id: int(data.start) for task, data in zip(problem.tasks, found.best.tasks, strict=True)}
        schedule = Schedule(start, {})
        value = stage_values(problem, schedule)
        return Outcome("optimal" if proven else "feasible", schedule, value, (None,), (), self.name, interrupted)


@dataclass(frozen=True, slots=True)
class Class:
    """What is compared: where its instances are, which of them, how many, for how long, by whom, and what is asked of the portfolio.

    `bar` has the rows of all solvers by instance, as far as all have run, and gives what was measured and whether that is enough.
    """

    names: tuple[str, ...]
    sample: int
    wall: float
    solvers: tuple[str, ...]
    asks: str
    bar: Callable[[Sequence[dict[str, Row]]], tuple[str, bool]]
    file: str = ""
    bounds: str = ""
    blocking: str = "none"


def _gap(found: Sequence[dict[str, Row]], solver: str) -> float:
    """Mean distance to the best known, in per cent; where there is no schedule, as far as the worst of the others."""

    def above(rows: dict[str, Row]) -> float:
        values = [row.value for row in rows.values() if row.value is not None]
        value, best = rows[solver].value, rows[solver].ub
        return 100 * ((max(values) if value is None else value) / best - 1) if best and values else 0.0

    return mean(above(rows) for rows in found)


def _smaller_by_30(found: Sequence[dict[str, Row]]) -> tuple[str, bool]:
    own, others = _gap(found, "portfolio"), {name: _gap(found, name) for name in ("cp-sat", "pyjobshop")}
    said = ", ".join(f"{name} {gap:.2f}%" for name, gap in {"portfolio": own, **others}.items())
    return said, all(own <= 0.7 * gap for gap in others.values())


def _no_larger(found: Sequence[dict[str, Row]]) -> tuple[str, bool]:
    own, other = _gap(found, "portfolio"), _gap(found, "cp-sat")
    return f"portfolio {own:.2f}%, cp-sat {other:.2f}%", own <= other


def _half_of_the_rules(found: Sequence[dict[str, Row]]) -> tuple[str, bool]:
    own, rules = _gap(found, "portfolio"), {rule: _gap(found, rule) for rule in RULES}
    best = min(rules, key=rules.__getitem__)
    return f"portfolio {own:.2f}%, {best} {rules[best]:.2f}%", own <= rules[best] / 2


def _proven_in_time(found: Sequence[dict[str, Row]]) -> tuple[str, bool]:
    rows = [row for one in found for row in one.values()]
    longest = {jobs: max((row.wall_s for row in rows if f"/{jobs}-" in row.instance), default=0.0) for jobs in TARDINESS}
    said = ", ".join(f"{jobs} jobs {seconds:.2f} s" for jobs, seconds in longest.items())
    proven = all(row.status == "optimal" for row in rows)
    return said if proven else f"{said}, not all proven", proven and all(longest[jobs] < limit for jobs, limit in TARDINESS.items())


RULES = ("FIFO", "SPT", "LPT", "MWKR", "LWKR", "MOR", "LOR")
#: Jobs of a single machine, and the seconds within which each instance is to be proven.
TARDINESS = {100: 1.0, 300: 30.0}
_EACH = 60  # drawn instances of each of these sizes, over the tardiness factors
CLASSES = {
    "job-shop": Class(
        (*(f"ta{i:02}" for i in range(1, 51)), *(f"dmu{i:02}" for i in range(1, 41))), 30, 60.0, ("portfolio", "cp-sat", "pyjobshop"),
        "mean gap at least 30% smaller than cp-sat's and pyjobshop's", _smaller_by_30, "jobshop/classic", "jobshop/bounds_makespan",
    ),
    "project": Class(
        tuple(f"j120{i}_{k}" for i in range(1, 61) for k in range(1, 11)), 60, 60.0, ("portfolio", "cp-sat"),
        "mean gap no larger than cp-sat's", _no_larger, "rcpsp/j120", "rcpsp/j120_bounds",
    ),
    "blocking": Class(
        tuple(f"la{i:02}" for i in range(1, 41)), 40, 30.0, ("portfolio", *RULES),
        "mean gap at most half of the best rule's", _half_of_the_rules, "jobshop/classic", "jobshop/bounds_blocking_swap_makespan", "swap",
    ),
    "tardiness": Class(
        tuple(f"{jobs}-{k}" for jobs in TARDINESS for k in range(_EACH)), 2 * _EACH, 60.0, ("decomposition",),
        "each proven: " + ", ".join(f"{jobs} jobs in {limit:g} s" for jobs, limit in TARDINESS.items()), _proven_in_time,
    ),
}  # fmt: skip


@cache
def _drawn(jobs: int) -> Instances:
    return Instances.drawn(_EACH, jobs, seed=jobs, factors=(0.2, 0.4, 0.6, 0.8))


def load(instance: str, folder: Path) -> Problem:
    """An instance, as the log names it: class/name."""
    kind, name = instance.split("/")
    chosen = CLASSES[kind]
    if chosen.file:
        return load_problem(folder / f"{chosen.file}.jsonl#{name}", blocking=chosen.blocking)
    jobs, number = (int(part) for part in name.split("-"))
    drawn = _drawn(jobs)
    return single_machine(due_jobs(drawn.d[number].tolist()), drawn.p[number].tolist(), name=name)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def solver_of(name: str) -> Solver:
    """A solver, PyJobShop or a dispatch rule."""
    if name == "pyjobshop" and _version(name) == "not installed":
        raise InputError("pyjobshop is not installed; pip install pyjobshop, or choose others with --solvers")
    return PyJobShop() if name == "pyjobshop" else AsSolver(make_rule(name)) if name in RULES else make_solver(name)


class Progress:
    """A line on standard error for each new row, with the time that is left if all that is missing takes as long as its like did."""

    def __init__(self, log: Log, missing: list[tuple[str, str]], wall: dict[str, float]) -> None:
        self.log, self.missing, self.wall, self.total = log, missing, wall, len(missing)

    def __call__(self, done: int, total: int) -> None:
        row = self.log.rows[-1]
        kind = row.instance.split("/")[0]
        self.missing.remove((kind, row.solver))
        left = sum(map(self._seconds, set(self.missing)))
        said = "-" if row.value is None else f"{row.value:,}" + (f" ({100 * (row.value / row.ub - 1):.2f}% above {row.ub:,})" if row.ub else "")
        now = f"{self.total - len(self.missing)}/{self.total}, about {left / 60:.0f} min left"
        print(f"{now}: {row.instance} {row.solver} seed {row.seed}: {row.status} {said} {row.note}".rstrip(), file=sys.stderr, flush=True)

    def _seconds(self, like: tuple[str, str]) -> float:
        taken = [row.wall_s for row in self.log.rows if (row.instance.split("/")[0], row.solver) == like]
        return self.missing.count(like) * (mean(taken) if taken else self.wall[like[0]])


def run(args: argparse.Namespace, log: Log, wall: dict[str, float], chosen: dict[str, list[str]]) -> None:
    """Make the rows that are missing."""
    solvers = {kind: [solver_of(name) for name in args.solvers or CLASSES[kind].solvers] for kind in chosen}
    done = {(row.instance, row.solver, row.seed) for row in log.rows}
    seeds = range(args.seed, args.seed + args.seeds)
    missing = [
        (kind, solver.name)
        for seed in seeds for kind in chosen for name in chosen[kind] for solver in solvers[kind] if (name, solver.name, seed) not in done
    ]  # fmt: skip
    progress = Progress(log, missing, wall)
    if missing:
        warm_up_shops()
    for seed in seeds:
        for kind, instances in chosen.items():
            bounds: dict[str, Bounds] = read_bounds(args.folder / f"{CLASSES[kind].bounds}.csv") if CLASSES[kind].bounds else {}
            budget = Budget(wall[kind], args.workers, seed)
            run_table(instances, solvers[kind], lambda name: load(name, args.folder), budget, log, bounds, progress)


def tables(log: Log, chosen: dict[str, list[str]], wall: dict[str, float], names: Sequence[str] | None) -> Iterator[str]:
    """As Markdown: what each solver reached on the instances that all have run, then the bars."""
    verdicts = []
    for kind, instances in chosen.items():
        solvers = names or CLASSES[kind].solvers
        by_run: dict[tuple[str, int], dict[str, Row]] = {}
        for row in log.rows:
            if row.instance in instances and row.solver in solvers:
                by_run.setdefault((row.instance, row.seed), {})[row.solver] = row
        found = [rows for rows in by_run.values() if len(rows) == len(solvers)]
        runs = f"{len({row.instance for rows in found for row in rows.values()})} instances, {len(found)} runs each of {wall[kind]:g} s"
        yield f"\n{kind}: {runs}\n\n| solver | mean gap to best known | best or tied | proven | no schedule | wrong | CPU s per run |"
        yield "|---|---|---|---|---|---|---|"
        for solver in solvers if found else ():
            own = [rows[solver] for rows in found]
            best = sum(rows[solver].value == min(r.value for r in rows.values() if r.value is not None) for rows in found if _any(rows))
            proven, wrong = (sum(row.status == status for row in own) for status in ("optimal", "wrong"))
            counts = (best, proven, sum(row.value is None for row in own), wrong)
            gap = f"{_gap(found, solver):.2f}%" if any(row.ub for row in own) else "-"
            yield f"| {solver} | {gap} | {' | '.join(map(str, counts))} | {mean(row.cpu_s for row in own):.1f} |"
        needed = set(CLASSES[kind].solvers) <= set(solvers)
        measured, holds = CLASSES[kind].bar(found) if found and needed else ("-", False)
        enough = len({row.instance for rows in found for row in rows.values()}) >= CLASSES[kind].sample
        verdict = "not measured" if measured == "-" else ("holds" if holds else "does not hold") + ("" if enough else " so far (too few)")
        verdicts.append(f"| {kind} | {CLASSES[kind].asks} | {measured} | {verdict} |")
    yield "\n| class | bar | measured | verdict |\n|---|---|---|---|"
    yield from verdicts


def _any(rows: dict[str, Row]) -> bool:
    return any(row.value is not None for row in rows.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, show all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--log", type=Path, default=Path("shop-benchmark.jsonl"))
    parser.add_argument("--wall", type=float, help="seconds per run; default 60, blocking 30")
    parser.add_argument("--sample", type=int, help="instances of each class, evenly spaced; default as many as its bar asks for")
    parser.add_argument("--solvers", nargs="+", help="default: those that the bar names")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    args = parser.parse_args(argv)
    for name in ("sample", "seeds", "workers"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(args, name)}")
    wall = {kind: args.wall or CLASSES[kind].wall for kind in CLASSES}
    chosen = {kind: _spread(kind, args.sample or CLASSES[kind].sample) for kind in args.classes}
    settings = {"wall_s": wall, "workers": args.workers, **{name: _version(name) for name in ("rota", "ortools", "pyjobshop")}}
    interrupted = False
    try:
        log = Log.open(args.log, settings)
        try:
            run(args, log, wall, chosen)
        except KeyboardInterrupt:
            interrupted = True
    except (RotaError, OSError) as error:
        print(f"shop.py: {error}", file=sys.stderr)
        return 2
    for line in tables(log, chosen, wall, args.solvers):
        print(line)
    wrong = [row for row in log.rows if row.status in ("wrong", "unreadable")]
    for row in wrong:
        print(f"WRONG: {row.solver} on {row.instance}: {row.note}", file=sys.stderr)
    if interrupted:
        print(f"interrupted; the same command goes on from {args.log}", file=sys.stderr)
        return INTERRUPTED
    return WRONG if wrong else 0


def _spread(kind: str, sample: int) -> list[str]:
    names = CLASSES[kind].names
    many = min(sample, len(names))
    return [f"{kind}/{names[i * len(names) // many]}" for i in range(many)]


if __name__ == "__main__":
    sys.exit(main())
