"""An exact planner that makes bookkeeping errors: a model of planners that overlook constraints and add wrongly.

It solves the problem as it remembers it, by CP-SAT. Each constraint is overlooked with some probability by itself, and so is each capacity;
each duration is taken for one tick more or less with the same probability.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Resource, Schedule, Task
from rota.errors import InfeasibleProblem, InputError
from rota.policies.solvers.cpsat import CpSat


@dataclass(frozen=True, slots=True)
class Forgetful:
    """CP-SAT on a problem that is remembered with errors; the schedule is for that one.

    Parameters
    ----------
    error : float
        Probability of each single error.
    """

    error: float

    def __post_init__(self) -> None:
        if not 0 <= self.error <= 1:
            raise InputError(f"a planner forgets with a probability between 0 and 1, not {self.error:g}")

    @property
    def name(self) -> str:
        """With the probability."""
        return f"forgetful:{self.error:g}"

    def capabilities(self) -> frozenset[Feature]:
        """Those of CP-SAT."""
        return CpSat().capabilities()

    def solve(
        self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None
    ) -> Outcome:
        """A schedule of the problem as remembered; `budget.seed` draws the errors. Nothing is claimed of it."""
        try:
            remembered = remember(problem, self.error, random.Random(f"{budget.seed} {problem.name}"))
        except InfeasibleProblem:
            return Outcome("unknown", None, None, None, solver=self.name)
        found = CpSat().solve(remembered, budget)
        if found.schedule is None:
            return Outcome("unknown", None, None, None, solver=self.name, interrupted=found.interrupted)
        return Outcome("feasible", found.schedule, None, None, (), self.name, found.interrupted)


def remember(problem: Problem, error: float, rng: random.Random) -> Problem:
    """The problem with each constraint left out, and each duration off by one, with probability `error`; any schedule will do.

    Raises
    ------
    InfeasibleProblem
        If what is remembered contradicts itself.
    """

    def slips() -> bool:
        return rng.random() < error

    return replace(
        problem,
        tasks=tuple(_remember_task(task, rng, error) for task in problem.tasks),
        resources=tuple(_remember_resource(resource, slips(), slips(), len(problem.tasks)) for resource in problem.resources),
        lags=tuple(lag for lag in problem.lags if not slips()),
        exclusive=tuple(group for group in problem.exclusive if not slips()),
        objective=None,
    )


def _remember_task(task: Task, rng: random.Random, error: float) -> Task:
    modes = tuple(
        replace(mode, duration=max(1, mode.duration + rng.choice((-1, 1)))) if rng.random() < error else mode
        for mode in task.modes
    )
    if rng.random() < error:
        return replace(task, modes=modes, earliest_start=0, latest_end=None)
    return replace(task, modes=modes)


def _remember_resource(resource: Resource, always_up: bool, plenty: bool, tasks: int) -> Resource:
    calendar = () if always_up else resource.calendar
    if not plenty or resource.kind == "consumable":
        return replace(resource, calendar=calendar)
    most = resource.capacity * tasks
    return replace(resource, capacity=most, calendar=tuple((at, units and most) for at, units in calendar), setup=None)
