"""Where dispatch rules and shop simulators meet: at each event a rule sees the shop as it is and says what starts now, or that it waits.

A rule sees the past and what is announced: expected durations of jobs that have arrived, which machines are down now. It does not see how
long work will really take, how long a repair lasts, or jobs to come. Jobs that block each other in a ring change places by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rota.contracts.shop import Problem


class Start(NamedTuple):
    """Start this task now, in this mode; the rule is asked again at the same instant."""

    task: str
    mode: int = 0


class Order(NamedTuple):
    """Start these one after the other, passing over what has become impossible; nothing else starts before the next event."""

    starts: tuple[Start, ...]


class WaitUntilNextEvent(NamedTuple):
    """Start nothing more before the next event; `at` asks for a call at that time even if nothing happens."""

    at: int | None = None


Decision = Start | Order | WaitUntilNextEvent


class Startable(NamedTuple):
    """A task that can start now in this mode.

    Attributes
    ----------
    task, mode, job : str, int, str
        A task without a job is its own.
    work : int
        Expected ticks.
    since : int
        When the task came to wait: the end of its last predecessor, or its job's arrival.
    """

    task: str
    mode: int
    job: str
    work: int
    since: int


class ResourceState(NamedTuple):
    """Units that are free, the tasks that hold some, whether it is up, and when the first holder that still works is expected to end."""

    free: int
    holders: tuple[str, ...]
    up: bool
    expected_end: int | None


class JobState(NamedTuple):
    """Expected work (fastest modes) and number of its tasks that have not started, its due date, since when it waits (None: it works), and
    whether it is inside: it has started and is not done."""

    remaining_work: int
    remaining_tasks: int
    due_date: int | None
    waiting_since: int | None
    inside: bool


class Committed(NamedTuple):
    """A task that has started; `end` is when it ended or, where `done` is false, when it is expected to."""

    mode: int
    start: int
    end: int
    done: bool


class View(Protocol):
    """The shop at one instant; valid during the call only."""

    @property
    def now(self) -> int: ...

    @property
    def next_event(self) -> int | None:
        """When the next work is expected to end; None if nothing runs."""

    @property
    def startable(self) -> Sequence[Startable]:
        """In the order of the problem's tasks; never empty."""

    @property
    def resources(self) -> Mapping[str, ResourceState]: ...

    @property
    def jobs(self) -> Mapping[str, JobState]:
        """Jobs that have arrived."""

    @property
    def committed(self) -> Mapping[str, Committed]:
        """By task."""

    @property
    def known(self) -> Problem:
        """The problem as announced: only jobs that have arrived, expected durations. The same object until another job arrives."""


@runtime_checkable
class DispatchRule(Protocol):
    """Decides at every instant at which something can start."""

    @property
    def name(self) -> str: ...

    def choose(self, view: View) -> Decision: ...


@runtime_checkable
class NumberedRule(DispatchRule, Protocol):
    """A rule that always starts the operation with the smallest number, which does not change, and waits only where it lets no more jobs in;
    it can run compiled.

    Ties go to the operation that the problem names first.
    """

    @property
    def by_arrival(self) -> bool:
        """Whether the time since which an operation waits is added to its number."""

    @property
    def most_inside(self) -> int:
        """Jobs that may be inside at once; 0: any number."""

    def numbers(self, duration: NDArray[np.int64], job: NDArray[np.int64], due: NDArray[np.float64]) -> NDArray[np.float64]:
        """The numbers, shape (operations,), of operations given job by job: expected ticks, index of the job, due date (inf: none)."""
