"""OR-Tools CP-SAT for every problem of the model: exact, anytime, from a first schedule, with bounds as they come.

It needs the extra ``solve`` (``pip install 'rota[solve]'``).
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, get_args

from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Progress, Schedule, Status, require
from rota.errors import UnsupportedPolicy
from rota.policies.solvers.evaluate import stage_values
from rota.policies.solvers.first import first_schedule

if TYPE_CHECKING:
    from rota.policies.solvers.cpsat_model import Model

#: Where CP-SAT seldom finds a first schedule by itself. Elsewhere its own is better than a rule's, which would only bind its search.
_HARD_TO_START = frozenset({"until", "max_lags"})


@dataclass(frozen=True, slots=True)
class CpSat:
    """CP-SAT on the whole problem.

    It starts from the hint, or else from a schedule of its own making, which limits the horizon and stands until a better one is found.
    Stages of a lexicographic objective are solved one after the other, each with an equal share of the time that is left, and a later one
    may not worsen what an earlier one has reached.
    """

    name: str = "cp-sat"

    def capabilities(self) -> frozenset[Feature]:
        """All features."""
        return frozenset(get_args(Feature))

    def solve(
        self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None
    ) -> Outcome:
        """The best schedule within the budget, the hint included; on Ctrl-C, the best so far."""
        require(self, problem)
        search = _Search(problem, budget, on_progress, f"{self.name} (OR-Tools {ortools_version(self.name)})")
        return search.run(hint)


def ortools_version(solver: str) -> str:
    """Which OR-Tools there is.

    Raises
    ------
    UnsupportedPolicy
        If there is none; says how to get it.
    """
    try:
        return version("ortools")
    except PackageNotFoundError:
        raise UnsupportedPolicy(f"{solver} needs OR-Tools; install it with: pip install 'rota[solve]'") from None


def whole_bound(bound: float) -> int | None:
    """A bound as the library reports it; values are whole numbers, and so are their bounds. At first it may be minus infinity."""
    return math.ceil(bound - 1e-6) if abs(bound) < 1e15 else None


@dataclass(slots=True)
class _Search:
    problem: Problem
    budget: Budget
    on_progress: OnProgress | None
    label: str
    began: float = field(default_factory=time.perf_counter)
    best: Schedule | None = None
    values: tuple[int, ...] = ()
    bound: int | None = None
    stage: int = 0
    trace: list[Progress] = field(default_factory=list)
    interrupted: bool = False

    def run(self, hint: Schedule | None) -> Outcome:
        try:
            return self._run(hint)
        except KeyboardInterrupt:  # while the model is made; during the search `_wait` catches it
            self.interrupted = True
            return self._outcome("unknown" if self.best is None else "feasible", [])

    def _run(self, hint: Schedule | None) -> Outcome:
        horizon = self._begin(hint)
        from rota.policies.solvers.cpsat_model import Model

        model = Model(self.problem, horizon)
        stages = self.problem.objective.stages if self.problem.objective else (None,)
        bounds: list[int | None] = []
        proven = True
        for self.stage, stage in enumerate(stages):
            expression = None if stage is None else model.stage(stage)
            if expression is not None:
                model.cp.minimize(expression)
            if self.best is not None and (self.stage or hint is not None or self.problem.features & _HARD_TO_START):
                model.hint(self.best)
            found = self._solve(model, len(stages) - self.stage)
            if self.best is None or (found == "infeasible" and self.stage == 0):
                self.best = None
                return self._outcome(found, [])
            proven &= found == "optimal"
            bounds.append(self.bound)
            if self.interrupted:
                break
            if expression is not None:
                model.cp.add(expression <= self.values[self.stage])
        return self._outcome("optimal" if proven and len(bounds) == len(stages) else "feasible", bounds)

    def _begin(self, hint: Schedule | None) -> int:
        """Take up a first schedule; the horizon, which where only the makespan counts is no later than the end of a schedule made here."""
        first = hint or first_schedule(self.problem)
        if first is None:
            return self.problem.horizon
        self.offer(first)
        only_makespan = self.problem.objective is not None and list(self.problem.objective.stages[0]) == ["makespan"]
        if hint is not None or not only_makespan or not self.values:
            return self.problem.horizon
        assert self.problem.objective is not None
        weight = self.problem.objective.stages[0]["makespan"]
        return self.values[0] // weight if weight else self.problem.horizon

    def _outcome(self, status: Status, bounds: list[int | None]) -> Outcome:
        if self.best is None or self.problem.objective is None:
            return Outcome(status, self.best, None, None, tuple(self.trace), self.label, self.interrupted)
        bounds = [*bounds, *(None for _ in range(len(self.values) - len(bounds)))]
        return Outcome(status, self.best, self.values, tuple(bounds), tuple(self.trace), self.label, self.interrupted)

    def _solve(self, model: Model, stages_left: int) -> Status:
        """One stage; what is found is in `best` and `bound`."""
        from ortools.sat.python import cp_model

        self.bound = None
        left = self.budget.wall_s - (time.perf_counter() - self.began)
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = max(0.01, left / stages_left)
        solver.parameters.num_workers = self.budget.workers
        solver.parameters.random_seed = self.budget.seed
        solver.parameters.relative_gap_limit = self.budget.rel_gap
        # Ctrl-C is caught by the thread that waits, not by the library
        solver.parameters.catch_sigint_signal = False
        watch = _watch(self, model, solver)
        solver.best_bound_callback = watch.on_bound
        status = self._wait(solver, model, watch)
        if watch.error is not None and not isinstance(watch.error, KeyboardInterrupt):
            raise watch.error
        if status == cp_model.MODEL_INVALID:
            raise UnsupportedPolicy(f"cp-sat does not take {self.problem.name}, most likely for large numbers: {model.cp.validate()}")
        if status == cp_model.INFEASIBLE:
            return "infeasible"
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return "unknown"
        if self.problem.objective is None:
            return "optimal"
        self.raise_bound(solver.best_objective_bound)
        # with a gap allowed, the library calls a solution within it optimal
        return "optimal" if self.bound == self.values[self.stage] else "feasible"

    def _wait(self, solver: Any, model: Model, watch: Any) -> Any:
        """Solve in a thread of its own, so that Ctrl-C reaches this one; it ends the search and not what has been found."""
        done: list[Any] = []
        finished = threading.Event()

        def work() -> None:
            try:
                done.append(solver.solve(model.cp, watch))
            except BaseException as error:
                watch.error = error
            finally:
                finished.set()

        threading.Thread(target=work, daemon=True).start()
        while not finished.is_set():
            try:
                finished.wait()
            except KeyboardInterrupt:
                self.interrupted = True
                solver.stop_search()
        return done[0] if done else None

    def offer(self, schedule: Schedule) -> None:
        """Keep a schedule if it is better than what there is.

        Its value is worked out from its times: presolve may leave variables of the objective above what they stand for.
        """
        values = stage_values(self.problem, schedule)
        if self.best is None or values < self.values:
            self.best, self.values = schedule, values
            self._tell(schedule)

    def raise_bound(self, bound: float) -> None:
        """A bound as the library reports it."""
        whole = whole_bound(bound)
        if whole is not None and (self.bound is None or whole > self.bound):
            self.bound = whole
            self._tell(None)

    def _tell(self, schedule: Schedule | None) -> None:
        value = self.values[self.stage] if self.values else None
        point = Progress(time.perf_counter() - self.began, value, self.bound, self.stage)
        self.trace.append(point)
        if self.on_progress is not None:
            try:
                self.on_progress(point, schedule)
            except KeyboardInterrupt:
                self.interrupted = True
                raise


def _watch(search: _Search, model: Model, solver: Any) -> Any:
    """What CP-SAT calls from its own threads; an error there stops the search and is raised afterwards."""
    from ortools.sat.python import cp_model

    class Watch(cp_model.CpSolverSolutionCallback):
        error: BaseException | None = None

        def on_solution_callback(self) -> None:
            self._safely(self._solution)

        def on_bound(self, bound: float) -> None:
            self._safely(lambda: search.raise_bound(bound))

        def _solution(self) -> None:
            search.offer(model.schedule(self))

        def _safely(self, call: Any) -> None:
            try:
                call()
            except BaseException as error:
                self.error = error
                solver.stop_search()

    return Watch()
