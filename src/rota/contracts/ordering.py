"""Where rules that order jobs meet a job shop that keeps, of every operation, the earliest time at which it can still start.

Once per instant a rule says in which order jobs start what they can start now, and whether the shop then waits. Waiting is for everybody:
nothing starts before the next event. Without it only non-delay schedules come out.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class OrderingView(NamedTuple):
    """A job shop at one instant; arrays are read-only and valid during the call only. Operations are numbered job by job.

    Attributes
    ----------
    now : int
        The earliest start of any next operation.
    next_event : int
        The second earliest, other than `now`; -1 if there is none, and then the shop cannot wait.
    legal : bool array (jobs + 1,)
        Jobs whose next operation can start now; at the end, whether the shop can wait.
    following : array (jobs,)
        Number of each job's next operation; that of the first one of the next job if it is done.
    since : array (jobs,)
        When the next operation came to wait: the end of the one before, or the release of the job.
    first : array (jobs + 1,)
        Operations of job j are first[j] to first[j + 1].
    machine, duration : array (operations,)
    start : array (operations,)
        When it started, or the earliest that it can.
    """

    now: int
    next_event: int
    legal: NDArray[np.bool_]
    following: Ints
    since: Ints
    first: Ints
    machine: Ints
    duration: Ints
    start: Ints


@runtime_checkable
class OrderingRule(Protocol):
    """Orders what is legal."""

    @property
    def name(self) -> str: ...

    def order(self, view: OrderingView) -> Ints:
        """Jobs that start their next operation now, one after the other; the number of jobs stands for waiting.

        Only legal ones, each at most once, and at least one. What an earlier one of the list has made impossible is passed over. The rule
        is asked again at this instant if something can still start once the list is through.
        """
