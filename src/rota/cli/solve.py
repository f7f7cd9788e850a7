"""`rota solve`: a shop, a project or a single machine out of a file, solved, checked and drawn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from rota.cli.options import Json
from rota.cli.output import Figure, check_outputs, print_json, print_rows
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.contracts.shop import Problem, Progress, Schedule
    from rota.studies.solve import Solved

INTERRUPTED, NOTHING, WRONG = 130, 1, 3
#: Seconds between two lines of progress.
_EVERY = 0.5


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("solve")(solve)


def solve(
    file: Annotated[str, typer.Argument(metavar="FILE", help="An instance; FILE#NAME for one of several in a file. The format is recognised.")],
    time_limit: Annotated[float, typer.Option("--time-limit", "-t", metavar="S", help="Seconds.")] = 60.0,
    objective: Annotated[
        str | None,
        typer.Option("--objective", metavar="TEXT", help="Such as makespan, total-tardiness or 3*makespan+total-setup; later stages after commas."),
    ] = None,
    blocking: Annotated[
        str, typer.Option("--blocking", metavar="HOW", help="Job shops without buffers: swap, no-swap or no-wait.")
    ] = "none",
    solver: Annotated[str | None, typer.Option("--solver", metavar="NAME", help="Who solves it; with --rules, a list by commas.")] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Cores; default: all.")] = 0,
    gap: Annotated[float, typer.Option("--gap", metavar="SHARE", help="Stop within this share of the bound.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    format: Annotated[str | None, typer.Option("--format", metavar="NAME", help="Where it is not recognised, as with Taillard's open shops.")] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="FILE", help="Write the schedule (.json or .csv).")] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write a Gantt chart that opens in any browser.")] = None,
    rules: Annotated[
        bool, typer.Option("--rules", help="A table of all rules and solvers on FILE, a set (.jsonl) or a folder; --out FILE.jsonl keeps it.")
    ] = False,
    bounds: Annotated[str | None, typer.Option("--bounds", metavar="CSV", help="With --rules: published bounds (name, lb, ub, status).")] = None,
    sample: Annotated[int | None, typer.Option("--sample", metavar="N", help="With --rules: only N instances, drawn at random.")] = None,
    json: Json = False,
) -> int:  # fmt: skip
    """Find a good schedule, improve it until it is proven best or time is up, and have it checked independently.

    Ctrl-C ends the search and keeps the best schedule so far. Exit status: 0 with a schedule, 1 without one, 2 for bad input, 130 after Ctrl-C.

    Example: rota solve ft10.txt --time-limit 30 --html gantt.html
    """
    from rota.contracts.shop import Budget
    from rota.policies.solvers.registry import DEFAULT, make_solver, solver_names
    from rota.studies.robot_cell import best_by_rules
    from rota.studies.solve import solve as run
    from rota.workload.shop.form import objective_from
    from rota.workload.shop.load import load_cell, load_problem
    from rota.workload.shop.write import check_suffix

    check_outputs(out=out, html=html)
    budget = Budget(time_limit, workers, seed, gap)
    wanted = objective_from(objective) if objective else None

    def load(path: str) -> Problem:
        return load_problem(path, format=format, blocking=blocking, objective=wanted)

    if rules:
        from rota.cli.solve_table import table

        if html:
            raise InputError("--html draws one schedule; leave it out with --rules")
        settings: dict[str, object] = dict(
            time_limit=time_limit, objective=objective, blocking=blocking, workers=workers, gap=gap, seed=seed
        )
        names = solver.split(",") if solver else solver_names()
        return table(file, names, load, budget, out=out, bounds=bounds, sample=sample, settings=settings, json=json)
    if bounds or sample is not None:
        raise InputError("--bounds and --sample are for tables; add --rules")
    if out:
        check_suffix(out)
    chosen = make_solver(solver or DEFAULT)
    problem = load(file)
    cell = load_cell(file) if "until" in problem.features else None
    watch = None if json else _Watch(_stage_names(problem))
    found = run(problem, chosen, budget, hint=best_by_rules(cell) if cell else None, on_progress=watch)
    if watch:
        watch.finish()
    _write(found, out, html)
    if json:
        print_json({**found.record(), "schedule": found.rows()})
    else:
        _show(found)
    if found.outcome.interrupted:
        return INTERRUPTED
    if found.report is None:
        return NOTHING
    return 0 if found.ok else WRONG


def _stage_names(problem: Problem) -> list[str]:
    from rota.workload.shop.form import objective_to

    return [objective_to([stage]) for stage in problem.objective.stages] if problem.objective else ["feasibility"]


class _Watch:
    """A line per improvement on standard error, not more than one per half second; the last one is never lost."""

    def __init__(self, stages: list[str]) -> None:
        self._stages = stages
        self._last = -_EVERY
        self._held: Progress | None = None
        self._head = False

    def __call__(self, point: Progress, schedule: Schedule | None) -> None:
        if self._held is not None and self._held.stage != point.stage:
            self._line(self._held)
        if point.wall_s - self._last < _EVERY:
            self._held = point
        else:
            self._line(point)

    def _line(self, point: Progress) -> None:
        from rota.studies.solve import relative_gap

        if not self._head:
            sys.stderr.write(f"{'seconds':>9}  {'value':>12}  {'bound':>12}  {'gap':>7}  objective\n")
            self._head = True
        known = point.objective is not None and point.bound is not None
        gap = f"{relative_gap(point.objective or 0, point.bound or 0):.2%}" if known else "-"
        value, bound = ("-" if number is None else f"{number:,}" for number in (point.objective, point.bound))
        sys.stderr.write(f"{point.wall_s:9.1f}  {value:>12}  {bound:>12}  {gap:>7}  {self._stages[point.stage]}\n")
        self._last, self._held = point.wall_s, None

    def finish(self) -> None:
        """Show what was held back."""
        if self._held is not None:
            self._line(self._held)


def _write(found: Solved, out: str | None, html: str | None) -> None:
    if found.report is None:
        return
    if out:
        from rota.workload.shop.write import write_rows

        write_rows(found.rows(), out, found.record())
    if html:
        from rota.report.gantt import write_gantt

        write_gantt(html, found)


def _show(found: Solved) -> None:
    outcome, problem = found.outcome, found.problem
    counts = {"tasks": len(problem.tasks), "resources": len(problem.resources), "jobs": len(problem.jobs)}
    typer.echo(
        f"{problem.name}: {', '.join(f'{number:,} {what}' for what, number in counts.items() if number)}; {outcome.solver}"
    )
    if found.report is None:
        said = {
            "infeasible": "infeasible: it is proven that there is no schedule",
            "unknown": "no schedule was found in this time; allow more",
        }
        typer.echo("interrupted before a schedule was found" if outcome.interrupted else said.get(outcome.status, outcome.status))
        return
    if outcome.objective and outcome.bound:
        print_rows([_stage_row(*row) for row in zip(_stage_names(problem), outcome.objective, outcome.bound, strict=True)])
    how = "interrupted" if outcome.interrupted else "proven optimal" if outcome.status == "optimal" else "time is up"
    typer.echo(f"{how} after {found.wall_s:.1f} s, makespan {found.report.terms['makespan']:,}")
    if found.report.ok:
        typer.echo("checked independently: every constraint holds and the objective is as claimed")
        return
    typer.echo(f"NOT FEASIBLE, found by the independent check: {len(found.report.violations)} violations")
    for violation in found.report.violations[:10]:
        typer.echo(f"  {violation}")


def _stage_row(name: str, value: int, bound: int | None) -> dict[str, object]:
    from rota.studies.solve import relative_gap

    gap = "-" if bound is None else "proven" if bound == value else f"{relative_gap(value, bound):.2%}"
    return {"objective": name, "value": value, "bound": bound, "gap": Figure(gap)}
