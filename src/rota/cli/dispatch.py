"""`rota dispatch`: rules, and solvers that plan again and again, in a shop where things go otherwise than planned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rota.cli.options import Json
from rota.cli.output import check_outputs, print_json, print_rows
from rota.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rota.contracts.dispatch import DispatchRule
    from rota.workload.shop.realization import Realization

WRONG = 3


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("dispatch")(dispatch)


def dispatch(
    file: Annotated[str, typer.Argument(metavar="FILE", help="An instance, as for rota solve, or a robot cell.")],
    rule: Annotated[
        str | None,
        typer.Option("--rule", "-r", metavar="NAMES", help="Rules by commas; rolling:NAME plans with that solver at events. Default: all rules."),
    ] = None,
    noise: Annotated[float, typer.Option("--noise", metavar="SHARE", help="Durations times U(1 - SHARE, 1 + SHARE).")] = 0.0,
    interruptions: Annotated[
        float, typer.Option("--interruptions", metavar="P", help="Probability that an operation is interrupted, for U(1, 99) ticks.")
    ] = 0.0,
    breakdowns: Annotated[
        str | None, typer.Option("--breakdowns", metavar="UP:DOWN", help="Mean ticks between breakdowns of a machine, and of a repair.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Work that is interrupted begins anew instead of going on.")] = False,
    most_inside: Annotated[
        int, typer.Option("--most-inside", metavar="N", help="Rules let no more jobs into the shop at once; 0: any number.")
    ] = 0,
    arrivals: Annotated[float, typer.Option("--arrivals", metavar="TICKS", help="Mean time between jobs; 0: all are there.")] = 0.0,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Runs with different luck, the same for all rules.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="The first of them.")] = 0,
    objective: Annotated[str | None, typer.Option("--objective", metavar="TEXT", help="As for rota solve.")] = None,
    blocking: Annotated[str, typer.Option("--blocking", metavar="HOW", help="Job shops without buffers: swap or no-swap.")] = "none",
    format: Annotated[str | None, typer.Option("--format", metavar="NAME", help="Where it is not recognised.")] = None,
    time_limit: Annotated[float, typer.Option("--time-limit", "-t", metavar="S", help="Seconds of each plan of a rolling solver.")] = 1.0,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="FILE", help="Write the schedule of the only run (.json or .csv).")] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write a Gantt chart of the only run.")] = None,
    json: Json = False,
) -> int:  # fmt: skip
    """Run dispatch rules online and compare what comes out; every realised schedule is checked independently.

    Rules see what has happened and what is expected, not what will happen. Exit status: 0, 2 for bad input, 3 if the checker finds something.

    Example: rota dispatch la16.txt --rule mwkr,spt --blocking swap --breakdowns 500:50 --seeds 20

    Example: rota dispatch cell.json --rule pull,swap --noise 0.1 --seeds 20
    """
    from rota.policies.dispatch.online import rule_names
    from rota.studies.dispatch import compare, solved_run, summary
    from rota.workload.shop.form import objective_from
    from rota.workload.shop.load import load_cell, load_problem
    from rota.workload.shop.realization import draw
    from rota.workload.shop.write import check_suffix

    check_outputs(out=out, html=html)
    if out:
        check_suffix(out)
    if seeds < 1 or not time_limit > 0:
        raise InputError("--seeds must be at least 1 and --time-limit positive")
    cell = load_cell(file)
    if cell is not None:
        from rota.cli.dispatch_cell import dispatch_cell

        if interruptions or breakdowns or restart or most_inside or arrivals or objective or blocking != "none":
            raise InputError(f"{file}: is a robot cell, which takes --rule, --noise, --seeds, --seed, --out and --html; leave out the others")
        return dispatch_cell(cell, rule, noise, range(seed, seed + seeds), out=out, html=html, json=json)
    names = [name.strip() for name in rule.split(",")] if rule else rule_names()
    if (out or html) and len(names) * seeds > 1:
        raise InputError("--out and --html are for one run; name one --rule and leave --seeds at 1")
    if most_inside < 0 or (most_inside and any(name.startswith("rolling:") for name in names)):
        raise InputError("--most-inside must not be negative, and is for rules, not for rolling solvers")
    makers = [_maker(name, time_limit, most_inside) for name in names]
    between = _breakdowns(breakdowns) if breakdowns else None
    problem = load_problem(file, format=format, blocking=blocking, objective=objective_from(objective) if objective else None)

    def luck(seed: int) -> Realization:
        return draw(
            problem, seed, noise=noise, interruptions=interruptions, breakdowns=between, arrivals=arrivals, restarts=restart
        )

    runs = compare(problem, makers, luck, range(seed, seed + seeds))
    if out or html:
        solved = solved_run(problem, luck(seed), runs[0])
        if out:
            from rota.workload.shop.write import write_rows

            write_rows(solved.rows(), out, solved.record())
        if html:
            from rota.report.gantt import write_gantt

            write_gantt(html, solved)
    if json:
        print_json({"instance": problem.name, "runs": [run.record() for run in runs], "rules": summary(runs)})
    else:
        print_rows(summary(runs))
        bad = [run for run in runs if not run.report.ok]
        typer.echo(f"checked independently: {len(runs) - len(bad)} of {len(runs)} realised schedules keep every constraint")
        for run in bad[:10]:
            typer.echo(f"  {run.rule}, seed {run.seed}: {run.report.violations[0]}")
    return 0 if all(run.report.ok for run in runs) else WRONG


def _maker(name: str, time_limit: float, most_inside: int) -> Callable[[int], DispatchRule]:
    """A rule by its name, made anew for every seed."""
    from rota.contracts.shop import Budget
    from rota.policies.dispatch.online import make_rule
    from rota.policies.dispatch.rolling import Rolling
    from rota.policies.solvers.registry import make_solver

    if name.startswith("rolling:"):
        solver = make_solver(name.removeprefix("rolling:"))
        return lambda seed: Rolling(solver, Budget(time_limit, seed=seed))
    make_rule(name)
    return lambda seed: make_rule(name, seed, most_inside)


def _breakdowns(text: str) -> tuple[float, float]:
    up, _, down = text.partition(":")
    try:
        return float(up), float(down)
    except ValueError:
        raise InputError(f"--breakdowns {text!r}: write the mean ticks between breakdowns and of a repair, such as 500:50") from None
