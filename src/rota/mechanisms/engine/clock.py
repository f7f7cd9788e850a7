"""What time it is for an engine: the wall's, its own time at work, or that of a cost model, which makes it keep the simulator's hours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rota.cost import kernel
from rota.cost.tables import StepTables
from rota.mechanisms.engine.core import Row


class Clock(Protocol):
    """Time in seconds from the engine's start."""

    def now(self) -> float: ...

    def spend(self, rows: Sequence[Row], ghosts: Sequence[int], copied: Sequence[int] = ()) -> None:
        """A step of these rows, and rows of padding with these contexts, has been computed; before it, so many KV blocks, copy by copy, went
        to host memory or came back."""

    def skip_to(self, moment: float) -> bool:
        """Nothing happens until then. Whether time has passed; if not, it does so by itself."""


class WallClock:
    """Real time."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self._began

    def spend(self, rows: Sequence[Row], ghosts: Sequence[int], copied: Sequence[int] = ()) -> None:
        """Time has passed meanwhile."""

    def skip_to(self, moment: float) -> bool:
        return False


class BusyClock:
    """Time that the engine is at work; waiting for the next arrival takes none, but counts.

    Parameters
    ----------
    source : callable
        Seconds that pass while it works: `time.monotonic`, or `time.process_time`, which leaves out what other programs take of a busy
        machine (and says nothing about a GPU's work, nor about several threads').
    """

    def __init__(self, source: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._began = source()

    def now(self) -> float:
        return self._source() - self._began

    def spend(self, rows: Sequence[Row], ghosts: Sequence[int], copied: Sequence[int] = ()) -> None:
        """Time has passed meanwhile."""

    def skip_to(self, moment: float) -> bool:
        self._began -= max(0.0, moment - self.now())
        return True


class ModelClock:
    """Time as `StepTables` would have it, to the last bit that of the simulator.

    Parameters
    ----------
    tables : StepTables
        Of one pipeline stage.
    seed : int
        Of the tables' noise.
    block_size : int
        Tokens in a block, of which swapping copies whole ones.
    """

    def __init__(self, tables: StepTables, seed: int = 0, block_size: int = 16) -> None:
        self._swap_block = tables.host.kv_s * tables.n_layers * block_size
        self._tables = tables
        self._packed = kernel.pack(tables, seed)
        self._steps = 0
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def skip_to(self, moment: float) -> bool:
        self._now = max(self._now, moment)
        return True

    def spend(self, rows: Sequence[Row], ghosts: Sequence[int], copied: Sequence[int] = ()) -> None:
        t, cp = self._tables, self._packed
        contexts = [row.start + 1 for row in rows if row.decode]
        ghosts = ghosts if contexts else ()
        n = len(contexts) + len(ghosts)
        decode = kernel.decode_attention(cp, t.decode_table, n, sum(contexts) + sum(ghosts), 0)
        chunks = [row for row in rows if not row.decode]
        new = sum(row.n_tokens for row in chunks)
        seconds, span = 0.0, 0
        if chunks:
            span = chunks[0].layers[1] - chunks[0].layers[0]
            seconds = span * (kernel.lookup(t.layer, n + new) + decode + self._chunks(chunks, new))
        if span < t.n_layers:
            seconds += (t.n_layers - span) * (kernel.lookup(t.layer, n) + decode)
        head = kernel.lookup(t.head, n + sum(row.emits for row in chunks))
        device = max(seconds + head, t.launch) * kernel.noise_factor(cp, self._steps)
        moved = 0.0
        for blocks in copied:
            moved += blocks * self._swap_block
        self._now += device + t.cpu + t.cpu_per_seq * (n + len(chunks)) + moved
        self._steps += 1

    def _chunks(self, chunks: Sequence[Row], new: int) -> float:
        """Prefill attention of one layer."""
        area, context, squares, past = 0.0, 0, 0.0, 0
        scale = self._tables.kv_scale
        for row in chunks:
            area += row.n_tokens * row.start + 0.5 * row.n_tokens * (row.n_tokens + 1.0)
            context += row.start + row.n_tokens
            squares += float(row.n_tokens) * row.n_tokens
            past += (row.start + scale - 1) // scale * scale
        t = self._tables
        seconds: float = kernel.prefill_attention(
            self._packed, t.prefill_table, t.prefill_long, len(chunks), new, area, context, squares, past
        )
        return seconds
