"""A sample of every published set of shops, projects and single machines: is anything below a published bound, or proven and different?

    python benchmarks/shop_sweep.py FOLDER [--sample 4] [--time-limit 8] [--solver cp-sat] [--logs FOLDER]

FOLDER holds the sets as JSON lines (`rota.workload.shop.sets`) with their bounds. With --logs a killed run goes on. Exits with 1 if anything is
wrong. The table is the one in docs/shop.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rota.contracts.shop import Budget, Problem
from rota.policies.solvers.registry import make_solver
from rota.studies.solve_table import Log, Row, cases, run_table, summary
from rota.workload.shop.load import load_problem
from rota.workload.shop.sets import Bounds, read_bounds

#: Title, set, bounds, blocking.
SETS = (
    ("job shop", "jobshop/classic", "jobshop/bounds_makespan", "none"),
    ("job shop, 10 x 10 to 1000 x 10", "jobshop/tai_large", "jobshop/bounds_makespan", "none"),
    ("blocking job shop, swaps allowed", "jobshop/classic", "jobshop/bounds_blocking_swap_makespan", "swap"),
    ("flexible job shop", "fjsp/instances", "fjsp/bounds", "none"),
    ("open shop", "openshop/instances", "openshop/bounds", "none"),
    *((f"RCPSP {name}", f"rcpsp/{name}", f"rcpsp/{name}_bounds", "none") for name in ("j30", "j60", "j120")),
    *(
        (f"RCPSP/max {name}", f"rcpsp_max/{name}", f"rcpsp_max/{name}_bounds", "none")
        for name in ("j10", "j20", "j30", "ubo10", "ubo20", "ubo50")
    ),
    ("multi-mode RCPSP j10", "mrcpsp/j10", "mrcpsp/j10_bounds", "none"),
    *((f"total tardiness {name}", f"tardiness/{name}", "", "none") for name in ("n20_uniform", "n20_normal", "n100")),
    *((f"weighted tardiness {name}", f"weighted_tardiness/{name}", "", "none") for name in ("wt40", "wt50", "wt100")),
)


def bounds_of(folder: Path, file: str, table: str) -> dict[str, Bounds]:
    """Published bounds: from a table, or from the set itself, where they are optima or the best known."""
    if table:
        return read_bounds(folder / f"{table}.csv")
    found = {}
    for line in (folder / f"{file}.jsonl").read_text().splitlines():
        data = json.loads(line)
        known = data["opt"] if "opt" in data else data["best"]
        optimal = "opt" in data or not file.endswith("wt100")
        found[data["name"]] = Bounds(known if optimal else None, known, "optimal" if optimal else "best known")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", type=int, default=4, help="instances of each set, evenly spaced")
    parser.add_argument("--time-limit", type=float, default=8.0)
    parser.add_argument("--solver", default="cp-sat")
    parser.add_argument("--logs", type=Path, help="folder for the rows of each set, from which a killed run goes on")
    given = parser.parse_args()
    solver = make_solver(given.solver)
    print("| set | instances | proven | wrong | mean gap to best known | worst | mean s |\n|---|---|---|---|---|---|---|")
    wrong: list[Row] = []
    for title, file, table, blocking in SETS:
        known = bounds_of(given.folder, file, table)
        names = [case for case in cases(given.folder / f"{file}.jsonl") if case.rpartition("#")[2] in known]
        names = [names[i * len(names) // given.sample] for i in range(min(given.sample, len(names)))]
        log = Log.open(
            given.logs / f"{title.replace(' ', '_').replace('/', '_')}.jsonl" if given.logs else None,
            {"time_limit": given.time_limit, "solver": given.solver},
        )

        def load(path: str, how: str = blocking) -> Problem:
            return load_problem(path, blocking=how)

        run_table(names, [solver], load, Budget(given.time_limit), log, known)
        rows = [row for row in log.rows if row.instance in names]
        print(line(title, rows), flush=True)
        wrong += [row for row in rows if row.status == "wrong"]
    for row in wrong:
        print(f"WRONG: {row.instance}: {row.note}", file=sys.stderr)
    return int(bool(wrong))


def line(title: str, rows: list[Row]) -> str:
    """A row of the table; instances that are infeasible, or whose lags contradict each other, have no gap."""
    total = summary(rows)[0]
    refuted = sum(row.status == "unreadable" and "no times can satisfy" in row.note for row in rows)
    gaps = ("-" if total[name] is None else f"{total[name]:.2%}" for name in ("mean gap", "worst gap"))
    return f"| {title} | {len(rows)} | {total['proven'] + refuted} | {total['wrong']} | {' | '.join(gaps)} | {total['mean seconds']:.1f} |"


if __name__ == "__main__":
    sys.exit(main())
