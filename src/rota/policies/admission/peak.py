"""The most memory that a batch will ever hold, and admission by it: a request joins if, by predicted output lengths, it will always suffice.

Every sequence takes a token per step until it ends, so use rises until an end and falls there: the most is held just before one. With the
sequences sorted by the tokens they have left, longest first, the i-th is the end of those that i outlive or equal:
``M* = max_i (i left_(i) + held_(1) + ... + held_(i))`` [LightLLM's router; Past-Future Scheduler, ASPLOS 2025].
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rota.contracts.serving import (
    DECODE,
    H_BLOCKS,
    H_COMPUTED,
    H_KNOWN,
    H_MAX_NEW,
    H_PHASE,
    H_PROMPT,
    H_SID,
    HELD_COLUMNS,
    WAITING,
    EngineView,
    Limits,
    SeqView,
)  # fmt: skip
from rota.jit import njit

Ints = NDArray[np.int64]


def peak(held: Ints, left: Ints) -> Ints:
    """Most tokens held at any one time until all have ended.

    Parameters
    ----------
    held, left : int64 (..., n)
        Tokens that each sequence holds now, and steps until it ends, each of which adds a token.

    Returns
    -------
    int64 (...,)
        0 where there is no sequence.
    """
    order = np.argsort(-left, axis=-1)
    left = np.take_along_axis(left, order, -1)
    together = np.cumsum(np.take_along_axis(held, order, -1), -1)
    return np.asarray((together + left * np.arange(1, left.shape[-1] + 1)).max(-1, initial=0))


class Forecast:
    """Admission by the peak of memory under predicted output lengths. A subclass predicts them; several at once are several futures.

    Tokens are counted with a block's rounding on top, prompts with the steps that their chunks will take, so that with true lengths
    nothing is ever evicted. Cached prefixes that sequences share count for each of them. Whoever finds the engine empty joins.

    Parameters
    ----------
    scale : float
        Share of the capacity that the peak must stay below; above 1 is overcommitment.
    """

    spare = 0
    learns = True
    again = math.inf

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def outputs(self, sids: Ints, generated: Ints, max_new: Ints) -> Ints:
        """Predicted output lengths of requests with `generated` tokens so far: int64 (futures, n)."""
        raise NotImplementedError

    def demand(self, held: Ints, left: Ints) -> int:
        """Memory that must be there, in tokens, in the worst future."""
        return worst_peak(held, left)

    def start(self, limits: Limits) -> None:
        """A new engine: forget everything."""
        self._limits = limits
        self._row = np.zeros((1, HELD_COLUMNS), np.int64)

    def begin(self, view: EngineView) -> None:
        """Take stock of who runs."""
        table = view.held
        size = self._limits.block_size
        pinned = max(0, self._limits.blocks - view.free_blocks - int(table[:, H_BLOCKS].sum()))
        self._room = self.scale * self._limits.blocks * size - pinned * size
        self._prompt = 0
        self._chunk = max(1, self._limits.max_step_tokens - len(table))
        self._held, self._left, self._prompt = self._ahead(table)

    def admits(self, seq: SeqView, free: int) -> bool:
        """Whether the most that this and all others will hold fits. True: it has joined."""
        row = self._row[0]
        row[H_SID], row[H_PROMPT], row[H_KNOWN], row[H_MAX_NEW], row[H_PHASE] = seq.sid, seq.n_prompt, seq.n_known, seq.max_new, WAITING
        held, left, prompt = self._ahead(self._row)
        held, left = np.append(self._held, held), joined(self._left, left)
        if len(self._held) and self.demand(held, left) >= self._room:
            return False
        self._held, self._left, self._prompt = held, left, prompt
        return True

    def finished(self, seq: SeqView) -> None:
        """Nothing to learn."""

    def _ahead(self, table: Ints) -> tuple[Ints, Ints, int]:
        """Tokens held, int64 (n,), steps left, int64 (futures, n), and prompt tokens queued with those of `table`."""
        held, waits, prompt = stock(table, self._prompt, self._chunk, self._limits.block_size - 1)
        generated = table[:, H_KNOWN] - table[:, H_PROMPT]
        return held, ahead(self.outputs(table[:, H_SID], generated, table[:, H_MAX_NEW]), generated, waits), prompt


@njit(cache=True)
def stock(table: Ints, queued: int, chunk: int, slack: int) -> tuple[Ints, Ints, int]:
    """Tokens that each sequence holds, steps until its prompt is computed behind `queued` tokens of others, and what is queued then."""
    n = len(table)
    held, waits = np.empty(n, np.int64), np.zeros(n, np.int64)
    for i in range(n):
        held[i] = table[i, H_KNOWN] + slack
        if table[i, H_PHASE] != DECODE:
            queued += table[i, H_KNOWN] - table[i, H_COMPUTED]
            waits[i] = (queued + chunk - 1) // chunk - 1
            held[i] += 1  # where prompts do not run beside decodes, it gets its first token before they move on
    return held, waits, queued


@njit(cache=True)
def ahead(outputs: Ints, generated: Ints, waits: Ints) -> Ints:
    """Steps left, by future."""
    left = np.empty_like(outputs)
    for k in range(outputs.shape[0]):
        for i in range(outputs.shape[1]):
            left[k, i] = max(outputs[k, i] - generated[i] - 1, 0) + waits[i]
    return left


@njit(cache=True)
def joined(left: Ints, more: Ints) -> Ints:
    """One more column."""
    futures, n = left.shape
    out = np.empty((futures, n + 1), np.int64)
    out[:, :n] = left
    out[:, n] = more[:, 0]
    return out


@njit(cache=True)
def worst_peak(held: Ints, left: Ints) -> int:
    """`peak` of sequences that hold the same in all futures, int64 (n,), in the worst of them: `left` is int64 (futures, n)."""
    worst = 0
    for k in range(left.shape[0]):
        order = np.argsort(-left[k])
        together = 0
        for i in range(len(order)):
            together += held[order[i]]
            worst = max(worst, together + left[k, order[i]] * (i + 1))
    return worst
