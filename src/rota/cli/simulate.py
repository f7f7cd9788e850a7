"""`rota simulate`: one policy, in detail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rota.cli.compare import Export, Slo, Warmup
from rota.cli.options import Job, Json, objective, split_policies, takes
from rota.cli.output import check_outputs, print_json, print_rows
from rota.errors import InputError

if TYPE_CHECKING:
    from rota.results.run import Run
    from rota.results.summary import Summary


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("simulate")(takes(Job)(simulate))


def simulate(
    setup: Job,
    policy: Annotated[
        str,
        typer.Option("--policy", "-p", metavar="POLICY", help="One policy, with options: sarathi:max_num_batched_tokens=256."),
    ],
    slo: Slo = None,
    warmup: Warmup = 0.0,
    timeline: Annotated[
        str | None,
        typer.Option("--timeline", metavar="FILE", help="Write every step as a trace that ui.perfetto.dev opens (.json)."),
    ] = None,
    export: Export = None,
    step_by_step: Annotated[
        bool, typer.Option("--step-by-step", help="Ask the policy before every step: the slow reference, with the same result.")
    ] = False,
    interpreted: Annotated[
        bool, typer.Option("--interpreted", help="Use the policy's Python even where it has a compiled twin.")
    ] = False,
    json: Json = False,
) -> None:
    """Simulate one policy and print everything there is to know about the run.

    Example: rota simulate azure-code --model llama-3-8b --device a100-80g --policy sarathi --limit 1000 --timeline steps.json
    """
    setup.check()
    check_outputs(timeline=timeline, export=export)
    if export:
        from rota.results.frame import check_format

        check_format(export)
    names = split_policies([policy])
    if len(names) != 1:
        raise InputError(f"--policy names {len(names)} policies; simulate runs one (rota compare runs several)")
    target = objective(slo)

    from rota.mechanisms.simulator import simulate as run_simulation
    from rota.policies.registry import parse_policy
    from rota.report.progress import ProgressBars
    from rota.results.fairness import MOST_TENANTS, tenant_rows
    from rota.results.summary import summarise

    chosen = parse_policy(names[0])
    engine = setup.deployment().engine(chosen.max_step_tokens)
    trace = setup.load()
    with ProgressBars(quiet=json) as bars:
        run = run_simulation(
            trace, chosen, engine, replicas=setup.replicas, router=setup.router, seed=setup.seed, compress=not step_by_step,
            compiled=not interpreted, log=timeline is not None, progress=bars.task(names[0]),
        )  # fmt: skip
    figures = summarise(run, target, warmup=warmup)
    if json:
        print_json(
            {
                "policy": names[0],
                "trace": run.trace,
                "deployment": run.deployment,
                "figures": figures,
                "totals": run.totals,
                "conditions": run.meta,
                "tenants": tenant_rows(run),
            }
        )
    else:
        print_run(run, figures, names[0])
        if 2 <= len(tenants := tenant_rows(run)) <= MOST_TENANTS:
            print_rows([{key: f"{value:.4g}" for key, value in row.items()} for row in tenants])
    if export:
        from rota.results.frame import requests_frame, write_frame

        write_frame(requests_frame(run), export)
    if timeline:
        from rota.report.timeline import write_timeline

        write_timeline(timeline, run)
        if not json:
            typer.echo(f"Timeline: {timeline} (open it in https://ui.perfetto.dev)")


def print_run(run: Run, figures: Summary, label: str) -> None:
    """All figures of a run, for people."""
    from rich.console import Console
    from rich.table import Table

    from rota.results.metrics import describe, shown

    console = Console()
    console.print(f"{label} on {run.trace}, {run.deployment}", style="bold", highlight=False)
    latencies = Table(box=None, padding=(0, 1), pad_edge=False)
    latencies.add_column("latency (ms)")
    stats = ("mean", "p50", "p90", "p95", "p99", "max")
    for stat in stats:
        latencies.add_column(stat, justify="right")
    for key, name in (
        ("ttft", "TTFT"),
        ("tbt", "TBT"),
        ("tpot", "TPOT"),
        ("max_tbt", "max TBT"),
        ("queueing", "queueing"),
        ("e2e", "E2E"),
    ):
        latencies.add_row(name, *(_milliseconds(figures[f"{key}_{stat}"]) for stat in stats))
    console.print(latencies)
    totals = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False)
    shown_already = {f"{key}_{stat}" for key in ("ttft", "tbt", "tpot", "max_tbt", "queueing", "e2e") for stat in stats}
    for key, value in figures.items():
        if key not in shown_already and value == value:
            totals.add_row(describe(key).label, shown(key, value))
    console.print(totals)


def _milliseconds(seconds: float) -> str:
    from rota.results.metrics import number

    return number(seconds * 1e3)
