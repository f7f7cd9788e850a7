"""A trace: what arrives, as columns. Readers and generators make one; the simulator reads it and never changes it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rota.errors import InputError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Columns of one value per request.
REQUEST_COLUMNS = ("arrival", "prompt", "output", "max_new", "estimate", "priority", "tenant", "program", "tool", "after", "delay")


@dataclass(frozen=True, slots=True)
class Trace:
    """LLM requests as NumPy columns of one length ``n``.

    Parameters
    ----------
    arrival : float64 (n,)
        Arrival times in seconds, ascending among requests with ``after == -1``. For a dependent request it is ignored.
    prompt, output : int64 (n,)
        Prompt tokens, and tokens the request will in truth generate (hidden from policies). Both >= 1.
    max_new : int64 (n,) or None
        The declared limit on generated tokens, which policies may see. None: the model's limit.
    estimate : int64 (n,) or None
        Output tokens that the user expects, which offline policies may see. None: no idea.
    priority : int64 (n,) or None
        Smaller runs first (vLLM's meaning). None: all 0.
    tenant : int64 (n,) or None
        Index of the tenant.
    program : int64 (n,) or None
        Index of the program (agent session) that the request is a turn of, or -1. Turns of a program are rows in their order.
    tool : int64 (n,) or None
        Index into `tools` of what the answer calls, or -1 where the program ends with it (hidden from policies until the answer
        is complete).
    after : int64 (n,) or None
        Index of an earlier row whose completion releases this one, or -1. Closed-loop clients and agent turns are chains.
    delay : float64 (n,) or None
        Seconds between that completion and this arrival (think time, tool time).
    hash_ids : int64 (h,) or None
        Content identities of consecutive runs of `hash_block` tokens: request i owns ``hash_ids[hash_start[i]:hash_start[i+1]]``,
        covering its prompt from the first token (the last may be partial) and, where known, its output. Equal leading ids
        mean equal leading tokens, hence KV cache that can be shared.
    hash_start : int64 (n+1,) or None
    hash_block : int
        Tokens per hash id.
    tools : tuple of str
        Names of the tools.
    name, source : str
        What this is and where it came from, for reports.

    Raises
    ------
    InputError
        If columns differ in length or hold values that make no sense; the message names the column and the row.
    """

    arrival: Floats
    prompt: Ints
    output: Ints
    max_new: Ints | None = None
    estimate: Ints | None = None
    priority: Ints | None = None
    tenant: Ints | None = None
    program: Ints | None = None
    tool: Ints | None = None
    after: Ints | None = None
    delay: Floats | None = None
    hash_ids: Ints | None = None
    hash_start: Ints | None = None
    hash_block: int = 0
    tools: tuple[str, ...] = ()
    name: str = "trace"
    source: str = ""
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.arrival)
        if n == 0:
            raise InputError(f"{self.name}: the trace is empty; give at least one request")
        for column in REQUEST_COLUMNS:
            values = getattr(self, column)
            if values is not None and len(values) != n:
                raise InputError(f"{self.name}: column {column} has {len(values)} rows, expected {n}")
        self._check(~np.isfinite(self.arrival), "arrival", "is not a finite number")
        self._check(self.arrival < 0, "arrival", "is negative")
        self._check(self.prompt < 1, "prompt", "is below 1 token")
        self._check(self.output < 1, "output", "is below 1 token")
        if self.max_new is not None:
            self._check(self.max_new < self.output, "max_new", "is smaller than the output length")
        if self.estimate is not None:
            self._check(self.estimate < 1, "estimate", "is below 1 token")
        if self.program is not None:
            self._check(self.program < -1, "program", "is below -1 (no program)")
        if self.tool is not None:
            self._check((self.tool < -1) | (self.tool >= len(self.tools)), "tool", f"is not -1 or an index into {len(self.tools)} tools")
        if self.after is not None:
            rows = np.arange(n)
            self._check((self.after >= rows) | (self.after < -1), "after", "must name an earlier row or be -1")
            if self.delay is None:
                raise InputError(f"{self.name}: column after needs column delay")
            self._check(~(self.delay >= 0), "delay", "is negative or not a number")
        free = self.arrival if self.after is None else self.arrival[self.after < 0]
        if np.any(np.diff(free) < 0):
            row = int(np.argmax(np.diff(free) < 0)) + 1
            raise InputError(f"{self.name}: arrivals are not sorted (row {row}); sort the trace by arrival time")
        if self.hash_ids is not None and (self.hash_start is None or len(self.hash_start) != n + 1 or self.hash_block < 1):
            raise InputError(f"{self.name}: hash_ids needs hash_start with {n + 1} entries and a positive hash_block")

    def _check(self, wrong: NDArray[np.bool_], column: str, what: str) -> None:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(f"{self.name}: {column} of row {row} {what} ({getattr(self, column)[row]})")

    def __len__(self) -> int:
        return len(self.arrival)

    def with_columns(self, **changes: object) -> Trace:
        """A copy with some columns replaced (and validated again)."""
        return replace(self, **changes)  # type: ignore[arg-type]
