"""The classical rules online: whatever can start, the waiting operation with the smallest number starts.

The numbers are those of `priorities`, of what is expected, not of what will really happen; EDD (earliest due date) and RANDOM join them.
Nothing waits on purpose, but that a rule may be told how many jobs to have inside at once (constant work in process, CONWIP).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rota.contracts.dispatch import DispatchRule, JobState, Start, Startable, View, WaitUntilNextEvent
from rota.errors import InputError
from rota.policies.dispatch.etf import Etf
from rota.policies.dispatch.list_scheduling import WAYS, ListScheduling
from rota.policies.dispatch.priorities import priorities
from rota.policies.dispatch.sequencing import Floats, Ints

_NUMBER: dict[str, Callable[[Startable, JobState], float]] = {
    "FIFO": lambda one, job: one.since,
    "SPT": lambda one, job: one.work,
    "LPT": lambda one, job: -one.work,
    "MWKR": lambda one, job: -job.remaining_work,
    "LWKR": lambda one, job: job.remaining_work,
    "MOR": lambda one, job: -job.remaining_tasks,
    "LOR": lambda one, job: job.remaining_tasks,
    "EDD": lambda one, job: np.inf if job.due_date is None else job.due_date,
}


def admitted(view: View, most_inside: int) -> Sequence[Startable]:
    """What can start with no more than that many jobs inside; 0: any number."""
    jobs = view.jobs
    if not most_inside or sum(job.inside for job in jobs.values()) < most_inside:
        return view.startable
    return [one for one in view.startable if jobs[one.job].inside]


@dataclass(frozen=True, slots=True)
class Rule:
    """One of the rules with numbers; ties go to the task that the problem names first, then to its fastest mode."""

    name: str
    most_inside: int = 0

    @property
    def by_arrival(self) -> bool:
        """FIFO counts from when an operation came to wait."""
        return self.name == "FIFO"

    def choose(self, view: View) -> Start | WaitUntilNextEvent:
        """The startable task with the smallest number."""
        number, jobs, startable = _NUMBER[self.name], view.jobs, admitted(view, self.most_inside)
        if not startable:
            return WaitUntilNextEvent()
        best = min(startable, key=lambda one: number(one, jobs[one.job]))
        fastest = min((one for one in startable if one.task == best.task), key=lambda one: one.work)
        return Start(fastest.task, fastest.mode)

    def numbers(self, duration: Ints, job: Ints, due: NDArray[np.float64]) -> Floats:
        """The numbers of all operations at once."""
        return due if self.name == "EDD" else priorities(self.name, duration, job)


@dataclass(slots=True)
class Random:
    """Starts any of those that can start."""

    seed: int = 0
    name: str = "RANDOM"
    most_inside: int = 0
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def choose(self, view: View) -> Start | WaitUntilNextEvent:
        """One of them, each as likely."""
        startable = admitted(view, self.most_inside)
        if not startable:
            return WaitUntilNextEvent()
        one = startable[int(self._rng.integers(len(startable)))]
        return Start(one.task, one.mode)


def rule_names() -> list[str]:
    """Rules for any shop."""
    return [*_NUMBER, "RANDOM"]


def graph_rule_names() -> list[str]:
    """Rules for task graphs, whose tasks hold one processor each."""
    return [*WAYS, "ETF"]


def make_rule(name: str, seed: int = 0, most_inside: int = 0) -> DispatchRule:
    """A rule by name, in any case, perhaps with a limit on the jobs inside.

    Raises
    ------
    InputError
        If there is none.
    """
    known = name.upper()
    if known == "RANDOM":
        return Random(seed, most_inside=most_inside)
    if known == "ETF":
        return Etf(most_inside=most_inside)
    if known in WAYS:
        return ListScheduling(known, most_inside)
    if known not in _NUMBER:
        raise InputError(f"unknown dispatch rule {name!r}; choose from {', '.join([*rule_names(), *graph_rule_names()])}")
    return Rule(known, most_inside)
