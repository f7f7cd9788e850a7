"""From a model directory to a front that can be served: engine, tokenizer and chat template."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from rota.contracts.serving import BatchPolicy
from rota.errors import InputError
from rota.mechanisms.engine import load_engine
from rota.mechanisms.server.chat import read_template
from rota.mechanisms.server.front import Front, Limits


def open_model(
    folder: Path, policy: BatchPolicy, *, name: str | None = None, limits: Limits | None = None, template: Path | None = None,
    threads: int | None = None, **options: Any,
) -> Front:  # fmt: skip
    """A front for a model directory.

    Parameters
    ----------
    folder : Path
    policy : BatchPolicy
    name : str, optional
        What clients call the model; by default the directory's name.
    limits : Limits, optional
    template : Path, optional
        A file with a chat template, instead of the directory's own.
    threads : int, optional
        CPU threads that compute; by default one per core.
    **options
        As `rota.mechanisms.engine.load_engine` takes them.

    Raises
    ------
    InputError, DoesNotFit, UnsupportedPolicy
        If the directory lacks something, or the engine refuses; the message says which.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such directory; give that of a Hugging Face model, or make one: rota make-model {folder}")
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder}: has no tokenizer.json, without which text cannot be served; save the model's fast tokenizer there")
    chat = read_template(folder, template)
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the package raises plain exceptions
        raise InputError(f"{folder / 'tokenizer.json'}: cannot be read ({error}); save the model's fast tokenizer again") from None
    engine = load_engine(folder, policy, tokenizer=tokenizer, threads=threads, **options)
    # Numba's and OpenMP's number of threads is set for the thread that sets it
    prepare = None if threads is None else partial(_use_threads, threads)
    return Front(engine, tokenizer, chat, name or folder.resolve().name, limits, prepare)


def _use_threads(threads: int) -> None:
    from rota.mechanisms.engine.model_runner import use_threads

    use_threads(threads)
