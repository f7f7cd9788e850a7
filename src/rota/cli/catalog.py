"""`rota catalog`: models, accelerators, links and hosts that are known, and where each fact is from."""

from __future__ import annotations

from typing import Annotated

import typer

from rota.cli.options import Json
from rota.cli.output import print_json, print_rows

app = typer.Typer(
    name="catalog",
    no_args_is_help=True,
    help="Models, devices, links and hosts that are known, with sources.\n\nExample: rota catalog devices",
)
Sources = Annotated[bool, typer.Option("--sources", help="Say where the facts of each entry come from.")]


@app.command()
def models(sources: Sources = False, json: Json = False) -> None:
    """List the models: size, shape, and what a token of KV cache takes.

    Example: rota catalog models
    """
    _list("models", sources, json)


@app.command()
def devices(sources: Sources = False, json: Json = False) -> None:
    """List the accelerators: memory, rates, power and price.

    Example: rota catalog devices --sources
    """
    _list("devices", sources, json)


@app.command()
def links(sources: Sources = False, json: Json = False) -> None:
    """List the links between accelerators.

    Example: rota catalog links
    """
    _list("links", sources, json)


@app.command()
def hosts(sources: Sources = False, json: Json = False) -> None:
    """List the hosts: memory behind an accelerator, its bandwidth, and the link between.

    Example: rota catalog hosts
    """
    _list("hosts", sources, json)


def _list(kind: str, sources: bool, json: bool) -> None:
    from rota.catalog import describe

    rows = describe(kind)
    if json:
        print_json(rows)
    elif sources:
        for row in rows:
            also = f" (also {row['aliases']})" if row.get("aliases") else ""
            typer.echo(f"{row['name']}{also}\n    {row['source']}")
    else:
        print_rows([{key: value for key, value in row.items() if key not in ("source", "aliases")} for row in rows])
