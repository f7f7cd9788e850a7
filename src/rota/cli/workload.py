"""`rota workload`: what is in a trace, and how built-in workloads relate to the traces they stand for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rota.cli.options import Json, Workload, takes
from rota.cli.output import check_outputs, print_json, print_rows
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.workload.fitted import FitRow

app = typer.Typer(
    name="workload",
    no_args_is_help=True,
    help="Traces, built-in workloads and generators.\n\nExample: rota workload show azure-conv",
)
Output = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write.")]


@app.command("list")
def list_workloads(json: Json = False) -> None:
    """List built-in workloads, and generators with their options.

    Example: rota workload list
    """
    from rota.workload.builtin import about, builtin_names
    from rota.workload.grammar import KINDS, options

    workloads = {name: about(name) for name in builtin_names()}
    generators = {kind: options(kind) for kind in KINDS}
    if json:
        print_json({"workloads": workloads, "generators": generators})
        return
    print_rows([{"workload": name, "what": text} for name, text in workloads.items()])
    typer.echo()
    for kind, known in generators.items():
        typer.echo(f"{kind}:" + ",".join(f"{name}={value}" if value else name for name, value in known.items()))


@takes(Workload)
def show(workload: Workload, json: Json = False) -> None:
    """Describe a trace: how much, how fast, how long, how bursty, and what a prefix cache could save.

    Example: rota workload show my_trace.csv
    """
    from rota.workload.describe import describe

    facts = describe(workload.load())
    if json:
        print_json(facts)
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        text = f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1e4 else value
        text = f"{text:,.0f}" if isinstance(text, int | float) else text
        typer.echo(f"{name.replace('_', ' '):<{width}}  {'-' if value != value else text}")


@takes(Workload)
def fit(workload: Workload, output: Output, json: Json = False) -> None:
    """Fit distributions to a trace, so that any number of requests like it can be drawn; the file works as a TRACE.

    Example: rota workload fit my_trace.csv -o mine.json
    """
    from rota.workload.builtin import write_fitted
    from rota.workload.fit import fit as fit_trace

    check_outputs(output=output)
    if Path(output).suffix != ".json":
        raise InputError(f"{output}: fitted workloads are written as .json; rename the file")
    found = fit_trace(workload.load())
    write_fitted(found, output)
    _errors(found.errors, json)
    if not json:
        typer.echo(f"Fitted workload: {output}")


@app.command("fit-error")
def fit_error(
    name: Annotated[str, typer.Argument(metavar="WORKLOAD", help="A built-in fitted workload, or the file of one.")],
    trace: Annotated[
        str | None, typer.Argument(metavar="[TRACE]", help="Compare with this trace; default: the errors on record.")
    ] = None,
    json: Json = False,
) -> None:
    """How far a fitted workload is from the trace it was fitted to (or from another one).

    Example: rota workload fit-error azure-conv
    """
    from rota.workload import load_trace
    from rota.workload.builtin import fitted, read_fitted
    from rota.workload.fit import fit_error as measure

    found = read_fitted(name) if Path(name).suffix == ".json" else fitted(name)
    _errors(found.errors if trace is None else measure(found, load_trace(trace)), json)


@takes(Workload)
def generate(workload: Workload, output: Output, json: Json = False) -> None:
    """Write a built-in or generated workload, or a converted trace, in the plain format (.csv, .jsonl, .parquet).

    Example: rota workload generate poisson:rate=5,prompt=1000,output=50..300,n=2000 -o trace.csv
    """
    from rota.workload.write import FORMATS, write_trace

    check_outputs(output=output)
    if Path(output).suffix.lower() not in FORMATS:
        raise InputError(f"{output}: traces are written as {', '.join(FORMATS)}; rename the file")
    trace = workload.load()
    write_trace(trace, output)
    if json:
        print_json({"path": output, "requests": len(trace)})
    else:
        typer.echo(f"{len(trace):,} requests: {output}")


for _verb in (show, fit, generate):
    app.command(_verb.__name__)(_verb)


def _errors(rows: Iterable[FitRow], json: bool) -> None:
    table = [row._asdict() for row in rows]
    if json:
        print_json(table)
    else:
        print_rows(table)
