"""Rules that order what can start at an instant: the classical ones, a schedule that is followed, and lots.

The classical rules never wait. `MTWR` is most work remaining as the program of Tassel et al. (2023) computes it: within a window of five
operations of the job, of which the first is the one that started last.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rota.contracts.ordering import OrderingRule, OrderingView
from rota.errors import InputError
from rota.policies.dispatch.priorities import PRIORITIES, priorities
from rota.policies.dispatch.sequencing import Floats, Ints

WINDOW = 5


def windowed_work(duration: Ints, job: Ints) -> Floats:
    """MTWR's numbers, shape (operations,): minus the work from the operation before, for five operations or to the end of the job."""
    work = np.zeros(len(duration))
    for k in range(-1, WINDOW - 1):
        at = np.arange(len(duration)) + k
        inside = (at >= 0) & (at < len(duration))
        inside[inside] = job[at[inside]] == job[inside]
        work[inside] += duration[at[inside]]
    return -work


@dataclass(slots=True)
class ByNumber:
    """Starts jobs by ascending number of their next operation, ties by the number of the job; never waits.

    Parameters
    ----------
    name : str
    number : float array (operations,) or None
        None: those of the rule of that name, see `ordering_names`.
    """

    name: str
    number: Floats | None = None
    _of: Ints | None = field(default=None, init=False, repr=False)
    _given: Floats | None = field(default=None, init=False, repr=False)

    def order(self, view: OrderingView) -> Ints:
        """All jobs that can start."""
        jobs = np.flatnonzero(view.legal[:-1])
        number = self._numbers(view)[view.following[jobs]]
        if self.name == "FIFO":
            number = number + view.since[jobs]
        order: Ints = jobs[np.argsort(number, kind="stable")]
        return order

    def _numbers(self, view: OrderingView) -> Floats:
        """Worked out once per shop."""
        if self.number is not None:
            return self.number
        if self._given is None or self._of is not view.duration:
            job = np.repeat(np.arange(len(view.first) - 1), np.diff(view.first))
            self._of = view.duration
            self._given = windowed_work(view.duration, job) if self.name == "MTWR" else priorities(self.name, view.duration, job)
        return self._given


@dataclass(frozen=True, slots=True)
class Replay:
    """Starts every operation when a schedule does, and waits otherwise; at an instant those that take no time go first.

    The schedule must be such that nothing in it could start earlier, or come from this environment.

    Parameters
    ----------
    start : array (operations,)
    """

    start: Ints
    name: str = "replay"

    def order(self, view: OrderingView) -> Ints:
        """The jobs whose time has come, then waiting."""
        jobs = np.flatnonzero(view.legal[:-1])
        due = jobs[self.start[view.following[jobs]] <= view.now]
        due = due[np.argsort(view.duration[view.following[due]], kind="stable")]
        order: Ints = np.append(due, len(view.following)) if view.legal[-1] else due
        return order


@dataclass(slots=True)
class Lots:
    """Any order of what is legal, waiting included: reaches every schedule in which nothing could start earlier."""

    seed: int = 0
    name: str = "LOTS"
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def order(self, view: OrderingView) -> Ints:
        """Each order as likely."""
        order: Ints = self._rng.permutation(np.flatnonzero(view.legal))
        return order


def ordering_names() -> list[str]:
    """All names that `make_ordering` knows."""
    return [*PRIORITIES, "MTWR", "LOTS"]


def make_ordering(name: str, seed: int = 0) -> OrderingRule:
    """A rule by name, in any case.

    Raises
    ------
    InputError
        If there is none.
    """
    known = name.upper()
    if known not in ordering_names():
        raise InputError(f"unknown ordering rule {name!r}; choose from {', '.join(ordering_names())}")
    return Lots(seed) if known == "LOTS" else ByNumber(known)
