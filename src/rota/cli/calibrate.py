"""`rota calibrate`: what steps cost, from an engine measured on this machine, from a served log, or from measured kernel times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rota.cli.options import Json
from rota.cli.output import check_outputs, print_json, print_rows
from rota.errors import InputError

_ENGINE = "An engine on this machine"
PROFILES = (".csv", ".gz", ".parquet")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("calibrate")(calibrate)


def calibrate(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="A model directory, to measure an engine; or CSV (also .gz) and Parquet files of measured kernel times."
        ),
    ],
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", metavar="DEVICE", help="Of an engine: cpu, cuda or auto; of kernel times: the accelerator."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the costs: .json of an engine, .toml of kernel times.")
    ] = None,
    from_log: Annotated[
        list[str] | None,
        typer.Option("--from-log", metavar="FILE", rich_help_panel=_ENGINE, help="Measure nothing: use this log of rota serve --step-log."),
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", "-p", metavar="POLICY", rich_help_panel=_ENGINE, help="Whose planning counts as bookkeeping.")
    ] = "sarathi",
    clock: Annotated[
        str, typer.Option("--clock", rich_help_panel=_ENGINE, help="wall, or cpu: without what other programs take (one thread on a CPU).")
    ] = "wall",
    threads: Annotated[int | None, typer.Option("--threads", metavar="N", rich_help_panel=_ENGINE, help="Default: one per core.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", rich_help_panel=_ENGINE, help="As rota serve takes it.")] = "auto",
    weights: Annotated[str, typer.Option("--weight-format", metavar="FORMAT", rich_help_panel=_ENGINE, help="Likewise.")] = "plain",
    kv_cache_dtype: Annotated[str, typer.Option("--kv-cache-dtype", rich_help_panel=_ENGINE, help="Likewise.")] = "auto",
    kv_cache_memory: Annotated[float, typer.Option("--kv-cache-memory", metavar="GIB", rich_help_panel=_ENGINE, help="Likewise.")] = 1.0,
    block_size: Annotated[int, typer.Option("--block-size", metavar="N", rich_help_panel=_ENGINE, help="Likewise.")] = 16,
    max_model_len: Annotated[int | None, typer.Option("--max-model-len", metavar="N", rich_help_panel=_ENGINE, help="Likewise.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", rich_help_panel=_ENGINE, help="How often every step is measured.")] = 5,
    budget: Annotated[
        float, typer.Option("--budget", metavar="SECONDS", rich_help_panel=_ENGINE, help="No new round after that; shapes how large steps get.")
    ] = 180.0,
    max_chunk: Annotated[
        int, typer.Option("--max-chunk", metavar="N", rich_help_panel=_ENGINE, help="Largest prompt chunk to measure, tokens.")
    ] = 2048,
    seed: Annotated[int, typer.Option("--seed", help="Of the split into 70% fitted and 30% held out, and of all that is random.")] = 0,
    json: Json = False,
) -> None:
    """Fit the cost model to measurements, and say how far off it is on those that it did not see.

    A model directory is loaded and measured for some minutes, for --costs; a run that was stopped goes on where it was. Kernel times give the
    constants of an accelerator, for --calibration.

    Example: rota calibrate my-model -o mine.json    Or: rota calibrate mlp.csv attention.csv --device a100-80g -o mine.toml
    """
    check_outputs(output=output)
    folder = Path(source[0])
    if len(source) == 1 and (folder.is_dir() or folder.suffix not in PROFILES):
        from rota.cli.calibrate_engine import Plan, run

        run(Plan(
            folder, from_log or [], output, device=device or "auto", policy=policy, clock=clock, threads=threads, dtype=dtype,
            weight_format=weights, kv_cache_dtype=kv_cache_dtype, kv_cache_memory=kv_cache_memory, block_size=block_size, max_model_len=max_model_len,
            rounds=rounds, budget=budget, max_chunk=max_chunk, seed=seed, json=json,
        ))  # fmt: skip
        return
    if from_log:
        raise InputError("--from-log needs one model directory, whose log it is: rota calibrate MODEL_DIR --from-log FILE")
    if device is None:
        raise InputError("no device given; add --device, such as --device a100-80g (rota catalog devices lists them)")
    _profiles(source, device, output, seed, json)


def _profiles(profiles: list[str], device: str, output: str | None, seed: int, json: bool) -> None:
    """Constants of an accelerator."""
    from rota.cost.fit import calibrate as fit

    found = fit(profiles, device, seed=seed)
    if output is not None:
        found.write(output)
    if json:
        print_json(
            {"device": found.device, "checks": found.rows(), "left_out": found.left_out, "seed": found.seed, "path": output}
        )
        return
    print_rows(found.rows())
    if found.left_out:
        typer.echo(
            f"{found.left_out:,} rows faster than the memory of {found.device} were left out: their data came from a cache"
        )
    if output is not None:
        typer.echo(f"Constants: {output} (use with --calibration {output})")
