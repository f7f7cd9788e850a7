"""What a heuristic solver has so far: the best schedule, a bound, their history, and whether it is time to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from importlib.metadata import version

from rota.contracts.shop import Budget, OnProgress, Outcome, Problem, Progress, Schedule, Status


class Incumbent:
    """The best of an objective of one stage. Threads may offer schedules and bounds at any time.

    Parameters
    ----------
    problem, budget, on_progress
        As a solver gets them. `problem.objective` must have one stage of one term.
    """

    def __init__(self, problem: Problem, budget: Budget, on_progress: OnProgress | None = None) -> None:
        assert problem.objective is not None
        (stage,) = problem.objective.stages
        (self._weight,) = stage.values()
        self._budget, self._on_progress = budget, on_progress
        self._began = time.perf_counter()
        self._lock = threading.RLock()
        self.schedule: Schedule | None = None
        self.value: int | None = None
        self.bound: int | None = None
        self.interrupted = False
        self._trace: list[Progress] = []

    @property
    def left(self) -> float:
        """Seconds left."""
        return self._began + self._budget.wall_s - time.perf_counter()

    @property
    def done(self) -> bool:
        """Whether to stop: interrupted, out of time with a schedule, or close enough to the bound."""
        return self.interrupted or (self.value is not None and (self.left <= 0 or self.closed))

    @property
    def closed(self) -> bool:
        """Whether the gap is small enough."""
        if self.value is None or self.bound is None:
            return False
        return self.value - self.bound <= self._budget.rel_gap * max(abs(self.value), 1)

    def offer(self, value: int, schedule: Callable[[], Schedule]) -> bool:
        """Take a schedule whose term has this value if it is better; whether it was."""
        with self._lock:
            if self.value is not None and value >= self.value:
                return False
            self.value, self.schedule = value, schedule()
            self._note(self.schedule)
            return True

    def raise_bound(self, bound: int) -> None:
        """The term cannot be below `bound`."""
        with self._lock:
            if self.bound is None or bound > self.bound:
                self.bound = bound
                self._note(None)

    def _note(self, schedule: Schedule | None) -> None:
        point = Progress(time.perf_counter() - self._began, self._weighted(self.value), self._weighted(self.bound))
        self._trace.append(point)
        if self._on_progress is not None:
            try:
                self._on_progress(point, schedule)
            except KeyboardInterrupt:
                self.interrupted = True

    def _weighted(self, value: int | None) -> int | None:
        return None if value is None else value * self._weight

    def outcome(self, name: str) -> Outcome:
        """All of it, as a solver hands it back."""
        solver = f"{name} (rota {version('rota')})"
        value, bound = self._weighted(self.value), self._weighted(self.bound)
        if value is None:
            return Outcome("unknown", None, None, None, tuple(self._trace), solver, self.interrupted)
        status: Status = "optimal" if value == bound else "feasible"
        return Outcome(status, self.schedule, (value,), (bound,), tuple(self._trace), solver, self.interrupted)

