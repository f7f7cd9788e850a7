"""`rota capacity`: the load that each policy carries within an objective."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rota.cli.options import Jobs, Json, Policies, Ray, Setup, objective, split_policies, takes, workers
from rota.cli.output import check_outputs, print_json
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.studies.capacity import CapacityResult


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("capacity")(takes(Setup)(capacity))


def capacity(
    setup: Setup,
    slo: Annotated[
        str,
        typer.Option(
            "--slo", metavar="TEXT", help='Objective: "p99 tbt=0.1, p50 queueing=2" (seconds), or "ttft=2,tbt=0.1,attain=90%".'
        ),
    ],
    policy: Policies = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="K", help="Replications, for 5-95% bands; 1 searches once.")] = 1,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="SHARE", help="Stop when the bracket is this narrow.")
    ] = 0.025,
    export: Annotated[
        str | None, typer.Option("--export", metavar="FILE", help="Write every rate tried (.parquet, .csv, .json).")
    ] = None,
    json: Json = False,
    jobs: Jobs = None,
    ray: Ray = None,
) -> None:
    """The highest request rate at which each policy still meets an objective, by bisection.

    Example: rota capacity azure-conv --model llama-3-8b --device a100-80g --slo "p99 tbt=0.1, p50 queueing=2" --limit 2000
    """
    setup.check()
    check_outputs(export=export)
    if setup.scale is not None:
        raise InputError("--scale has no meaning here, capacity searches the rate; use --rate for the first rate to try")
    if export:
        from rota.results.frame import check_format

        check_format(export)
    target = objective(slo)
    assert target is not None
    names = split_policies(policy)
    pool = workers(jobs, ray)

    from rota.report.progress import ProgressBars
    from rota.studies.capacity import capacity as search
    from rota.studies.replicate import Interrupted

    deployment = setup.deployment()
    trace = setup.source(seeds)
    try:
        with ProgressBars(quiet=json) as bars:
            bar = bars.task(f"capacity of {len(names)} policies")
            found = search(
                trace, deployment, names, target, replicas=setup.replicas, router=setup.router, seeds=seeds, seed=setup.seed,
                start=setup.rate, tolerance=tolerance, jobs=pool, progress=lambda done, total, label: bar(done, total),
            )  # fmt: skip
    except Interrupted as stop:
        if stop.partial is not None:
            _show(stop.partial, json)
        raise
    _show(found, json)
    if export:
        from rota.results.frame import write_frame

        write_frame(found.trail_frame(), export)


def _show(found: CapacityResult, json: bool) -> None:
    if json:
        print_json({
            "slo": str(found.slo), "incomplete": found.incomplete,
            "policies": [
                {"policy": row.policy, "rate": row.rate, "band": row.band, "fails_at": row.fails_at, "broken_by": row.broken_by,
                 "trail": [{"rate": p.rate, "met": p.met, **p.figures} for p in row.trail]}
                for row in found.rows
            ],
        })  # fmt: skip
        return
    from rich.console import Console
    from rich.table import Table

    from rota.results.metrics import number

    console = Console()
    if found.incomplete:
        console.print(f"INCOMPLETE: {found.incomplete}", style="bold red", highlight=False)
    table = Table(title=f"Highest rate that keeps {found.slo}", box=None, padding=(0, 1), pad_edge=False, title_justify="left")
    banded = any(row.band.n > 1 for row in found.rows)
    for name in ("policy", "req/s", *(["5-95%"] if banded else []), "vs best", "first broken", "simulations"):
        table.add_column(name, justify="left" if name in ("policy", "first broken") else "right", no_wrap=True)
    best = max((row.rate for row in found.rows), default=0.0)
    for row in found.rows:
        band = [f"{number(row.band.low)}–{number(row.band.high)}"] if banded else []
        share = "-" if best in (0.0, float("inf")) else f"{row.rate / best:.0%}"
        style = "bold green" if row.rate == best > 0 else ""
        table.add_row(row.policy, number(row.rate), *band, share, row.broken_by or "-", str(len(row.trail)), style=style)
    console.print(table)
    if any(row.rate == float("inf") for row in found.rows):
        console.print("inf: holds even if all requests come at once; give more requests or a stricter objective", highlight=False)
    if any(row.rate == 0 for row in found.rows):
        console.print(
            "0: fails even with the requests far apart; one alone takes longer than the objective allows", highlight=False
        )
