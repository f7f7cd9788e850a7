"""`rota examine`: planners, solvers and language models alike, on projects with ever more constraints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rota.cli.options import Json
from rota.cli.output import Figure, check_outputs, print_json, print_rows
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.studies.examine import Planner, Verdict

INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("examine")(examine)


def examine(
    planners: Annotated[
        str, typer.Argument(metavar="PLANNERS", help="By commas: solvers, index, earliest-start, latest-end, forgetful:E, or the address of a model.")
    ],
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Which model the address serves.")] = None,
    levels: Annotated[str, typer.Option("--levels", metavar="K,...", help="Numbers of precedences.")] = "5,10,15,20,25",
    axes: Annotated[
        str, typer.Option("--axes", metavar="SETS", help="Sets by commas, of downtime, windows and pairs joined by +; none; all.")
    ] = "none,all",
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Problems per level and set of axes.")] = 20,
    tasks: Annotated[int, typer.Option("--tasks", metavar="N", help="Tasks per problem.")] = 20,
    slack: Annotated[int, typer.Option("--slack", metavar="T", help="How much wider than the task a window may be, on either side.")] = 4,
    vocabulary: Annotated[str, typer.Option("--vocabulary", metavar="NAME", help="plain or migration.")] = "plain",
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", "-t", metavar="S", help="Seconds per problem; default: 10, for a model's answer 300.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", metavar="N", help="Longest answer.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", metavar="X", help="Of the model; below 0: the server's own.")] = 0.0,
    key_from: Annotated[str, typer.Option("--key-from", metavar="VAR", help="Environment variable with the key for the address.")] = "OPENAI_API_KEY",
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Keep verdicts and answers (.jsonl); the same command goes on from there.")
    ] = None,
    prompt: Annotated[bool, typer.Option("--prompt", help="Print the first problem as a planner gets it, and stop.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", help="Answers asked for at the same time.")] = 1,
    json: Json = False,
) -> int:  # fmt: skip
    """Ask planners for schedules of projects that are known to have one, and see where they stop keeping every constraint.

    Example: rota examine cp-sat,latest-end,forgetful:0.05 --levels 5,15,25

    Example: rota examine http://localhost:8000/v1 --model qwen3-8b --out exam.jsonl
    """
    from rota.report.progress import ProgressBars
    from rota.studies.examine import Exam, Log
    from rota.studies.examine import examine as run
    from rota.workload.shop.planted import AXES, Shape
    from rota.workload.shop.prose import describe

    if jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {jobs}")
    if out and Path(out).suffix != ".jsonl":
        raise InputError(f"--out {out}: verdicts are kept as .jsonl, one per line; give the file such a name")
    check_outputs(out=out)
    sets = tuple(AXES if one == "all" else () if one == "none" else tuple(one.split("+")) for one in axes.split(","))
    exam = Exam(Shape(tasks=tasks, slack=slack, vocabulary=vocabulary), _numbers(levels), sets, seeds)
    if prompt:
        typer.echo(describe(next(exam.problems())[2].problem), nl=False)
        return 0
    chosen = [_planner(name, model, time_limit, max_tokens, temperature, key_from) for name in planners.split(",")]
    # what a planner is asked decides what its verdict means; how many problems there are does not
    settings = {"tasks": tasks, "slack": slack, "vocabulary": vocabulary, "levels": exam.levels, "time_limit": time_limit,
                "max_tokens": max_tokens, "temperature": temperature}  # fmt: skip
    log = Log.open(out, settings)
    interrupted = False
    try:
        with ProgressBars(quiet=json) as bars:
            run(chosen, exam, log, jobs=jobs, progress=bars.task(f"{exam.count} problems x {len(chosen)} planners"))
    except KeyboardInterrupt:
        interrupted = True
    _show(log.rows, json)
    if interrupted and not json:
        again = f"; the same command goes on from {out}" if out else "; with --out FILE.jsonl it could go on from here"
        typer.echo(f"interrupted after {len(log.rows)} of {exam.count * len(chosen)}{again}")
    return INTERRUPTED if interrupted else 0


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--levels {text}: give whole numbers by commas, such as 5,15,25") from None


def _planner(
    name: str, model: str | None, time_limit: float | None, max_tokens: int | None, temperature: float, key_from: str
) -> Planner:
    from rota.mechanisms.endpoint import Endpoint
    from rota.policies.solvers.forgetful import Forgetful
    from rota.policies.solvers.orders import ORDERS, InOrder
    from rota.policies.solvers.registry import make_solver
    from rota.studies.examine import BySolver, ByText

    if "://" in name:
        if not model:
            raise InputError(f"{name}: say which model it serves, with --model NAME")
        return ByText(
            Endpoint(
                name, model, os.environ.get(key_from, ""), max_tokens=max_tokens, temperature=None if temperature < 0 else temperature,
                timeout_s=300.0 if time_limit is None else time_limit,
            )
        )  # fmt: skip
    limit = 10.0 if time_limit is None else time_limit
    if name in ORDERS:
        return BySolver(InOrder(name), limit)
    if name.startswith("forgetful:"):
        try:
            return BySolver(Forgetful(float(name.partition(":")[2])), limit)
        except ValueError:
            raise InputError(f"{name}: give the probability of an error as a number, such as forgetful:0.05") from None
    return BySolver(make_solver(name), limit)


def _show(verdicts: list[Verdict], json: bool) -> None:
    from dataclasses import asdict

    from rota.studies.examine import THRESHOLD, summary

    lines = summary(verdicts)
    if json:
        print_json({"summary": lines, "verdicts": [asdict(verdict) for verdict in verdicts]})
        return
    if not lines:
        return
    print_rows([_row(line) for line in lines])
    typer.echo(
        f"shares of feasible schedules by number of precedences; WAUC weighs them by it; break: the first below {THRESHOLD:.0%}; "
        "errors: violations per problem"
    )


def _row(line: dict[str, Any]) -> dict[str, object]:
    row: dict[str, object] = {"planner": line["planner"], "axes": line["axes"]}
    row |= {str(level): Figure(f"{share:.0%}") for level, share in line["feasible"].items()}
    wauc = "-" if line["wauc"] is None else f"{line['wauc']:.3f}"
    errors = ", ".join(f"{name} {number:.2g}" for name, number in line["errors"].items())
    return {**row, "WAUC": Figure(wauc), "break": line["breakpoint"], "errors": errors or "-"}
