"""`rota demo`: the first thing to run; every policy on a chat workload near the point where they part."""

from __future__ import annotations

from typing import Annotated

import typer

from rota.cli.compare import show, study, write_report
from rota.cli.options import Jobs, Json, Setup, cores, split_policies
from rota.cli.output import check_outputs

#: Conversations as a public trace has them, at a rate at which some policies keep up and some do not.
DEMO = Setup(trace="azure-conv", rate=6.0, limit=5000, model="llama-3.1-8b", device="a100-80g", max_model_len=16384)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("demo")(demo)


def demo(
    html: Annotated[str, typer.Option("--html", metavar="FILE", help="Where the report goes.")] = "rota-demo.html",
    seeds: Annotated[int, typer.Option("--seeds", metavar="K", help="Replications, for 5-95% bands.")] = 5,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Compare every policy on 5,000 chat requests, Llama-3.1-8B on one A100-80G, and write a report.

    Example: rota demo
    """
    check_outputs(html=html)
    found = study(DEMO, split_policies(None), seeds=seeds, slo=None, warmup=0.0, sweep=None, jobs=cores(jobs), quiet=json)
    show(found, json)
    write_report(html, found, quiet=json)
