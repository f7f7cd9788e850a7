"""One offline problem class for job, flexible and open shops, projects (RCPSP, also with time lags or modes), single machines and task graphs.

Time is a whole number of ticks and intervals are half-open: [s, e) ends before e, and an empty interval occupies nothing. There is no
separate blocking, no-wait, buffer or transport: these are said with `Use.until`, `Lag` and resources of capacity 1 (see the table in
docs/shop.md). Random breakdowns and arrivals are not part of a problem; a simulator brings them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Time = int
#: What happens to a task: it starts or it ends.
Edge = Literal["start", "end"]
#: What a problem may ask of a solver; `Problem.features` says which of these one has.
Feature = Literal[
    "modes", "cumulative", "consumable", "calendar", "breaks", "setups", "until", "no_swap", "lags", "max_lags", "mode_lags", "windows",
    "release", "deadline", "exclusive", "makespan", "total_completion", "total_flow_time", "total_tardiness", "max_lateness",
    "tardy_jobs", "total_setup", "consumption", "lexicographic",
]  # fmt: skip
#: Objective terms that look at jobs, and of these the ones that need a due date.
JOB_TERMS = ("total_completion", "total_flow_time", "total_tardiness", "max_lateness", "tardy_jobs")
DUE_TERMS = ("total_tardiness", "max_lateness", "tardy_jobs")
#: A term that counts the use of consumable r is written ``consumable:r``.
CONSUMABLE = "consumable:"
TERMS = ("makespan", *JOB_TERMS, "total_setup")


class Event(NamedTuple):
    """Start or end of a task."""

    task: str
    edge: Edge


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that tasks hold (renewable) or use up (consumable).

    Parameters
    ----------
    id : str
    capacity : int
        Units; 1 is a machine. Of a consumable, all there ever is.
    kind : {"renewable", "consumable"}
    calendar : tuple of (int, int)
        Steps (from this tick on, units), ascending; `capacity` before the first. Never more than `capacity`. Where it is 0 nobody works:
        a task that does not allow breaks may not overlap it. Whoever waits there or is suspended still holds, within `capacity`.
    setup : mapping of (family, family) to ticks, or None
        Between two consecutive holders, from the release by the one to the start of the other; ``("", f)`` before the first. Pairs not
        named need none. Capacity 1 only. Setups go on through breaks.
    """

    id: str
    capacity: int = 1
    kind: Literal["renewable", "consumable"] = "renewable"
    calendar: tuple[tuple[Time, int], ...] = ()
    setup: Mapping[tuple[str, str], int] | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """Units of a resource that a task holds from its start to its own end, or until another event.

    Blocking is ``Use(machine, until=Event(next, "start"))``; a reserved arm or stored item ends with the task that consumes it.
    """

    resource: str
    amount: int = 1
    until: Event | None = None


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of doing a task: how many ticks of work, and what it holds meanwhile. A resource is named at most once."""

    duration: int
    uses: tuple[Use, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of work without interruption, but for breaks where it allows them.

    Parameters
    ----------
    id : str
    modes : tuple of Mode
        At least one; a schedule picks one by index.
    earliest_start : int
    latest_end : int or None
        Both hard.
    family : str
        For setups.
    allow_breaks : bool
        Whether it is suspended while a renewable resource that it uses has capacity 0. It ends once `duration` ticks of work are done.
    """

    id: str
    modes: tuple[Mode, ...]
    earliest_start: Time = 0
    latest_end: Time | None = None
    family: str = ""
    allow_breaks: bool = False


@dataclass(frozen=True, slots=True)
class Lag:
    """time(b) - time(a) must be in [min, max]; None is no limit.

    Parameters
    ----------
    a, b : Event
    min, max : int or None
    by_modes : mapping of (mode of a's task, mode of b's task) to int, or None
        Added to `min`: transfer times. Pairs not named add nothing.
    """

    a: Event
    b: Event
    min: int | None = 0
    max: int | None = None
    by_modes: Mapping[tuple[int, int], int] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A group of tasks that is released, due and weighed as a whole; it is complete when its last task ends.

    `release_date` and `deadline` are hard, `due_date` is soft; `weight` counts in every term but `max_lateness`.
    """

    id: str
    tasks: tuple[str, ...]
    release_date: Time = 0
    deadline: Time | None = None
    due_date: Time | None = None
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Objective:
    """Weighted sums of terms, minimised one after the other: a later stage never costs an earlier one anything.

    Terms: ``makespan``, ``total_completion``, ``total_flow_time`` (completion less release), ``total_tardiness``, ``max_lateness``,
    ``tardy_jobs``, ``total_setup`` and ``consumable:r``.
    """

    stages: tuple[Mapping[str, int], ...]

    @staticmethod
    def of(*terms: str) -> Objective:
        """One stage per term, each with weight 1."""
        return Objective(tuple({term: 1} for term in terms))


@dataclass(frozen=True, slots=True)
class Problem:
    """What is to be scheduled. Checked whole when it is made.

    Parameters
    ----------
    tasks, resources, lags, jobs : tuples
        A task is in at most one job.
    objective : Objective or None
        None: any schedule that keeps the constraints.
    exclusive : tuple of frozenset of str
        Sets of tasks of which no two may overlap.
    swap : bool
        Whether holders may exchange resources of capacity 1 in a ring at one instant. If not, the events of an instant must have an order in
        which every machine is freed before it is taken; lags of zero are kept by that order, and events tied by lags move as one.
    name : str

    Attributes
    ----------
    horizon : int
        If there is a schedule at all, there is a best one (for terms that never gain from waiting) that ends by then.
    features : frozenset of str
        What a solver must be able to do.

    Raises
    ------
    InputError
        If something is unknown, named twice, negative or not a whole number; the message says what and where.
    InfeasibleProblem
        If no schedule can exist: a task that no resource can hold, lags and windows that contradict each other (the cycle is named).
    """

    tasks: tuple[Task, ...]
    resources: tuple[Resource, ...] = ()
    lags: tuple[Lag, ...] = ()
    jobs: tuple[Job, ...] = ()
    objective: Objective | None = field(default_factory=lambda: Objective.of("makespan"))
    exclusive: tuple[frozenset[str], ...] = ()
    swap: bool = True
    name: str = "problem"
    horizon: int = field(init=False, compare=False, default=0)
    features: frozenset[Feature] = field(init=False, compare=False, default=frozenset())

    def __post_init__(self) -> None:
        from rota.workload.shop.feasible import check_times
        from rota.workload.shop.summary import features, horizon
        from rota.workload.shop.validate import check_parts

        check_parts(self)
        check_times(self)
        object.__setattr__(self, "horizon", horizon(self))
        object.__setattr__(self, "features", features(self))
