"""From a dispatch rule to a sequence on one machine: ask the rule again whenever the machine becomes free.

A rule is `choose(now, p, d)`, which returns the index of the job to run next among those still waiting; it keeps no state. So the same rule
sequences a set of jobs offline and serves a queue online.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class SequencingRule(Protocol):
    """Which of the waiting jobs runs next.

    Parameters
    ----------
    now : int
        Time at which the machine becomes free.
    p, d : array (jobs waiting,)
        Durations and due dates of the jobs that wait.

    Returns
    -------
    int
        Index into `p` and `d`.
    """

    def __call__(self, now: int, p: Ints, d: Ints, /) -> int: ...


def sequence(rule: SequencingRule, p: Ints, d: Ints, start: int = 0) -> Ints:
    """The order, shape (jobs,), in which `rule` runs all jobs from time `start` on."""
    waiting = np.arange(len(p))
    order = np.empty(len(p), np.int64)
    now = start
    for position in range(len(p)):
        chosen = rule(now, p[waiting], d[waiting])
        job = waiting[chosen]
        order[position] = job
        waiting = np.delete(waiting, chosen)
        now += int(p[job])
    return order


def total_tardiness(order: Ints, p: Ints, d: Ints, start: int = 0) -> int:
    """Sum of max(0, completion - due date) when the jobs run in that order without idle time."""
    return int(np.maximum(0, start + np.cumsum(p[order]) - d[order]).sum())


def smallest(key: Floats | Ints, d: Ints, p: Ints) -> int:
    """Index of the smallest key; ties go to the earliest due date, then to the shorter job."""
    tied = np.flatnonzero(key == key.min())
    if len(tied) == 1:
        return int(tied[0])
    return int(tied[np.lexsort((p[tied], d[tied]))[0]])
