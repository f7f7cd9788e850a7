"""`rota compose`: which combination of decisions wins, and what each is worth."""

from __future__ import annotations

from typing import Annotated

import typer

from rota.cli.options import Jobs, Json, Setup, cores, objective
from rota.cli.output import check_outputs, invocation, print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("compose")(compose)


def compose(
    traces: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TRACE]...", help="Trace files, built-in workloads or generators; default: all built-in workloads."),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="A model of rota catalog models, or a config.json.")] = "llama-3.1-8b",
    device: Annotated[str, typer.Option("--device", "-d", help="An accelerator of rota catalog devices.")] = "a100-40g",
    tensor_parallel_size: Annotated[int, typer.Option("--tensor-parallel-size", "-tp", metavar="N", help="Devices that share each layer.")] = 1,
    max_model_len: Annotated[int | None, typer.Option("--max-model-len", metavar="N", help="Longest prompt + output.")] = None,
    load: Annotated[float, typer.Option("--load", metavar="SHARE", help="Arrivals, as a share of what the engine can carry.")] = 0.8,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Requests of each workload.")] = 1500,
    slo: Annotated[str | None, typer.Option("--slo", metavar="TEXT", help='Objective, per request; default: "ttft=5,tbt=0.3".')] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="K", help="Replications, with other seeds and cost errors.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write the heat maps as a page.")] = None,
    json: Json = False,
    jobs: Jobs = None,
) -> None:
    """Run all combinations of batching, order, admission and retention, and say which pays.

    Example: rota compose azure-conv mooncake-conv --model llama-3.1-8b --device a100-40g --html compose.html
    """
    from rota.errors import InputError
    from rota.report.progress import ProgressBars
    from rota.studies.composition import composition
    from rota.workload import builtin_names

    if seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {seeds}")
    check_outputs(html=html)
    names = traces or builtin_names()
    if len(set(names)) < len(names):
        raise InputError("a workload is given twice; keep one")
    setups = {
        name: Setup(trace=name, limit=limit, seed=seed, model=model, device=device, tensor_parallel_size=tensor_parallel_size,
                    max_model_len=max_model_len)
        for name in names
    }  # fmt: skip
    deployment = setups[names[0]].deployment()
    with ProgressBars(quiet=json) as bars:
        shown = {name: bars.task(name) for name in names}
        found = composition(
            {name: setup.source(seeds) for name, setup in setups.items()}, deployment, load=load, seeds=seeds, seed=seed, slo=objective(slo),
            jobs=cores(jobs), progress=lambda done, total, name: shown[name](done, total),
        )  # fmt: skip
    if json:
        print_json({
            name: {"rate": one.rate, "load": one.load, "slo": str(one.comparison.slo), "best": [c.policy for c in one.best],
                   "effects": one.effects(), "rows": one.rows()}
            for name, one in found.items()
        })  # fmt: skip
    else:
        from rota.report.composition import print_composition

        print_composition(found)
    if html:
        from pathlib import Path

        from rota.report.composition import write_page

        write_page(html, found, invocation())
        if not json:
            typer.echo(f"Report: {Path(html).resolve()}")
