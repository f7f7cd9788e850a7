"""What large-neighbourhood search is worth in the portfolio: with and without it, at equal time on the same cores.

    python benchmarks/shop_lns.py FOLDER [--log FILE] [--classes project blocking job-shop] [--workers 2] [--seed 0]

FOLDER holds the sets as JSON lines with their bounds. A killed run goes on from the log. Prints a Markdown table of every instance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import mean

from rota.contracts.shop import Budget
from rota.errors import RotaError
from rota.policies.solvers.blocking_shop import BlockingSearch
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.job_shop import TabuSearch
from rota.policies.solvers.lns import NeighbourhoodSearch
from rota.policies.solvers.portfolio import Line, Portfolio
from rota.policies.solvers.project_solvers import ProjectSampling
from rota.studies.solve_table import Log, run_table
from rota.warmup import warm_up_shops
from rota.workload.shop.load import load_problem
from rota.workload.shop.sets import read_bounds

LNS = NeighbourhoodSearch(opening=0)
#: Of each class: set, bounds, blocking, seconds, instances, and the lines without and with.
CLASSES: dict[str, tuple[str, str, str, float, tuple[str, ...], Line, Line]] = {
    "project": (
        "rcpsp/j120", "rcpsp/j120_bounds", "none", 20, ("j1206_1", "j12011_3", "j12026_5", "j12036_7", "j12052_9"),
        ((ProjectSampling(), 0.05), (CpSat(), 0.95)), ((ProjectSampling(), 0.05), (CpSat(), 0.15), (LNS, 0.8)),
    ),
    "blocking": (
        "jobshop/classic", "jobshop/bounds_blocking_swap_makespan", "swap", 15, ("la21", "la22", "la23", "la24", "la25"),
        ((BlockingSearch(), 0.9), (CpSat(), 0.1)), ((BlockingSearch(), 0.8), (LNS, 0.2)),
    ),
    "job-shop": (
        "jobshop/classic", "jobshop/bounds_makespan", "none", 20, ("dmu05", "dmu09", "dmu18"),
        ((TabuSearch(), 0.95), (CpSat(), 0.05)), ((TabuSearch(), 0.8), (LNS, 0.15), (CpSat(), 0.05)),
    ),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--classes", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        log = Log.open(given.log, {"classes": {kind: repr(chosen) for kind, chosen in CLASSES.items()}, "workers": given.workers})
    except RotaError as error:
        print(f"shop_lns.py: {error}", file=sys.stderr)
        return 2
    warm_up_shops()
    print("| class | instance | best known | without | with |\n|---|---|---|---|---|")
    for kind in given.classes:
        file, bounds, blocking, wall, names, *lines = CLASSES[kind]
        solvers = [Portfolio(name, ((10**9, line),)) for name, line in zip(("without", "with"), lines, strict=True)]
        known = read_bounds(given.folder / f"{bounds}.csv")
        gaps: dict[str, list[float]] = {"without": [], "with": []}
        for name in names:
            case = f"{file}.jsonl#{name}"
            run_table(
                [f"{kind} {case}"], solvers, lambda case: load_problem(given.folder / case.split()[1], blocking=blocking),  # noqa: B023
                Budget(wall, given.workers, given.seed), log, known,
            )  # fmt: skip
            rows = {row.solver: row for row in log.rows if row.instance == f"{kind} {case}" and row.seed == given.seed}
            for solver, row in rows.items():
                assert row.value is not None and row.ub is not None and row.status != "wrong", row
                gaps[solver].append(row.value / row.ub - 1)
            print(f"| {kind} | {name} | {known[name].ub:,} | {rows['without'].value:,} | {rows['with'].value:,} |", flush=True)
        print(f"| {kind}, {wall:g} s | mean gap | | {mean(gaps['without']):.2%} | {mean(gaps['with']):.2%} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
