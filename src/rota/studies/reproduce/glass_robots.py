"""Transfer robots in cells for glass: what the rules for them do, and what a learned one has to beat.

The paper's robots, lines and figures are not known; cells are drawn here, and the simulator is held to cycle times that are known.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from rota.contracts.shop import Budget
from rota.mechanisms.shop.cell import simulate_cell
from rota.policies.dispatch.cell import cell_rule_names, make_cell_rule
from rota.policies.solvers.registry import make_solver
from rota.studies.replicate import in_parallel
from rota.studies.reproduce.claim import NEEDS_TRAINING, NOT, PARTLY, REPRODUCED, Finding, Options, Report, Table
from rota.studies.reproduce.robot_cells import BOTTLENECKS, Drawn, drawn, robot_work, serial, station_work
from rota.studies.robot_cell import run_cell
from rota.workload.shop.cell import least_ticks, work_times
from rota.workload.shop.cell_problem import plan_problem

NOISE = (0.0, 0.1)
#: Serial cells of which the cycle is compared to the closed form, per kind; sheets of each.
CYCLES, CYCLE_SHEETS = 100, 120
#: Small cells for the exact solver: stages and sheets; seconds for each.
SMALL = ((3, 5), (3, 8), (4, 6))
SOLVER_S = 30.0


class Task(NamedTuple):
    """A cell, a seed and a noise under which all rules are run."""

    what: Drawn
    seed: int
    noise: float


class Ran(NamedTuple):
    """A run: ticks per sheet, % over what no rule gets below, sheets of 100 that stay too long, whether the checker and the bound agree."""

    ticks: float
    over: float
    overstays: float
    checked: bool


def rules(arms: int) -> list[str]:
    """Those for robots with so many arms."""
    return [name for name in cell_rule_names() if make_cell_rule(name).arms <= arms]


def run_task(task: Task) -> dict[str, Ran]:
    """By rule."""
    cell = drawn(task.what, task.seed)
    work = work_times(cell, task.seed, task.noise)
    least, found = least_ticks(cell, work), {}
    for name in rules(task.what.arms):
        one = run_cell(cell, make_cell_rule(name, task.seed), work, task.seed)
        ticks = one.run.ticks_per_sheet
        good = one.ok and one.run.makespan >= cell.sheets * least - 1e-6
        found[name] = Ran(ticks, 100 * (ticks / least_ticks(cell) - 1), 100 * len(one.overstays) / cell.sheets, good)
    return found


class Small(NamedTuple):
    """A small cell: makespan of every rule, and value and bound of the exact solver, None if it found none."""

    what: Drawn
    sheets: int
    spans: dict[str, int]
    value: int | None
    bound: int


def run_small(task: tuple[Drawn, int, int]) -> Small:
    """The rules and the exact solver on a cell without limits on the stay."""
    what, sheets, seed = task
    cell = drawn(what, seed, sheets, limits=False)
    results = {name: run_cell(cell, make_cell_rule(name, seed)) for name in rules(what.arms)}
    best = min(results.values(), key=lambda one: one.run.makespan)
    outcome = make_solver("cp-sat").solve(plan_problem(cell), Budget(SOLVER_S, workers=1, seed=seed), best.schedule)
    value, bound = (outcome.objective or (None,))[0], (outcome.bound or (0,))[0] or 0
    return Small(what, sheets, {name: one.run.makespan for name, one in results.items()}, value, bound)


Found = Mapping[tuple[Drawn, float], Mapping[str, Sequence[Ran]]]


def run(options: Options) -> Report:
    """All claims."""
    began = time.perf_counter()
    sizes = (3,) if options.quick else (3, 4, 5, 6)
    cells = [Drawn(n, parallel, arms, b) for n in sizes for parallel in (False, True) for arms in (1, 2) for b in BOTTLENECKS]
    tasks = [Task(what, seed, noise) for what in cells for noise in NOISE for seed in range(options.seeds)]
    small = [(Drawn(n, False, 1, b), sheets, 0) for n, sheets in (SMALL[:1] if options.quick else SMALL) for b in BOTTLENECKS]
    found: dict[tuple[Drawn, float], dict[str, list[Ran]]] = {}
    for done, (i, result) in enumerate(in_parallel(run_task, tasks, options.jobs)):
        for rule, ran in result.items():
            found.setdefault((tasks[i].what, tasks[i].noise), {}).setdefault(rule, []).append(ran)
        if options.progress:
            options.progress(done + 1, len(tasks) + len(small), tasks[i].what.layout)
    exact: list[Small] = []
    for _, one in in_parallel(run_small, small, options.jobs):
        exact.append(one)
        if options.progress:
            options.progress(len(tasks) + len(exact), len(tasks) + len(small), "exact")
    cycles = CYCLES // 4 if options.quick else CYCLES
    findings = [
        *_learned(found, exact), _cycles("pull", 1, cycles), _cycles("swap", 2, cycles), _valid(found), _exact(exact), _arms(found), _limits(found),
    ]  # fmt: skip
    conditions = {
        "cells": f"{' to '.join(map(str, sorted({sizes[0], sizes[-1]})))} stages on an arc of 300 degrees, one station each or (parallel) two in "
        "every second; one robot with 1 or 2 arms; 60 sheets; no noise, or work times U(0.9, 1.1)",
        "bottleneck": "the busiest station's cycle over the robot's: " + ", ".join(f"{name} {ratio:g}" for name, ratio in BOTTLENECKS.items())
        + "; other stages have less work: half to nine tenths, or eight tenths to all where it alternates",
        "ticks per sheet": f"of 0.1 s, over the middle half of the sheets; {options.seeds} seeds",
        "not known": "the paper's robots, lines, learner and figures; times here are made up",
    }
    tables = [
        Table("Mean % over the least ticks per sheet, by where the bottleneck is", _by_bottleneck(found)),
        Table("Ticks per sheet", _by_cell(found)),
        Table("Small cells: makespans of the rules and what is proven of the best", _by_small(exact)),
    ]
    return Report("glass-robots", findings, tables, conditions, time.perf_counter() - began)


def _mean(rows: Sequence[Ran], part: str = "ticks") -> float:
    return fmean(getattr(one, part) for one in rows)


def _best(by_rule: Mapping[str, Sequence[Ran]]) -> str:
    return min(by_rule, key=lambda rule: _mean(by_rule[rule]))


def _learned(found: Found, exact: Sequence[Small]) -> list[Finding]:
    wins = Counter(rule for rows in found.values() for rule in rows if _mean(rows[rule]) <= 1.001 * _mean(rows[_best(rows)]))
    over = {b: fmean(_mean(rows[_best(rows)], "over") for (what, _), rows in found.items() if what.bottleneck == b) for b in BOTTLENECKS}
    why = "the learned policy is not part of this yet"
    return [
        Finding("A learned policy brings out more sheets than hand-written rules", "every cell: at least as many as the best rule, and more where "
                "the bottleneck alternates (asked here)", "higher throughput; no figure known",
                "what it has to beat, the best rule of each cell, over the least ticks per sheet: "
                + ", ".join(f"{b} {percent:.1f}%" for b, percent in over.items())
                + "; best, or within 0.1%: " + ", ".join(f"{rule} in {count}" for rule, count in wins.most_common()) + f" of {len(found)} cells",
                NEEDS_TRAINING, why),
        Finding("It controls the flow feasibly for several types of robots", "robots with 1 and 2 arms", "feasible; no figure known",
                f"rules bring out all sheets in {len(found)} cells", NEEDS_TRAINING, why),
    ]  # fmt: skip


def _cycles(rule: str, arms: int, cells: int) -> Finding:
    rng = np.random.default_rng(arms)
    equal, below = 0, 0
    for _ in range(cells):
        unit, n = int(rng.integers(1, 10)), int(rng.integers(2, 7))
        move, handling, turn = (int(unit * rng.integers(least, 5)) for least in (0, 1, 0))
        ticks = [int(unit * rng.integers(0, 21)) for _ in range(n)]
        out = simulate_cell(serial(ticks, move, handling, turn, arms, CYCLE_SHEETS), make_cell_rule(rule)).out
        gaps = {b - a for a, b in pairwise(out[CYCLE_SHEETS // 2 : -8])}
        cycle = max(robot_work(n, move, handling, turn, arms), station_work(max(ticks), move, handling, turn, arms))
        equal += gaps == {cycle}
        below += min(gaps) < cycle
    form = "max((n+1)(2h+2d), max p + 4h + 3d)" if arms == 1 else "max((n+1)(2h+s+d), max p + 2h + s)"
    return Finding(
        f"The cycle of {rule} is that of theory", f"{cells} serial cells, 2 to 6 stages, all equally far, {'one arm' if arms == 1 else 'two arms'}",
        form, f"to the tick in {equal} of {cells}", REPRODUCED if equal == cells else NOT, "" if not below else f"below it in {below}",
    )  # fmt: skip


def _valid(found: Found) -> Finding:
    every = [one for by_rule in found.values() for rows in by_rule.values() for one in rows]
    good = sum(one.checked for one in every)
    return Finding(
        "No run breaks a rule of the cell, or is faster than its busiest resource allows", f"{len(every)} runs of all rules", "all",
        f"{good} of {len(every)} pass the independent checker and the bound", REPRODUCED if good == len(every) else NOT,
    )  # fmt: skip


def _exact(exact: Sequence[Small]) -> Finding:
    proven = [one for one in exact if one.value is not None and one.value == one.bound]
    wrong = sum(one.bound > min(one.spans.values()) for one in exact)
    gaps = {b: [100 * (min(one.spans.values()) / one.value - 1) for one in proven if one.what.bottleneck == b and one.value] for b in BOTTLENECKS}
    over = ", ".join(f"{b} {fmean(rows):.1f}%" for b, rows in gaps.items() if rows)
    return Finding(
        "No rule beats the optimum of small cells", f"{len(exact)} serial cells, 5 to 8 sheets, one arm, CP-SAT for up to {SOLVER_S:g} s",
        "makespan at least the optimum", f"{len(exact) - wrong} of {len(exact)}, {len(proven)} proven; the best rule over the optimum, mean: {over}",
        REPRODUCED if not wrong and proven else NOT if wrong else PARTLY, "what lies between is all that any policy can gain there",
    )  # fmt: skip


def _arms(found: Found) -> Finding:
    gains = {
        b: [100 * (1 - _mean(rows["swap"]) / _mean(rows[_best({name: rows[name] for name in rules(1)})]))
            for (what, _), rows in found.items() if what.arms == 2 and what.bottleneck == b]
        for b in BOTTLENECKS
    }  # fmt: skip
    least = min(min(rows) for rows in gains.values())
    return Finding(
        "A robot with two arms gains by swapping", "cells with two arms: swap against the best of the rules that use one",
        "not told (asked here)",
        "ticks per sheet less by " + ", ".join(f"{b} {fmean(rows):.1f}%" for b, rows in gains.items()) + f" (least {least:.1f}%)",
        REPRODUCED if least > 0 else PARTLY,
    )  # fmt: skip


def _limits(found: Found) -> Finding:
    shares = {}
    for noise in NOISE:
        rows = [by_rule for (_, n), by_rule in found.items() if n == noise]
        shares[noise] = (fmean(_mean(by_rule[_best(by_rule)], "overstays") for by_rule in rows),
                         sum(any(not _mean(one, "overstays") for one in by_rule.values()) for by_rule in rows), len(rows))  # fmt: skip
    return Finding(
        "Rules that do not look at limits on the stay break them", "a limit of one transfer at every station; the fastest rule of each cell",
        "not told (asked here)",
        "; ".join(f"noise {noise:g}: {share:.0f} overstays per 100 sheets, some rule without any in {none} of {n} cells"
                  for noise, (share, none, n) in shares.items()),
        REPRODUCED if all(share > 0 for share, _, _ in shares.values()) else NOT, "a learned policy has to keep them at the same throughput",
    )  # fmt: skip


def _by_bottleneck(found: Found) -> list[dict[str, Any]]:
    rows = []
    for b in BOTTLENECKS:
        for arms in (1, 2):
            for noise in NOISE:
                some = [by_rule for (what, n), by_rule in found.items() if (what.bottleneck, what.arms, n) == (b, arms, noise)]
                row: dict[str, Any] = {"bottleneck": b, "arms": arms, "noise": noise}
                row |= {rule: round(fmean(_mean(one[rule], "over") for one in some), 1) if rule in some[0] else "-" for rule in rules(2)}
                rows.append(row | {"overstays of the best per 100": round(fmean(_mean(one[_best(one)], "overstays") for one in some))})
    return rows


def _by_cell(found: Found) -> list[dict[str, Any]]:
    rows = []
    for (what, noise), by_rule in found.items():
        row: dict[str, Any] = {"stages": what.stages, "layout": what.layout, "arms": what.arms, "bottleneck": what.bottleneck, "noise": noise}
        rows.append(row | {rule: round(_mean(by_rule[rule]), 1) if rule in by_rule else "-" for rule in rules(2)})
    return rows


def _by_small(exact: Sequence[Small]) -> list[dict[str, Any]]:
    rows = []
    for one in exact:
        row: dict[str, Any] = {"stages": one.what.stages, "sheets": one.sheets, "bottleneck": one.what.bottleneck}
        rows.append(row | one.spans | {"CP-SAT": one.value, "bound": one.bound})
    return rows
