"""A model directory as engines read it: config, weights in shards, tokenizer, chat template, generation defaults.

The directory is made under another name beside its target and renamed at the end, so it is whole or not there.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rota.catalog.shapes import ModelShape
from rota.errors import InputError
from rota.files import umask
from rota.models.architectures import hf_config, parameters, weights
from rota.models.bpe import BEGIN, END, tokenizer_config, train_tokenizer
from rota.models.corpus import python_documents

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

DTYPES = ("bfloat16", "float16", "float32")
SHARD_BYTES = 2 << 30
Progress = Callable[[int, int], None]


def check_target(path: str | Path, *, overwrite: bool = False) -> Path:
    """`path` as a `Path`, if a model directory can be made there.

    Raises
    ------
    InputError
        If it exists and may not be replaced, or its parent is missing or not writable.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; give another directory, or --overwrite to replace it")
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or (path / "config.json").is_file())):
        raise InputError(f"{path}: is no model directory, so --overwrite does not replace it; give another one")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{path}: the folder {parent} does not exist; create it or write elsewhere")
    if not os.access(parent, os.W_OK):
        raise InputError(f"{path}: cannot write in {parent}; choose a folder you may write to")
    return path


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `path` when all went well and vanishes otherwise."""
    draft = path.absolute().with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.mkdir()
    try:
        yield draft
        for file in draft.iterdir():
            file.chmod(0o666 & ~umask())
        if path.exists():
            shutil.rmtree(path)
        draft.rename(path)
    except OSError as error:
        raise InputError(f"{path}: could not be written ({error.strerror or error}); free space or write elsewhere") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def random_model(
    path: Path, shape: ModelShape, *, seed: int = 0, dtype: str = "bfloat16", shard_bytes: int = SHARD_BYTES, progress: Progress | None = None
) -> None:
    """Write a directory with random weights (normal, 0.02; norms 1) and a tokenizer trained on this Python's documentation.

    Each weight depends on its name and the seed alone, so that a model with fewer layers is the beginning of one with more.
    """
    import torch

    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
    tokenizer = train_tokenizer((document.text for document in python_documents()), shape.vocab)
    with new_directory(path) as folder:
        write_description(folder, shape, tokenizer, dtype)
        _write_shards(folder, _random_weights(shape, seed, getattr(torch, dtype)), shard_bytes, parameters(shape), progress)


def _random_weights(shape: ModelShape, seed: int, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    for name, size in weights(shape):
        if name.endswith("norm.weight"):
            yield name, torch.ones(size, dtype=dtype)
            continue
        generator = torch.Generator().manual_seed(seed << 32 | zlib.crc32(name.encode()))
        yield name, torch.empty(size).normal_(0.0, 0.02, generator=generator).to(dtype)


def write_description(folder: Path, shape: ModelShape, tokenizer: Tokenizer, dtype: str) -> None:
    """Everything but the weights."""
    begin, end = (int(tokenizer.token_to_id(token) or 0) for token in (BEGIN, END))
    _write_json(folder / "config.json", hf_config(shape, dtype, begin, end))
    _write_json(folder / "generation_config.json", {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end})
    _write_json(folder / "tokenizer_config.json", tokenizer_config(shape.max_len))
    tokenizer.save(str(folder / "tokenizer.json"))


def write_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Weights that are in memory already, as one file."""
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _write_shards(
    folder: Path, tensors: Iterator[tuple[str, torch.Tensor]], most: int, total: int, progress: Progress | None
) -> None:
    """Weights as they come, never more than one shard of them in memory."""
    from safetensors.torch import save_file

    shards: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}
    size = done = stored = 0

    def flush() -> None:
        save_file(held, folder / f"shard-{len(shards)}", metadata={"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, tensor in tensors:
        if held and size + tensor.nbytes > most:
            flush()
            size = 0
        held[name] = tensor
        size, done, stored = size + tensor.nbytes, done + tensor.numel(), stored + tensor.nbytes
        if progress is not None:
            progress(done, total)
    flush()
    if len(shards) == 1:
        (folder / "shard-0").rename(folder / "model.safetensors")
        return
    where: dict[str, str] = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"shard-{number}").rename(folder / file)
        where |= dict.fromkeys(names, file)
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": stored}, "weight_map": where})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
