"""Continuum's time to live: keep the KV of a turn as long as the next turn is worth waiting for, by the gaps seen of its tool.

Keeping KV for tau seconds costs tau, in units of what its blocks could do for others; if the next turn arrives by then it saves a
prefill, and the queueing that a turn without KV suffers. The best tau is found on the empirical distribution of gaps. All statistics
are sliding windows, so that memory does not grow with requests.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rota.contracts.serving import Limits, SeqView
from rota.jit import njit
from rota.policies.batching.policy import whole

#: Gaps kept per tool, programs whose turns are counted, and delays averaged.
GAPS, PROGRAMS, DELAYS = 1000, 1000, 100
#: Programs between two turns that are remembered at most; the longest away are forgotten first.
AWAY = 1 << 16


class Ttl:
    """The rule of Continuum (arXiv 2511.02230, sections 4 and 5).

    Parameters
    ----------
    cold_start : int
        Gaps of a tool, or of all tools, up to which they are too few to go by (K).
    """

    yields = "deadlock"

    def __init__(self, cold_start: int = 100) -> None:
        self.cold_start = whole("cold_start", cold_start, 0)

    def start(self, limits: Limits) -> None:
        """Forget everything."""
        self.limits = limits
        self.all_gaps = Gaps()
        self.gaps: dict[int, Gaps] = {}
        self.turns = TurnCounts()
        self.delays: deque[float] = deque(maxlen=DELAYS)
        #: By program: when its last turn ended (NaN once the next one is here), which tool it called, tokens whose KV it left.
        self.away: dict[int, tuple[float, int, int]] = {}

    def arrived(self, seq: SeqView) -> None:
        """The next turn of a program is here: its gap is one more observation."""
        ended, tool, left = self.away.get(seq.program, (math.nan, -1, 0))
        if ended == ended:
            gap = max(0.0, seq.arrival - ended)
            self.all_gaps.add(gap)
            self.gaps.setdefault(tool, Gaps()).add(gap)
            self.away[seq.program] = math.nan, tool, left

    def admitted(self, seq: SeqView, reused: int, now: float) -> None:
        """A turn leaves the queue. Only turns that lost KV count for the delay; with all of them it would go to 0."""
        _, _, left = self.away.pop(seq.program, (math.nan, -1, 0))
        size = self.limits.block_size
        if reused < min(left, seq.n_known - 1) // size * size:
            self.delays.append(now - seq.arrival)

    def finished(self, seq: SeqView) -> float:
        """The best time to live."""
        if seq.tool < 0:
            self.turns.add(seq.turn + 1)
            return 0.0
        self.away[seq.program] = seq.finished_at, seq.tool, seq.n_known - 1
        if len(self.away) > AWAY:
            del self.away[next(iter(self.away))]
        delay = sum(self.delays) / len(self.delays) if self.delays else 0.0
        reload = self.reload_seconds(seq.n_known)
        if self.all_gaps.count <= self.cold_start:
            return default_ttl(delay + reload)
        own = self.gaps.get(seq.tool)
        known = own if own is not None and own.count > self.cold_start else self.all_gaps
        return best_ttl(known.ordered, delay * self.turns.memory() + reload)

    def reload_seconds(self, tokens: int) -> float:
        """What the KV of so many tokens costs once it is lost: to be copied from the host, or else computed again."""
        if self.limits.reload < math.inf:
            return self.limits.reload * tokens
        a, b, c = self.limits.prefill
        return a + b * tokens + c * tokens * tokens


class Gaps:
    """The last gaps, also in order of size; `count` goes on beyond them."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque()
        self.ordered = array("d")
        self.count = 0

    def add(self, gap: float) -> None:
        """One more; the oldest goes if there are too many."""
        if len(self.recent) == GAPS:
            del self.ordered[bisect_left(self.ordered, self.recent.popleft())]
        self.recent.append(gap)
        insort(self.ordered, gap)
        self.count += 1


class TurnCounts:
    """How much the turns that a program has done say about those it has left: Continuum's eta.

    The correlation is over all turns k of the last programs of N turns that are followed by another, between k and N - k. As k and
    N - k take the same values in a program, their means and variances agree, and three sums of whole numbers tell it exactly.
    """

    def __init__(self) -> None:
        self.recent: deque[int] = deque()
        self.sums = [0, 0, 0, 0]

    def add(self, turns: int) -> None:
        """A program has ended after so many."""
        if len(self.recent) == PROGRAMS:
            self._count(self.recent.popleft(), -1)
        self.recent.append(turns)
        self._count(turns, 1)

    def _count(self, turns: int, sign: int) -> None:
        m = turns - 1
        total, squares = m * (m + 1) // 2, m * (m + 1) * (2 * m + 1) // 6
        for i, value in enumerate((m, total, squares, turns * total - squares)):
            self.sums[i] += sign * value

    def memory(self) -> float:
        """eta: 1 if all programs have as many turns, 0 if any turn may be the last with the same probability; 1 while nothing is known."""
        n, total, squares, products = self.sums
        spread = n * squares - total * total
        return (total * total - n * products) / spread if spread else 1.0


def best_ttl(gaps: Sequence[float], value: float) -> float:
    """The tau among 0 and the gaps that maximises P(gap <= tau) value - tau; the smallest of those that do.

    Parameters
    ----------
    gaps : sequence of float
        Ascending, seconds.
    value : float
        Seconds saved if the next turn arrives in time.
    """
    return _best(np.asarray(gaps, np.float64), value)  # type: ignore[no-any-return]


@njit(cache=True)
def _best(gaps: NDArray[np.float64], value: float) -> float:
    best, most = 0.0, 0.0
    for i in range(len(gaps)):
        if gaps[i] > value:
            break  # a longer one costs more than there is to gain
        # of equal gaps the last one counts them all; the others say less than is true, and so do no harm
        found = (i + 1) / len(gaps) * value - gaps[i]
        if found > most:
            best, most = gaps[i], found
    return best


def default_ttl(value: float) -> float:
    """The best tau if gaps are exponential with a mean of one second: max (1 - exp(-tau)) value - tau."""
    return max(0.0, math.log(value)) if value > 0 else 0.0
