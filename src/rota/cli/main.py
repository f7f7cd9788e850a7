"""The `rota` command: its verbs, and how errors reach a person (one line on stderr; exit 2, or 130 after Ctrl-C)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from rota import __version__
from rota.cli import (
    bench,
    calibrate,
    capacity,
    catalog,
    compare,
    compose,
    demo,
    dispatch,
    examine,
    frontier,
    make_model,
    policies,
    ramp,
    reproduce,
    serve,
    simulate,
    solve,
    streams,
    workload,
)
from rota.cli.output import set_invocation
from rota.errors import RotaError

USAGE, INTERRUPTED = 2, 130

app = typer.Typer(
    name="rota",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Every LLM-serving batching policy on your trace, side by side.\n\n"
    "Example: [bold]rota compare azure-conv --model llama-3-8b --device a100-80g --policy sarathi,vllm-v1[/bold]",
)
# click's own base of usage errors, by way of a name that typer exports in every version
_ClickError: Any = typer.BadParameter.__mro__[2]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rota {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


for _verb in (
    demo, compare, simulate, capacity, frontier, ramp, compose, streams, solve, dispatch, examine, policies, calibrate, make_model, serve,
    bench, reproduce,
):  # fmt: skip
    _verb.register(app)
for _group in (workload, catalog):
    app.add_typer(_group.app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit status and never shows a traceback for what a user can cause."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    set_invocation(given)
    try:
        result = app(given, prog_name="rota", standalone_mode=False)
        sys.stdout.flush()
        if result == INTERRUPTED:  # typer's own answer to Ctrl-C, which says nothing
            return _fail("interrupted", INTERRUPTED)
        return result if isinstance(result, int) else 0
    except _ClickError as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "rota"
        return _fail(f"{error.format_message().rstrip('.')} (see {where} --help)", USAGE)
    except RotaError as error:
        return _fail(str(error), USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # the reader (head, less) has gone; keep the interpreter from complaining when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory; use a --limit on the trace, or fewer --jobs", USAGE)


def _fail(message: str, status: int) -> int:
    text = " ".join(message.split())
    sys.stderr.write(f"rota: {text}\n")
    return status


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())
