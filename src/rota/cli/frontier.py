"""`rota frontier`: what a policy's option trades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rota.cli.options import Jobs, Json, Ray, Setup, objective, split_policies, takes, workers
from rota.cli.output import Figure, check_outputs, print_json, print_rows

if TYPE_CHECKING:
    from rota.studies.frontier import Frontier

#: Figures shown beside the two axes.
_ALSO = ("ttft_p50", "output_throughput", "goodput")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("frontier")(takes(Setup)(frontier))


def frontier(
    setup: Setup,
    sweep: Annotated[
        list[str],
        typer.Option(
            "--sweep",
            "-s",
            metavar="TEXT",
            help="A policy, one option of it a range: 128..4096 doubles, 256..1024+256 steps, 128/512/2048 lists. Repeatable.",
        ),
    ],
    slo: Annotated[str | None, typer.Option("--slo", metavar="TEXT", help="Objective that goodput is counted under.")] = None,
    axes: Annotated[str, typer.Option("--axes", metavar="A,B", help="The two figures to weigh.")] = "ttft_p99,tbt_p99",
    export: Annotated[
        str | None, typer.Option("--export", metavar="FILE", help="Write the table (.parquet, .csv, .json).")
    ] = None,
    json: Json = False,
    jobs: Jobs = None,
    ray: Ray = None,
) -> None:
    """Sweep an option of a policy and mark the settings that no other beats on both axes.

    Example: rota frontier azure-conv -m llama-3-8b -d a100-80g --limit 2000 --sweep sarathi:max_num_batched_tokens=128..4096
    """
    setup.check()
    check_outputs(export=export)
    if export:
        from rota.results.frame import check_format

        check_format(export)

    from rota.errors import InputError
    from rota.report.progress import ProgressBars
    from rota.studies.frontier import frontier as run
    from rota.studies.frontier import settings
    from rota.studies.replicate import Interrupted

    split_policies([point.policy for text in sweep for point in settings(text)])
    both = tuple(axis.strip() for axis in axes.split(","))
    if len(both) != 2:
        raise InputError(f"--axes takes two figures, such as ttft_p99,tbt_p99, not {axes!r}")
    pool = workers(jobs, ray)
    try:
        with ProgressBars(quiet=json) as bars:
            bar = bars.task("frontier")
            found = run(
                setup.source(1), setup.deployment(), sweep, replicas=setup.replicas, router=setup.router, seed=setup.seed,
                slo=objective(slo), axes=(both[0], both[1]), jobs=pool,
                progress=lambda done, total, label: bar(done, total),
            )  # fmt: skip
    except Interrupted as stop:
        if stop.partial is not None:
            _show(stop.partial, json)
        raise
    _show(found, json)
    if export:
        from rota.results.frame import write_frame

        write_frame(found.frame(), export)


def _show(found: Frontier, json: bool) -> None:
    if json:
        print_json({"axes": found.axes, "incomplete": found.incomplete, "rows": found.rows})
        return
    from rota.results.metrics import describe, shown

    if found.incomplete:
        typer.echo(f"INCOMPLETE: {found.incomplete}")
    columns = [c for c in dict.fromkeys((*found.axes, *_ALSO)) if any(_known(row[c]) for row in found.rows)]
    print_rows(
        [
            {"setting": f"{'*' if row['pareto'] else ' '} {row['setting']}"}
            | {f"{describe(c).label} {describe(c).unit}": Figure(shown(c, float(str(row[c])), unit=False)) for c in columns}
            for row in found.rows
        ]
    )
    typer.echo("* no other setting is better on both axes")


def _known(value: object) -> bool:
    return isinstance(value, float) and value == value
