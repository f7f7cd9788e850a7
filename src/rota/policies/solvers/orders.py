"""Serial schedule generation in an order that is told beforehand: that of the problem, by earliest start, or by latest end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Schedule, Task, require
from rota.policies.solvers.serial import Serial, constructed, generate

#: What comes first, of the tasks whose predecessors are placed; ties in the order of the problem.
ORDERS: dict[str, Callable[[Problem, Task], int]] = {
    "index": lambda problem, task: 0,
    "earliest-start": lambda problem, task: task.earliest_start,
    "latest-end": lambda problem, task: problem.horizon if task.latest_end is None else task.latest_end,
}


@dataclass(frozen=True, slots=True)
class InOrder:
    """One schedule, at once; none where the next task does not fit its limits. `order` is one of `ORDERS`."""

    order: str

    @property
    def name(self) -> str:
        """The order's name."""
        return self.order

    def capabilities(self) -> frozenset[Feature]:
        """Those of serial generation."""
        return Serial().capabilities()

    def solve(
        self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None
    ) -> Outcome:
        """The schedule; budget and hint are not looked at."""
        require(self, problem)
        rank = ORDERS[self.order]
        schedule = generate(problem, {task.id: (rank(problem, task), 0) for task in problem.tasks})
        return constructed(problem, schedule, self.name, on_progress)
