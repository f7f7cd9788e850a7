"""Where solvers, dispatch rules, simulators and the checker meet for shops, projects and single machines.

The problem itself is `rota.workload.shop.problem`; its names are repeated here. A solver is a policy that decides everything at once: it
returns an `Outcome` and declares what it can do. One that lacks a feature of a problem refuses by name (`require`), and never drops a
constraint. All objectives are minimised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from rota.errors import InputError, UnsupportedPolicy
from rota.workload.shop.problem import (
    CONSUMABLE,
    DUE_TERMS,
    JOB_TERMS,
    TERMS,
    Edge,
    Event,
    Feature,
    Job,
    Lag,
    Mode,
    Objective,
    Problem,
    Resource,
    Task,
    Time,
    Use,
)

__all__ = [
    "CONSUMABLE",
    "DUE_TERMS",
    "JOB_TERMS",
    "TERMS",
    "Budget",
    "Edge",
    "Event",
    "Feature",
    "Job",
    "Lag",
    "Mode",
    "Objective",
    "OnProgress",
    "Outcome",
    "Problem",
    "Progress",
    "Resource",
    "Schedule",
    "Solver",
    "Status",
    "Task",
    "Time",
    "Use",
    "require",
]

Status = Literal["optimal", "feasible", "infeasible", "unknown"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each task starts and in which mode.

    Parameters
    ----------
    start : mapping of task to ticks
    mode : mapping of task to index of its mode; a task that is not named is in mode 0
    end : mapping of task to ticks, or None
        Only for tasks that allow breaks, where it says nothing new: work goes on in every tick that it can.
    """

    start: Mapping[str, int]
    mode: Mapping[str, int]
    end: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What a solver may spend.

    Parameters
    ----------
    wall_s : float
        Seconds.
    workers : int
        Cores; 0 for all there are.
    seed : int
    rel_gap : float
        Stop when (objective - bound) / objective is at most this; 0 for proof.
    """

    wall_s: float = 60.0
    workers: int = 0
    seed: int = 0
    rel_gap: float = 0.0

    def __post_init__(self) -> None:
        if not self.wall_s > 0:
            raise InputError(f"the time limit must be a positive number of seconds, not {self.wall_s:g}")
        if self.workers < 0 or self.seed < 0 or not 0 <= self.rel_gap < 1:
            raise InputError("workers and seed must not be negative, and the gap must be at least 0 and below 1")


class Progress(NamedTuple):
    """What is known after so many seconds, about one stage of the objective: its best value and a proven lower bound, None if not yet."""

    wall_s: float
    objective: int | None
    bound: int | None
    stage: int = 0


#: Called at each better schedule (given) and each better bound (then None). A solver stops early when it raises KeyboardInterrupt.
OnProgress = Callable[[Progress, Schedule | None], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a solver hands back.

    Parameters
    ----------
    status : {"optimal", "feasible", "infeasible", "unknown"}
        ``optimal`` and ``infeasible`` are proven. Where there is no objective, any schedule is optimal.
    schedule : Schedule or None
    objective, bound : tuple of int, or None
        A value per stage; of a stage k, `bound` holds while all earlier ones have their `objective`. None where none is known.
    trace : tuple of Progress
        Ascending in time.
    solver : str
        Name and version.
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    status: Status
    schedule: Schedule | None
    objective: tuple[int, ...] | None
    bound: tuple[int | None, ...] | None
    trace: tuple[Progress, ...] = ()
    solver: str = ""
    interrupted: bool = False


@runtime_checkable
class Solver(Protocol):
    """Decides everything at once."""

    @property
    def name(self) -> str: ...

    def capabilities(self) -> frozenset[Feature]:
        """Which features of problems it handles; a problem with another one it refuses."""

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The best schedule found within `budget`.

        Raises
        ------
        UnsupportedPolicy
            If the problem has a feature that is not among `capabilities`.
        """


def require(solver: Solver, problem: Problem) -> None:
    """Refuse a problem that `solver` cannot handle.

    Raises
    ------
    UnsupportedPolicy
        Names the features that are missing.
    """
    missing = problem.features - solver.capabilities()
    if missing:
        raise UnsupportedPolicy(f"{solver.name} cannot handle {', '.join(sorted(missing))} of {problem.name}; choose another solver")
