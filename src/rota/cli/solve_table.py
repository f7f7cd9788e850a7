"""`rota solve --rules`: all rules and solvers on an instance, a set or a folder of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rota.cli.output import Figure, print_json, print_rows
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.contracts.shop import Budget, Problem
    from rota.studies.solve_table import Row

INTERRUPTED, WRONG = 130, 3
#: Tables up to so many rows are shown whole, larger ones as a summary only.
_WHOLE = 60


def table(
    path: str, names: list[str], load: Callable[[str], Problem], budget: Budget, *, out: str | None, bounds: str | None, sample: int | None,
    settings: dict[str, object], json: bool,
) -> int:  # fmt: skip
    """Run and show the table; returns the exit status."""
    from rota.policies.solvers.registry import make_solver
    from rota.report.progress import ProgressBars
    from rota.studies.solve_table import Log, cases, run_table
    from rota.workload.shop.sets import read_bounds

    if out and Path(out).suffix != ".jsonl":
        raise InputError(f"--out {out}: a table is kept as .jsonl, one line per instance and solver; give the file such a name")
    solvers = [make_solver(name) for name in names]
    instances = cases(path, sample, budget.seed)
    known = read_bounds(bounds) if bounds else None
    log = Log.open(out, settings)
    interrupted = False
    try:
        with ProgressBars(quiet=json) as bars:
            bar = bars.task(f"{len(instances)} instances x {len(solvers)} solvers")
            run_table(instances, solvers, load, budget, log, known, bar)
    except KeyboardInterrupt:
        interrupted = True
    _show(log.rows, json)
    if interrupted:
        if not json:
            again = f"; the same command goes on from {out}" if out else "; with --out FILE.jsonl it could go on from here"
            typer.echo(f"interrupted after {len(log.rows)} of {len(instances) * len(solvers)}{again}")
        return INTERRUPTED
    return WRONG if any(row.status == "wrong" for row in log.rows) else 0


def _show(rows: list[Row], json: bool) -> None:
    from dataclasses import asdict

    from rota.studies.solve_table import summary

    lines = summary(rows)
    if json:
        print_json({"rows": [asdict(row) for row in rows], "summary": lines})
        return
    if not rows:
        return
    answered = [row for row in rows if row.status != "refused"]
    if len(answered) <= _WHOLE:
        print_rows([_line(row) for row in answered])
        typer.echo("")
    names = {row.solver for row in answered}
    print_rows([_shown(line) for line in lines if line["solver"] in names])
    silent = sorted({row.solver for row in rows} - names)
    if silent:
        typer.echo(f"refused everything, for want of a feature (--json says which): {', '.join(silent)}")
    typer.echo(
        "gaps are to the best known: published, or found here; over the instances for which all solvers that have any value have one"
    )
    for row in rows:
        if row.status == "wrong":
            typer.echo(f"WRONG: {row.solver} on {row.instance}: {row.note}")


def _line(row: Row) -> dict[str, object]:
    name = row.instance.rpartition("#")[2] if "#" in row.instance else Path(row.instance).name
    note = row.note if len(row.note) < 80 else row.note[:77] + "..."
    return {
        "instance": name, "solver": row.solver, "status": row.status, "value": row.value, "bound": row.bound,
        "published": row.ub, "seconds": row.wall_s, "note": note,
    }  # fmt: skip


def _shown(line: Mapping[str, object]) -> dict[str, object]:
    return {name: _share(value) if name.endswith("gap") else value for name, value in line.items()}


def _share(value: object) -> Figure:
    return Figure(f"{value:.2%}" if isinstance(value, float) else "-")
