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
    #: Whether the peak must fit; otherwise all that each will hold at its end must fit together.
    peak = True

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def outputs(self, table: Ints) -> Ints:
        """Predicted output lengths, int64 (futures, n), of the rows of a table like `EngineView.held`."""
        raise NotImplementedError

    def start(self, limits: Limits) -> None:
        """A new engine: forget everything."""
        self._limits = limits
        self._capacity = self.scale * limits.blocks * limits.block_size
        #: Who runs and who has joined in this plan, as `EngineView.held`.
        self._table = np.zeros((limits.max_seqs + 1, HELD_COLUMNS), np.int64)

    def begin(self, view: EngineView) -> None:
        """Take stock of who runs."""
        held = view.held
        self._n = len(held)
        self._table[: self._n] = held
        self._used = self._limits.blocks - view.free_blocks
        self._chunk = max(1, self._limits.max_step_tokens - self._n)

    def admits(self, seq: SeqView, free: int) -> bool:
        """Whether the most that this and all others will hold fits. True: it has joined."""
        row = self._table[self._n]
        row[H_SID], row[H_PROMPT], row[H_KNOWN], row[H_MAX_NEW] = seq.sid, seq.n_prompt, seq.n_known, seq.max_new
        row[H_COMPUTED], row[H_BLOCKS], row[H_PHASE] = 0, 0, WAITING
        if self._n:
            table, size = self._table[: self._n + 1], self._limits.block_size
            if not fits(table, self.outputs(table), self._used, size, self._chunk, self._capacity, self.peak):
                return False
        self._n += 1
        return True

    def finished(self, seq: SeqView) -> None:
        """Nothing to learn."""


@njit(cache=True)
def fits(table: Ints, outputs: Ints, used: int, size: int, chunk: int, capacity: float, peak: bool) -> bool:
    """Whether the worst future of a table's rows stays below `capacity` tokens, less those of `used` blocks that are none of theirs."""
    held, left = stock(table, outputs, size, chunk)
    room = capacity - max(0, used - table[:, H_BLOCKS].sum()) * size
    if held.sum() + most_left(left) < room:  # all ends together, which are never less than the peak
        return True
    return peak and worst_peak(held, left) < room


@njit(cache=True)
def stock(table: Ints, outputs: Ints, size: int, chunk: int) -> tuple[Ints, Ints]:
    """Tokens that each row holds, int64 (n,), and its steps left, int64 (futures, n): prompts wait for those before them, a chunk a step."""
    held, left = np.empty(len(table), np.int64), np.empty_like(outputs)
    queued = 0
    for i in range(len(table)):
        known = table[i, H_KNOWN]
        held[i] = known + size - 1
        wait = 0
        if table[i, H_PHASE] != DECODE:
            queued += known - table[i, H_COMPUTED]
            wait = (queued + chunk - 1) // chunk - 1
            held[i] += 1  # where prompts do not run beside decodes, it gets its first token before they move on
        for k in range(len(outputs)):
            left[k, i] = max(outputs[k, i] - (known - table[i, H_PROMPT]) - 1, 0) + wait
    return held, left


@njit(cache=True)
def most_left(left: Ints) -> int:
    """Steps left of all sequences together, in the future where they are most."""
    most = 0
    for k in range(len(left)):
        most = max(most, left[k].sum())
    return most


@njit(cache=True)
def worst_peak(held: Ints, left: Ints) -> int:
    """`peak` of sequences that hold the same in all futures, int64 (n,), in the worst of them: `left` is int64 (futures, n)."""
    worst = 0
    for k in range(len(left)):
        ends = np.sort((left[k] << 32) + held)  # by steps left, which nobody has 2^31 of, and what is held goes along
        together = 0
        for i in range(1, len(ends) + 1):
            end = ends[-i]
            together += end & 0xFFFFFFFF
            worst = max(worst, together + (end >> 32) * i)
    return worst
