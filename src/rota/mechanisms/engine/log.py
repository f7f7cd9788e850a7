"""What an engine has been through, as data: arrivals, plans, steps, ends. Enough to ask another policy, or the same one again.

Entries are in order. No token is in a log, only block identities, which tell equal prefixes from different ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rota.contracts.serving import Pin, StepPlan, Work
from rota.errors import InputError


class Arrived(NamedTuple):
    """A request has joined the queue (`time` is when the engine noticed, `arrival` when it came)."""

    time: float
    sid: int
    arrival: float
    n_prompt: int
    max_new: int
    priority: int
    tenant: int
    program: int


class Planned(NamedTuple):
    """The policy was asked, and this is its plan."""

    time: float
    plan: StepPlan


class Stepped(NamedTuple):
    """A step under the last plan: what it took, and what a cost model has to be told to say the same.

    Attributes
    ----------
    start, time : float
        Begin and end.
    decodes, context : int
        Sequences that took one token, and the sum of their contexts, that token included.
    chunks : tuple of (int, int)
        Prompt chunks as (tokens cached before, new tokens).
    layers : tuple of int
        Half-open layer range of the chunks; (0, 0) without any.
    emitted : int
        Chunks that ended with a token.
    copied : int
        KV blocks that went to host memory or came back before the step; the time is in the step's.
    """

    start: float
    time: float
    decodes: int
    context: int
    chunks: tuple[tuple[int, int], ...]
    layers: tuple[int, int]
    emitted: int
    copied: int = 0


class Cancelled(NamedTuple):
    """A client has hung up."""

    time: float
    sid: int


class Called(NamedTuple):
    """The answer of a request that has ended calls a tool."""

    time: float
    sid: int
    tool: int


class Ended(NamedTuple):
    """A request is over: known tokens, why, and the identities of its computed blocks."""

    time: float
    sid: int
    n_known: int
    reason: str
    keys: tuple[int, ...]


Entry = Arrived | Planned | Stepped | Cancelled | Called | Ended
_KINDS: dict[str, type[Entry]] = {kind.__name__.lower(): kind for kind in (Arrived, Planned, Stepped, Cancelled, Called, Ended)}


class Log(Protocol):
    """Where an engine puts its entries: a list, or a `LogFile`."""

    def append(self, entry: Entry, /) -> None: ...


class LogFile:
    """A log that goes to a file at once, one JSON array a line: the kind of entry, then its fields.

    Raises
    ------
    InputError
        If the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: cannot write a log there ({error.strerror}); choose another file") from None

    def append(self, entry: Entry, /) -> None:
        """Write an entry."""
        self._file.write(json.dumps([type(entry).__name__.lower(), *entry]) + "\n")

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def write_log(entries: Iterable[Entry], path: Path) -> None:
    """A whole log as a file (`LogFile`)."""
    with LogFile(path) as file:
        for entry in entries:
            file.append(entry)


def read_log(path: Path) -> Iterator[Entry]:
    """The entries that `write_log` wrote.

    Raises
    ------
    InputError
        If it cannot be read, or for a line that is none; the message names it. The half of a last line is left out: a log may be that of
        an engine that was killed.
    """
    try:
        file = path.open(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an engine's event log (rota serve --step-log)") from None
    with file:
        for number, line in enumerate(file, 1):
            try:
                kind, *fields = json.loads(line)
                entry = _entry(kind, fields)
            except (ValueError, TypeError, KeyError):
                if number > 1 and not line.endswith("\n"):
                    return
                raise InputError(f"{path}: line {number} is not an entry of an engine's event log") from None
            yield entry


def _entry(kind: str, fields: list[Any]) -> Entry:
    if kind == "planned":
        time, plan = fields
        work, decode, evict, reject, pause, padded, repeat, wake, headroom, wake_at, pins, unpin, *swap = plan  # (none swapped in older logs)
        items = tuple(Work(sid, n, reserve, tuple(layers) if layers else None) for sid, n, reserve, layers in work)
        return Planned(time, StepPlan(
            items, decode, tuple(evict), tuple(reject), tuple(pause), padded, repeat, wake, headroom, wake_at,
            tuple(Pin(*pin) for pin in pins), tuple(unpin), tuple(swap[0]) if swap else (),
        ))  # fmt: skip
    if kind == "stepped":
        start, end, decodes, context, chunks, (lo, hi), emitted, *copied = fields
        return Stepped(start, end, decodes, context, tuple((past, new) for past, new in chunks), (lo, hi), emitted, *copied)
    if kind == "ended":
        time, sid, n_known, reason, keys = fields
        return Ended(time, sid, n_known, reason, tuple(keys))
    return _KINDS[kind](*fields)
