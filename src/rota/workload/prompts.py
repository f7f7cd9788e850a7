"""Reads the prompts of an offline job: JSON lines, each with a prompt as text or token ids and how long its answer may be.

A row holds ``prompt`` (text, or a list of ids), ``token_ids`` or ``prompt_token_ids``; or, as in OpenAI's batch files, ``body`` with
``prompt`` or ``messages``. ``output`` is the answer's true length where it is known (hidden from policies), ``max_tokens`` its
limit, ``estimate`` what the user expects; ``custom_id`` is ignored. Without ``output`` an answer is taken to reach its limit.

Text becomes tokens by a tokenizer's file (package ``tokenizers``) or, without one, by a stand-in: 4 bytes of UTF-8 are a token,
which is the usual length of English ones. Prompts that begin alike then still have tokens that begin alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.errors import InputError
from rota.workload.generators import HASH_BLOCK
from rota.workload.jsonl import json_rows
from rota.workload.prefix import ragged
from rota.workload.readers import BOM, MAX_TOKENS, file_bytes
from rota.workload.trace import Ints, Trace

#: Bytes of text that count as a token where there is no tokenizer.
TOKEN_BYTES = 4
STAND_IN = f"{TOKEN_BYTES} bytes of text taken for a token; give a tokenizer.json for true ones"
_IDS = ("prompt_token_ids", "token_ids")
_LIMITS = ("max_tokens", "max_completion_tokens", "max_new")
Encode = Callable[[str], Ints]


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a job.

    Parameters
    ----------
    tokens : int64 (t,)
        Token ids of all prompts end to end; prompt i owns ``tokens[start[i]:start[i + 1]]``.
    start : int64 (n + 1,)
    output : int64 (n,)
        True length of the answers, or their limit.
    max_new, estimate : int64 (n,) or None
        Declared limits and expected lengths; None where no row has them.
    name, source : str
    notes : dict of str to str
        How text became tokens, and what was assumed.
    """

    tokens: Ints
    start: Ints
    output: Ints
    max_new: Ints | None
    estimate: Ints | None
    name: str
    source: str
    notes: dict[str, str]

    def trace(self, hash_block: int = HASH_BLOCK) -> Trace:
        """All requests at time 0, with the identities of their prompts' runs of `hash_block` tokens."""
        ids, start = token_runs(self.tokens, self.start, hash_block)
        return Trace(
            arrival=np.zeros(len(self.output)), prompt=np.diff(self.start), output=self.output, max_new=self.max_new,
            estimate=self.estimate, hash_ids=ids, hash_start=start, hash_block=hash_block, name=self.name, source=self.source,
            notes=self.notes,
        )  # fmt: skip


class _Row(NamedTuple):
    tokens: Ints
    output: int
    limit: int
    estimate: int
    is_text: bool


def read_prompts(path: str | Path, tokenizer: str | Path | None = None) -> Prompts:
    """Read a file of prompts.

    Parameters
    ----------
    path : str or Path
        JSON lines, possibly gzipped.
    tokenizer : str or Path, optional
        A ``tokenizer.json`` as the package ``tokenizers`` reads it, for prompts given as text.

    Raises
    ------
    InputError
        If the file cannot be read, or a row has no prompt or no length of its answer (the line is named), or `tokenizers` is missing.
    """
    path = Path(path)
    encode = stand_in_tokens if tokenizer is None else _tokenizer(Path(tokenizer))
    rows = [_row(row, f"{path}:{number}", encode) for number, row in json_rows(path, file_bytes(path).removeprefix(BOM))]
    start = np.concatenate([[0], np.cumsum([len(row.tokens) for row in rows])]).astype(np.int64)
    limit, estimate = np.array([row.limit for row in rows]), np.array([row.estimate for row in rows])
    notes = {}
    if any(row.is_text for row in rows):
        notes["tokens"] = STAND_IN if tokenizer is None else f"by {tokenizer}"
    assumed = sum(row.output == 0 for row in rows)
    if assumed:
        notes["outputs"] = f"{assumed:,} of {len(rows):,} answers taken to reach their limit, for their length is not given"
    expected: Ints | None = None
    if estimate.any():
        fallback = np.where(limit > 0, limit, int(np.median(estimate[estimate > 0])))
        expected = np.where(estimate > 0, estimate, fallback)
    return Prompts(
        tokens=np.concatenate([row.tokens for row in rows]), start=start, output=np.array([row.output or row.limit for row in rows]),
        max_new=limit if limit.all() else None, estimate=expected, name=path.name.split(".")[0], source=f"prompts of {path}", notes=notes,
    )  # fmt: skip


def is_prompts(path: str | Path) -> bool:
    """Whether a file of JSON lines holds prompts rather than a trace with their lengths: by its first row."""
    path = Path(path)
    if not path.is_file() or not any(suffix in (".jsonl", ".ndjson") for suffix in path.suffixes):
        return False
    first = file_bytes(path).removeprefix(BOM).lstrip().partition(b"\n")[0]
    try:
        row = json.loads(first)
    except ValueError:
        return False
    return isinstance(row, dict) and ("body" in row or any(name in row for name in _IDS) or isinstance(row.get("prompt"), str | list))


def stand_in_tokens(text: str) -> Ints:
    """Runs of `TOKEN_BYTES` bytes of a text as numbers."""
    data = text.encode(errors="surrogatepass")
    return np.frombuffer(data + bytes(-len(data) % TOKEN_BYTES), np.uint32).astype(np.int64)


def token_runs(tokens: Ints, start: Ints, size: int) -> tuple[Ints, Ints]:
    """Identities of each prompt's consecutive runs of `size` tokens, and where each prompt's begin.

    Returns
    -------
    ids : int64 (h,)
        64-bit hashes of a run's tokens and their number, so that a last run that is not full equals no full one.
    start : int64 (n + 1,)
    """
    lengths = np.diff(start)
    _, at = ragged(lengths)
    within = at % size
    begins = np.flatnonzero(within == 0)
    counts = np.diff(np.append(begins, len(tokens)))
    sums = np.add.reduceat(_mixed(_mixed(tokens.astype(np.uint64)) + within.astype(np.uint64)), begins)
    ids = _mixed(sums + counts.astype(np.uint64)).astype(np.int64)
    return ids, np.concatenate([[0], np.cumsum(-(-lengths // size))])


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))



def _row(row: dict[str, Any], where: str, encode: Encode) -> _Row:
    body = row.get("body")
    if body is not None and not isinstance(body, dict):
        raise InputError(f"{where}: body is not an object; it must hold prompt or messages")
    row = row | (body or {})
    tokens, is_text = _tokens(row, where, encode)
    limits = [value for name in _LIMITS if (value := _count(row, name, where))]
    output, estimate = _count(row, "output", where), _count(row, "estimate", where)
    limit = limits[0] if limits else 0
    if not output and not limit:
        raise InputError(f"{where}: says nothing about the length of the answer; add max_tokens (its limit) or output")
    if limit and output > limit:
        raise InputError(f"{where}: output {output} is above max_tokens {limit}")
    return _Row(tokens, output, limit, estimate, is_text)


def _tokens(row: dict[str, Any], where: str, encode: Encode) -> tuple[Ints, bool]:
    """The prompt's token ids, and whether they were made from text."""
    given = next((row[name] for name in (*_IDS, "prompt", "messages") if row.get(name) is not None), None)
    if given is None:
        raise InputError(f"{where}: has no prompt; add prompt (text), token_ids or, in a body, messages")
    if isinstance(given, list) and given and isinstance(given[0], dict):
        given = "".join(_message(message, where) for message in given)
    if isinstance(given, str):
        tokens = encode(given)
    elif isinstance(given, list) and all(type(token) is int and 0 <= token <= MAX_TOKENS for token in given):
        tokens = np.array(given, np.int64)
    else:
        raise InputError(f"{where}: the prompt is neither text nor a list of token ids (whole numbers from 0)")
    if not len(tokens):
        raise InputError(f"{where}: the prompt is empty; leave the row out")
    return tokens, isinstance(given, str)


def _message(message: Any, where: str) -> str:
    """A chat message as text: its role, then what it says. Models' own templates differ, but as little between prompts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None  # type: ignore[arg-type]
    if not isinstance(content, str):
        raise InputError(f"{where}: a message has no text as content; only text can be read")
    return f"{message.get('role', 'user')}\n{content}\n"


def _count(row: dict[str, Any], name: str, where: str) -> int:
    """A number of tokens, or 0 where it is not there."""
    value = row.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 1 <= value <= MAX_TOKENS:
        raise InputError(f"{where}: {name} must be a whole number of tokens from 1, not {json.dumps(value)[:40]}")
    return value


def _tokenizer(path: Path) -> Encode:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError("a tokenizer's file needs the package tokenizers; pip install tokenizers, or leave the tokenizer out") from None
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the tokenizer.json of the model")
    try:
        loaded = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain exceptions
        raise InputError(f"{path}: is not a tokenizer.json ({error})") from None
    return lambda text: np.array(loaded.encode(text).ids, np.int64)
