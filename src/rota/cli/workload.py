"""`rota workload`: what is in a trace, and how built-in workloads relate to the traces they stand for."""

from __future__ import annotations

import typer

app = typer.Typer(name="workload", no_args_is_help=True, help="Traces and built-in workloads.")


@app.command("list")
def list_() -> None:
    """List."""
