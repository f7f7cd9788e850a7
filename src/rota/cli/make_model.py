"""`rota make-model`: a small model directory from nothing, for `rota serve` and for measurements."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from rota.cli.options import Json
from rota.cli.output import print_json
from rota.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

INTERRUPTED = 130
NEEDED = ("torch", "safetensors", "tokenizers")
_RANDOM, _TRAINED = "Random weights", "Trained"
EVERY = 15.0  # seconds between lines where standard error is no terminal


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("make-model")(make_model)


def make_model(
    out: Annotated[str, typer.Argument(metavar="DIRECTORY", help="Where to write it; must not exist.")],
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape", rich_help_panel=_RANDOM, metavar="MODEL",
            help="Random weights of this shape: a model of rota catalog models, or llama-125m. Default: a trained model.",
        ),
    ] = None,
    layers: Annotated[int | None, typer.Option("--layers", rich_help_panel=_RANDOM, metavar="N", help="Other number of layers.")] = None,
    hidden: Annotated[
        int | None, typer.Option("--hidden", rich_help_panel=_RANDOM, metavar="N", help="Other width; all else in proportion.")
    ] = None,
    vocab: Annotated[int | None, typer.Option("--vocab", rich_help_panel=_RANDOM, metavar="N", help="Other vocabulary size.")] = None,
    experts: Annotated[
        int | None, typer.Option("--experts", rich_help_panel=_RANDOM, metavar="N", help="Other number of experts per layer.")
    ] = None,
    max_len: Annotated[
        int | None, typer.Option("--max-model-len", rich_help_panel=_RANDOM, metavar="N", help="Other longest prompt + output.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", rich_help_panel=_RANDOM, help="bfloat16 (default), float16 or float32.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", rich_help_panel=_TRAINED, metavar="N", help="Training steps; fewer are worse and sooner.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the weights and of the order of training texts.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model directory that is there.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Write a model directory: config.json, safetensors, tokenizer and chat template. Nothing is downloaded.

    Without --shape, a language model of about a million parameters is trained on Python's own documentation; Ctrl-C ends the
    training and keeps the model as it is by then.

    Examples: rota make-model docs-lm    rota make-model tiny --shape mixtral-8x7b --layers 4 --hidden 256
    """
    random = {"--layers": layers, "--hidden": hidden, "--vocab": vocab, "--experts": experts, "--max-model-len": max_len, "--dtype": dtype}
    given = [option for option, value in random.items() if value is not None]
    if shape is None and given:
        raise InputError(f"{given[0]} changes a shape of random weights; add --shape, such as --shape llama-3-8b")
    if shape is not None and steps is not None:
        raise InputError("--steps trains a model and --shape gives one random weights; leave one out")
    if not 0 <= seed < 1 << 31:
        raise InputError(f"--seed must be from 0 to {(1 << 31) - 1}, not {seed}")
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        raise InputError(f"this needs {', '.join(missing)}; install the extra: pip install 'rota[engine]'")
    from rota.models.directory import check_target

    target = check_target(out, overwrite=overwrite)
    if shape is None:
        _trained(target, steps, seed, json)
        return

    from rota.models.architectures import family, named_shape, parameters, scaled
    from rota.models.directory import random_model
    from rota.report.progress import ProgressBars

    made = scaled(named_shape(shape), layers=layers, hidden=hidden, vocab=vocab, experts=experts, max_len=max_len)
    kind = family(made)
    with ProgressBars(quiet=json) as bars:
        random_model(target, made, seed=seed, dtype=dtype or "bfloat16", progress=bars.task("weights"))
    about = {"path": str(target), "architecture": kind.architecture, "parameters": parameters(made), "seed": seed}
    if json:
        print_json(about)
    else:
        typer.echo(f"{target}: {kind.architecture}, {about['parameters']:,} random parameters\nServe it: rota serve {target}")


def _trained(target: Path, steps: int | None, seed: int, json: bool) -> None:
    from rota.models.architectures import parameters
    from rota.models.train import SHAPE, Recipe, train, write

    recipe = Recipe(seed=seed) if steps is None else Recipe(steps=steps, seed=seed)
    if not json:
        typer.echo(f"Training {parameters(SHAPE):,} parameters on Python's documentation; Ctrl-C keeps the model so far", err=True)
    with Watch(quiet=json) as watch:
        found = train(SHAPE, recipe, watch.step)
    write(target, SHAPE, recipe, found)
    if json:
        print_json({
            "path": str(target), "architecture": "LlamaForCausalLM", "parameters": parameters(SHAPE), "seed": seed, "steps": found.steps,
            "complete": found.complete, "loss": found.loss, "held_out_loss": found.held_out, "held_out_bits_per_byte": found.bits_per_byte,
        })  # fmt: skip
    else:
        early = "" if found.complete else f", interrupted after {found.steps:,} of {recipe.steps:,} steps"
        typer.echo(
            f"{target}: {parameters(SHAPE):,} parameters{early}; on documents it has not seen {found.held_out:.2f} nats per token, "
            f"{found.bits_per_byte:.2f} bits per byte\nServe it: rota serve {target}"
        )
    if not found.complete:
        raise typer.Exit(INTERRUPTED)


class Watch:
    """Steps, loss and time left: a bar on a terminal, else a line now and then."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._quiet, self._start, self._last = quiet, time.monotonic(), time.monotonic()
        columns = (TextColumn("loss {task.fields[loss]}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True) if sys.stderr.isatty() and not quiet else None
        self._task = self._bar.add_task("", loss="-", total=None) if self._bar else None

    def step(self, done: int, total: int, loss: float) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, loss=f"{loss:.2f}")
        elif not self._quiet and (done == 1 or time.monotonic() - self._last > EVERY):
            self._last = time.monotonic()
            left = (self._last - self._start) / done * (total - done)
            typer.echo(f"step {done:,} of {total:,}, loss {loss:.2f}, {left / 60:.1f} min left", err=True)

    def __enter__(self) -> Watch:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


