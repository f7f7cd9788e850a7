"""`rota frontier`: what a policy's option trades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rota.cli.options import Jobs, Json, Setup, check_outputs, cores, objective, print_json, split_policies, takes

if TYPE_CHECKING:
    from rota.studies.frontier import Frontier


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
    try:
        with ProgressBars(quiet=json) as bars:
            bar = bars.task("frontier")
            found = run(
                setup.source(), setup.deployment(), sweep, replicas=setup.replicas, router=setup.router, seed=setup.seed,
                slo=objective(slo), axes=(both[0], both[1]), jobs=cores(jobs),
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
    from rich.console import Console
    from rich.table import Table

    from rota.results.metrics import describe, shown

    console = Console()
    if found.incomplete:
        console.print(f"INCOMPLETE: {found.incomplete}", style="bold red", highlight=False)
    table = Table(
        box=None, padding=(0, 1), pad_edge=False, caption="* no other setting is better on both", caption_justify="left"
    )
    columns = list(dict.fromkeys((*found.axes, "ttft_p50", "e2e_p50", "request_throughput", "output_throughput", "goodput")))
    columns = [c for c in columns if any(_known(row[c]) for row in found.rows)]
    table.add_column("setting", no_wrap=True)
    for name in columns:
        table.add_column(f"{describe(name).label}\n{describe(name).unit}", justify="right", no_wrap=True)
    for row in found.rows:
        mark = "*" if row["pareto"] else " "
        figures = [shown(name, float(str(row[name])), unit=False) for name in columns]
        table.add_row(f"{mark} {row['setting']}", *figures, style="bold green" if row["pareto"] else "")
    console.print(table)


def _known(value: object) -> bool:
    return isinstance(value, float) and value == value
