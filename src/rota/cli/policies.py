"""`rota policies`: what can be compared."""

from __future__ import annotations

import typer

from rota.cli.options import Json
from rota.cli.output import print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("policies")(policies)


def policies(json: Json = False) -> None:
    """List the batching policies and their options.

    Example: rota policies
    """
    from rota.policies.registry import describe

    rows = describe()
    if json:
        print_json(rows)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for row in rows:
        console.print(Text.assemble((f"{row['name']}  ", "bold"), row["title"]))
        options = ", ".join(f"{name}={value}" for name, value in row["options"].items())
        if options:
            console.print(Text(f"    options: {options}", style="dim"))
    console.print()
    console.print(Text("Write options after a colon: --policy sarathi:max_num_batched_tokens=256,vllm-v1"))
