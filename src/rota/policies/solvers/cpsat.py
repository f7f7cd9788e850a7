"""OR-Tools CP-SAT for every problem of the model: exact, anytime, from a hint, with bounds as they come.

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

if TYPE_CHECKING:
    from rota.policies.solvers.cpsat_model import Model


@dataclass(frozen=True, slots=True)
class CpSat:
    """CP-SAT on the whole problem.

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
        """The best schedule within the budget; on Ctrl-C, the best so far."""
        require(self, problem)
        try:
            release = version("ortools")
        except PackageNotFoundError:
            raise UnsupportedPolicy("cp-sat needs OR-Tools; install it with: pip install 'rota[solve]'") from None
        search = _Search(problem, budget, on_progress)
        return search.run(hint, f"{self.name} (OR-Tools {release})")


@dataclass(slots=True)
class _Search:
    problem: Problem
    budget: Budget
    on_progress: OnProgress | None
    began: float = field(default_factory=time.perf_counter)
    best: Schedule | None = None
    trace: list[Progress] = field(default_factory=list)
    interrupted: bool = False
    stage: int = 0
    value: int | None = None
    bound: int | None = None

    def run(self, hint: Schedule | None, label: str) -> Outcome:
        from rota.policies.solvers.cpsat_model import Model

        model = Model(self.problem, self.problem.horizon)
        objective = self.problem.objective
        stages: list[Any] = [None] if objective is None else [model.stage(stage) for stage in objective.stages]
        values: list[int] = []
        bounds: list[int | None] = []
        proven = True
        for self.stage, expression in enumerate(stages):
            start_from = self.best or hint
            if start_from is not None:
                model.hint(start_from)
            if expression is not None:
                model.cp.minimize(expression)
            found, value, bound = self._solve(model, len(stages) - self.stage)
            if found in ("infeasible", "unknown"):
                if self.best is None:
                    return Outcome(found, None, None, None, tuple(self.trace), label, self.interrupted)
                # an earlier stage has a schedule; this one had no time to look at it
                proven = False
                break
            proven &= found == "optimal"
            if expression is not None and value is not None:
                values.append(value)
                bounds.append(bound)
                model.cp.add(expression <= value)
            if self.interrupted:
                break
        if objective is not None and len(values) < len(stages):
            values, bounds, proven = self._rest(model, stages, values, bounds)
        status: Status = "optimal" if proven else "feasible"
        if objective is None:
            return Outcome(status, self.best, None, None, tuple(self.trace), label, self.interrupted)
        return Outcome(status, self.best, tuple(values), tuple(bounds), tuple(self.trace), label, self.interrupted)

    def _rest(
        self, model: Model, stages: list[Any], values: list[int], bounds: list[int | None]
    ) -> tuple[list[int], list[int | None], bool]:
        """Values of the stages that were not reached, of the schedule at hand."""
        from ortools.sat.python import cp_model

        assert self.best is not None
        for i, task in enumerate(self.problem.tasks):
            model.cp.add(model.start[i] == self.best.start[task.id])
            model.cp.add(model.lits[i][self.best.mode.get(task.id, 0)] == 1)
        model.cp.clear_objective()
        solver = cp_model.CpSolver()
        solver.solve(model.cp)
        for expression in stages[len(values) :]:
            values.append(int(solver.value(expression)))
            bounds.append(None)
        return values, bounds, False

    def _solve(self, model: Model, stages_left: int) -> tuple[Status, int | None, int | None]:
        """One stage: status, value and bound."""
        from ortools.sat.python import cp_model

        self.value = self.bound = None
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
            raise RuntimeError(f"{self.problem.name}: {model.cp.validate()}")
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            if self.problem.objective is not None:
                self._note_bound(solver.best_objective_bound)
            proven = status == cp_model.OPTIMAL and self._closed()
            return "optimal" if proven else "feasible", self.value, self.bound
        return "infeasible" if status == cp_model.INFEASIBLE else "unknown", None, None

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

    def _closed(self) -> bool:
        # with a gap allowed, CP-SAT calls a solution within it optimal
        return self.problem.objective is None or self.bound == self.value

    def note(self, schedule: Schedule | None) -> None:
        """A better schedule, or else a better bound."""
        if schedule is not None:
            self.best = schedule
        point = Progress(time.perf_counter() - self.began, self.value, self.bound, self.stage)
        self.trace.append(point)
        if self.on_progress is not None:
            self.on_progress(point, schedule)

    def _note_bound(self, bound: float) -> None:
        # values are whole numbers, and so are their bounds
        whole = math.ceil(bound - 1e-6)
        if math.isfinite(bound) and (self.bound is None or whole > self.bound):
            self.bound = whole
            self.note(None)

    def raise_bound(self, bound: float) -> None:
        """A bound as the library reports it, before any solution of little use and sometimes minus infinity."""
        if abs(bound) < 1e15:
            self._note_bound(bound)


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
            tasks = search.problem.tasks
            start = {task.id: int(self.value(model.start[i])) for i, task in enumerate(tasks)}
            mode = {
                task.id: next(m for m, lit in enumerate(model.lits[i]) if self.boolean_value(lit)) for i, task in enumerate(tasks)
            }
            ends = {task.id: int(self.value(model.end[i])) for i, task in enumerate(tasks) if task.allow_breaks}
            if search.problem.objective is not None:
                search.value = round(self.objective_value)
            search.note(Schedule(start, mode, ends or None))

        def _safely(self, call: Any) -> None:
            try:
                call()
            except BaseException as error:
                self.error = error
                search.interrupted |= isinstance(error, KeyboardInterrupt)
                solver.stop_search()

    return Watch()
