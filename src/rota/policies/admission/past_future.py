"""Past-Future: the lengths of recent outputs foretell those of the present ones, and these whether memory will suffice.

A few futures are drawn at a time. In each every running request has an output length drawn from the recent ones *that are longer than what it
has generated already*; a request joins if the worst future's peak of memory leaves a reserve.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rota.contracts.serving import H_KNOWN, H_MAX_NEW, H_PROMPT, H_SID, EngineView, Limits, SeqView
from rota.errors import InputError
from rota.jit import njit
from rota.policies.admission.peak import Forecast, Ints
from rota.policies.batching.policy import share, whole

#: Futures are fewer than asked for where the batch is so large that their draws average out.
DRAWS = 200


class PastFuture(Forecast):
    """Admission by sampled futures.

    A request's random numbers are its own for life, so a refused one does not get new luck with every attempt. The published code, which tries
    again every few decode steps, draws anew each time; `redraw` does that too.

    Parameters
    ----------
    reserve : float
        Share of memory that the worst future must leave free.
    window : int
        Output lengths remembered.
    futures : int
        Futures drawn, at most.
    initial : int or None
        Half the window starts out as outputs of so many tokens. None stands for half the engine's longest request.
    redraw : float or None
        Try a refused request again after so many seconds, and use new random numbers at every attempt. None: neither.
    seed : int
    """

    def __init__(
        self, *, reserve: float = 0.05, window: int = 200, futures: int = 5, initial: int | None = None, redraw: float | None = None, seed: int = 0
    ) -> None:
        super().__init__(1.0 - share("reserve", reserve))
        self.reserve = reserve
        self.window = whole("window", window, 2)
        self.futures = whole("futures", futures)
        self.initial = None if initial is None else whole("initial", initial)
        if redraw is not None and (isinstance(redraw, bool) or not isinstance(redraw, int | float) or not 0 < redraw < math.inf):
            raise InputError(f"redraw must be a positive number of seconds, or None, not {redraw!r}")
        self.again = math.inf if redraw is None else float(redraw)
        self.seed = whole("seed", seed, 0)

    def start(self, limits: Limits) -> None:
        """A new engine, and a pessimistic past."""
        super().start(limits)
        self._past = np.full(self.window, self.initial or max(1, limits.max_len // 2), np.int64)  # a ring, filled up to _count
        self._count = self.window // 2
        self._next = self._count % self.window
        self._sorted = self._past[: self._count]
        self._attempt = 0

    def begin(self, view: EngineView) -> None:
        """Draw the futures of all that runs."""
        self._futures = min(self.futures, DRAWS // max(1, view.n_running) + 1)
        self._attempt += self.again < math.inf
        self._sorted = np.sort(self._past[: self._count])
        super().begin(view)

    def finished(self, seq: SeqView) -> None:
        """Remember how long it became."""
        self._past[self._next] = seq.n_known - seq.n_prompt
        self._next = (self._next + 1) % self.window
        self._count = min(self._count + 1, self.window)

    def outputs(self, table: Ints) -> Ints:
        """Fresh requests: any of the recent lengths. Others: by inverse CDF between what they have, all that are longer, and the limit."""
        lengths: Ints = draw(table, self._sorted, self.seed + self._attempt, self._futures)
        return lengths


@njit(cache=True)
def draw(table: Ints, past: Ints, seed: int, futures: int) -> Ints:
    """Output lengths, int64 (futures, n), of a table's rows, by their own random numbers and the recent lengths in ascending order."""
    n = len(table)
    luck = uniform(seed, table[:, H_SID], futures)
    out = np.empty((futures, n), np.int64)
    last = len(past)
    for i in range(n):
        generated, limit = table[i, H_KNOWN] - table[i, H_PROMPT], table[i, H_MAX_NEW]
        first = np.searchsorted(past, generated, side="right")
        steps = last - first + (1 if limit > past[-1] else 0)
        for k in range(futures):
            if generated == 0:
                length = past[int(luck[k, i] * last)]
            else:
                rank = luck[k, i] * steps
                below = int(rank)
                at = first + below - 1
                low = generated if below == 0 else past[min(at, last - 1)]
                high = past[at + 1] if at + 1 < last else limit
                length = int(low + (rank - below) * (high - low))
            out[k, i] = min(length, limit)
    return out


@njit(cache=True)
def uniform(seed: int, sids: Ints, n: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), float64 (n, len(sids)): the same ones for the same request and seed, whenever asked [SplitMix64]."""
    out = np.empty((n, len(sids)))
    base = _mixed(np.uint64(seed))
    for k in range(n):
        row = _mixed(base + np.uint64(k))
        for i in range(len(sids)):
            out[k, i] = (_mixed(row + np.uint64(sids[i])) >> np.uint64(11)) * 2.0**-53
    return out


@njit(cache=True)
def _mixed(state: np.uint64) -> np.uint64:
    state = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
