"""Seconds of a step from its contents, in NumPy over `StepTables`: for policies that plan by cost, and to check the simulator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rota.cost.tables import TABLE, StepTables
from rota.errors import InputError

Floats = NDArray[np.float64]

#: Chunks are multiples of this many tokens (Sarathi's rule: whole tiles of the matrix products).
CHUNK = 128


@dataclass(frozen=True, slots=True)
class CostModel:
    """Step times of one deployment.

    Parameters
    ----------
    tables : StepTables
    """

    tables: StepTables

    def step_seconds(
        self, decodes: int = 0, context: int = 0, prefill: Sequence[tuple[int, int]] = (), emitted: int = 0
    ) -> float:
        """Seconds from the start of a step to its end, alone on the deployment; all pipeline stages, without noise.

        Parameters
        ----------
        decodes : int
            Sequences that take one token.
        context : int
            Sum of their contexts, the token being computed included.
        prefill : sequence of (int, int)
            Prompt chunks as (tokens cached before, new tokens).
        emitted : int
            Chunks that are the last of their prompt, and so emit a token.
        """
        t = self.tables
        tokens = decodes + sum(n for _, n in prefill)
        if tokens == 0:
            return 0.0
        layer = float(lookup(t.layer, tokens)) + self.decode_attention(decodes, context) + self.prefill_attention(prefill)
        sends = (t.stages - 1) * (t.send + t.send_per_token * tokens)
        device = t.n_layers * layer + float(lookup(t.head, decodes + emitted)) + sends
        return max(device, t.launch) + t.cpu + t.cpu_per_seq * (decodes + len(prefill))

    def prefill_seconds(self, n: ArrayLike, past: ArrayLike = 0) -> Floats:
        """Seconds of a prompt's chunk of `n` tokens over `past` cached ones, alone in its step and with its first token."""
        news, pasts = np.broadcast_arrays(np.asarray(n, dtype=np.int64), np.asarray(past, dtype=np.int64))
        seconds = [self.step_seconds(prefill=((int(p), int(m)),), emitted=1) for p, m in zip(pasts.flat, news.flat, strict=True)]
        return np.array(seconds).reshape(news.shape)

    def prefill_fit(self, longest: int, chunk: int) -> tuple[float, float, float]:
        """(a, b, c) such that a prompt of n tokens, alone and in chunks, takes about a + b n + c n^2 seconds.

        Least squares of the relative error at 1k, 2k, 4k, ... tokens up to `longest`, as an engine would measure them at its start.
        """
        lengths = [1024 << i for i in range(32) if 1024 << i <= longest]
        if len(lengths) < 3:
            lengths = sorted({max(1, longest // 4), max(1, longest // 2), longest})
        seconds = np.array([self._chunked(n, chunk) for n in lengths])
        n = np.array(lengths, np.float64)
        terms = np.stack([np.ones_like(n), n, n * n], axis=1) / seconds[:, None]
        a, b, c = np.linalg.lstsq(terms, np.ones_like(n))[0]
        return float(a), float(b), float(c)

    def _chunked(self, n: int, chunk: int) -> float:
        """Seconds of a prompt in chunks."""
        starts = range(0, n, chunk)
        return sum(self.step_seconds(prefill=((past, min(chunk, n - past)),), emitted=past + chunk >= n) for past in starts)

    def chunk_for_tbt(self, target: float, decodes: int = 32, context: int = 0, past: int = 0, limit: int = 16384) -> int:
        """The largest token budget whose hybrid step stays within a TBT target, in tokens: a multiple of 128.

        The step holds `decodes` sequences and a prompt chunk that fills the budget up.

        Parameters
        ----------
        target : float
            Seconds between tokens.
        decodes, context : int
            Sequences in decode, and the sum of their contexts (default: 1,024 tokens each).
        past : int
            Tokens of the chunk's prompt that are cached before it.
        limit : int
            Largest budget to consider.

        Raises
        ------
        InputError
            If not even 128 tokens meet the target.
        """
        reads = context or 1024 * decodes
        best = 0
        low, high = 1, limit // CHUNK
        while low <= high:
            middle = (low + high) // 2
            fresh = middle * CHUNK - decodes
            seconds = self.step_seconds(decodes, reads, ((past, fresh),) if fresh > 0 else (), emitted=1 if fresh > 0 else 0)
            if seconds <= target:
                best, low = middle * CHUNK, middle + 1
            else:
                high = middle - 1
        if best == 0:
            least = self.step_seconds(decodes, reads, ((past, max(1, CHUNK - decodes)),), emitted=1)
            raise InputError(f"no chunk meets a TBT of {target * 1e3:g} ms: {CHUNK} tokens take {least * 1e3:.1f} ms; allow more")
        return best

    def decode_attention(self, decodes: int, context: int, shared: int = 0) -> float:
        """Seconds of one layer's decode attention; `shared` tokens of the context are read once for several sequences."""
        t = self.tables
        if decodes == 0:
            return 0.0
        if t.kind == TABLE:
            column = -(-((context - shared) // decodes) // t.kv_scale)
            rows, columns = t.decode_table.shape
            seconds = t.decode_table[min(decodes, rows) - 1, min(column, columns - 1)]
            return float(seconds) * (t.batch_factor if decodes > 1 else 1.0)
        read = t.decode_byte_s * (context - shared)
        return t.decode_floor + (max(read, t.prefill_flop_s * context) if shared else read)

    def prefill_attention(self, prefill: Sequence[tuple[int, int]]) -> float:
        """Seconds of one layer's prefill attention over chunks (cached, new)."""
        t = self.tables
        if not prefill:
            return 0.0
        past, new = np.array(prefill, dtype=np.float64).T
        if t.kind == TABLE:
            return self._tabled(past, new)
        area = float((new * past + new * (new + 1) / 2).sum())
        moved = t.prefill_byte_s * float((past + new).sum()) + t.query_byte_s * float(new.sum())
        return t.prefill_floor + math.hypot(t.prefill_flop_s * area, moved)

    def _tabled(self, past: Floats, new: Floats) -> float:
        t = self.tables
        rows, columns = t.prefill_table.shape
        column = min(int(np.ceil(past / t.kv_scale).sum()), columns - 1)
        n = max(1, round(math.sqrt(float((new**2).sum()))))
        if n <= rows:
            seconds = float(t.prefill_table[n - 1, column])
        else:
            seconds = float(t.prefill_long[min(n, t.prefill_long.size) - 1])
            seconds += float(t.prefill_table[rows - 1, column] - t.prefill_table[rows - 1, 0]) * n / rows
        return seconds * (t.batch_factor if len(new) > 1 else 1.0)


def lookup(table: Floats, n: ArrayLike) -> Floats:
    """``table[n]``, with the last slope going on beyond its end."""
    at = np.asarray(n, dtype=np.int64)
    last = table.size - 1
    slope = table[last] - table[last - 1]
    return np.asarray(np.where(at <= last, table[np.minimum(at, last)], table[last] + (at - last) * slope))
