"""How much memory those who run are expected to fill together at the worst moment, asked anew with everybody who joins."""

from __future__ import annotations

import numpy as np

from rota.contracts.offline import Ints
from rota.contracts.serving import H_KNOWN, H_SID
from rota.jit import njit


class ExpectedUse:
    """Sequences in the order in which they are expected to end, the last one first. What a group shares is counted elsewhere.

    Parameters
    ----------
    shared, whole : int64 (n,)
        Tokens that each request of the job shares with its group; prompt and expected output tokens.
    block_size : int
    table : int64 (m, HELD_COLUMNS)
        Who runs, as `EngineView.held`.
    most : int
        Most sequences that there will be.
    """

    def __init__(self, shared: Ints, whole: Ints, block_size: int, table: Ints, most: int) -> None:
        self._job, self._size, self._n = (shared, whole), block_size, len(table)
        sids, known = table[:, H_SID], table[:, H_KNOWN]
        left = np.maximum(whole[sids] - known, 1)  # more is always expected of those that run
        order = np.argsort(-left)
        self._ends = np.empty((2, most), np.int64)
        self._ends[0, : self._n] = left[order]
        self._ends[1, : self._n] = (known - shared[sids] + block_size - 1)[order]

    def join(self, sid: int, known: int) -> int:
        """One more sequence. The peak of all in blocks, a block's rounding for each included."""
        shared, whole = self._job
        peak: int = insert(self._ends, self._n, max(int(whole[sid]) - known, 1), known - int(shared[sid]) + self._size - 1)
        self._n += 1
        return peak // self._size


@njit(cache=True)
def insert(ends: Ints, n: int, left: int, held: int) -> int:
    """Put a sequence into its place among `n`, whose steps left are `ends[0]`, falling, and tokens held `ends[1]`. The peak of all."""
    at = n
    while at > 0 and ends[0, at - 1] < left:
        ends[0, at], ends[1, at] = ends[0, at - 1], ends[1, at - 1]
        at -= 1
    ends[0, at], ends[1, at] = left, held
    together = peak = 0
    for i in range(n + 1):
        together += ends[1, i]
        peak = max(peak, together + ends[0, i] * (i + 1))
    return peak
