"""`rota calibrate`: cost constants from measured kernel times."""

from __future__ import annotations

from typing import Annotated

import typer

from rota.cli.options import Json, check_outputs, print_json, print_rows


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("calibrate")(calibrate)


def calibrate(
    profiles: Annotated[
        list[str], typer.Argument(metavar="PROFILE...", help="CSV (also .gz) or Parquet files of measured kernel times.")
    ],
    device: Annotated[str, typer.Option("--device", "-d", metavar="DEVICE", help="The accelerator they were measured on.")],
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the constants (.toml).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the split into 70% fitted and 30% held out.")] = 0,
    json: Json = False,
) -> None:
    """Fit the cost model to a profile, and say how far off it is on the rows that it did not see.

    Use the result with --calibration. Example: rota calibrate mlp.csv attention.csv --device a100-80g -o mine.toml
    """
    check_outputs(output=output)

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
