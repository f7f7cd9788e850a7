"""`rota ramp`: does a policy come back when the load falls again?"""

from __future__ import annotations

from typing import Annotated

import typer

from rota.cli.options import Jobs, Json, Policies, Ray, Setup, split_policies, takes, workers
from rota.cli.output import Figure, print_json, print_rows
from rota.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("ramp")(takes(Setup)(ramp))


def ramp(
    setup: Setup,
    rates: Annotated[str, typer.Option("--rates", metavar="LIST", help="Requests (or programs) per second, by commas, such as 1,2,3.")],
    policy: Policies = None,
    json: Json = False,
    jobs: Jobs = None,
    ray: Ray = None,
) -> None:
    """Raise the load in steps and lower it again in one run, and compare both ways at each rate.

    Example: rota ramp swe-agents -m llama-3.1-8b -d a100-80g --max-model-len 65536 --rates 0.06,0.08,0.1 -p vllm-v1,continuum
    """
    setup.check()
    if setup.rate is not None or setup.scale is not None:
        raise InputError("--rates sets the rates; leave out --rate and --scale")
    if setup.replicas != 1:
        raise InputError("rota ramp runs one engine; leave out --replicas")
    try:
        steps = [float(text) for text in rates.split(",")]
    except ValueError:
        raise InputError(f"--rates takes numbers by commas, such as 1,2,3, not {rates!r}") from None

    from rota.report.progress import ProgressBars
    from rota.studies.ramp import load_ramp, stable_rate

    names = split_policies(policy)
    pool = workers(jobs, ray)
    with ProgressBars(quiet=json) as bars:
        bar = bars.task("ramp")
        found = load_ramp(
            setup.load(), setup.deployment(), names, steps, jobs=pool, progress=lambda done, total, label: bar(done, total)
        )
    stable = {name: stable_rate([step for step in found if step.policy == name]) for name in names}
    if json:
        print_json({"steps": [step._asdict() | {"recovered": step.recovered} for step in found], "stable": stable})
        return
    print_rows([
        {"policy": step.policy, "rate": Figure(f"{step.rate:g}"), "rising (s)": Figure(f"{step.rising:.3g}"),
         "falling (s)": Figure(f"{step.falling:.3g}"), "": "" if step.recovered else "not recovered"}
        for step in found
    ])  # fmt: skip
    typer.echo("Mean time of what began at each step: programs to their end, or else requests.")
    for name, rate in stable.items():
        typer.echo(f"{name}: {'no rate is' if rate != rate else f'up to {rate:g}/s'} carried both ways")
