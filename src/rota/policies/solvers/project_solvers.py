"""Solvers for projects and task graphs: one priority rule, sampling with justification, and HEFT."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cache

import numpy as np

from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Schedule, require
from rota.errors import UnsupportedPolicy
from rota.policies.dispatch.sequencing import Ints
from rota.policies.solvers.heft import heft
from rota.policies.solvers.incumbent import Incumbent
from rota.policies.solvers.project import (
    PROJECT_RULES,
    Project,
    justified,
    longest_after,
    makespan_of,
    parallel,
    project_of,
    project_priorities,
    reversed_project,
    serial,
)
from rota.policies.solvers.threads import in_threads

_FEATURES: frozenset[Feature] = frozenset({"makespan", "cumulative", "lags"})
#: Noise on priorities when sampling, in standard deviations.
NOISE = 0.4


@dataclass(frozen=True, slots=True)
class PriorityRule:
    """One rule of `PROJECT_RULES` in the serial or the parallel scheme."""

    rule: str
    scheme: str

    @property
    def name(self) -> str:
        """As on the command line."""
        return f"{self.rule.lower()}-{self.scheme}"

    def capabilities(self) -> frozenset[Feature]:
        """Projects in one mode with precedence and lags from end to start."""
        return _FEATURES

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The rule's schedule."""
        require(self, problem)
        project, tasks = as_project(problem, self.name)
        incumbent = Incumbent(problem, budget, on_progress)
        incumbent.raise_bound(project_bound(project))
        generate = serial if self.scheme == "serial" else parallel
        start = generate(project, project_priorities(self.rule, project))
        incumbent.offer(makespan_of(project, start), lambda: _schedule(tasks, start))
        return incumbent.outcome(self.name)


@dataclass(frozen=True, slots=True)
class ProjectSampling:
    """All rules in both schemes, then with noise, each schedule justified, for as long as the budget lasts."""

    name: str = "sampling"

    def capabilities(self) -> frozenset[Feature]:
        """Projects in one mode with precedence and lags from end to start."""
        return _FEATURES

    def prepare(self) -> None:
        """Compile, which is not to count as time of the search."""
        _compile()

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The best schedule found."""
        require(self, problem)
        project, tasks = as_project(problem, self.name)
        self.prepare()
        incumbent = Incumbent(problem, budget, on_progress)
        incumbent.raise_bound(project_bound(project))
        backwards = reversed_project(project)
        priorities = [project_priorities(rule, project) for rule in PROJECT_RULES]

        def work(worker: int, stop: threading.Event) -> None:
            rng = np.random.default_rng([budget.seed, worker])
            noise = 0.0
            while not stop.is_set() and not incumbent.done:
                for priority in priorities:
                    scale = noise * (priority.std() or 1.0)
                    for generate in (serial, parallel):
                        start = generate(project, priority + scale * rng.standard_normal(len(priority)))
                        start = justified(project, backwards, start)
                        incumbent.offer(makespan_of(project, start), lambda start=start: _schedule(tasks, start))  # type: ignore[misc]
                    if stop.is_set() or incumbent.done:
                        break
                noise = float(rng.uniform(0, NOISE))

        try:
            in_threads(work, budget.workers or os.cpu_count() or 1)
        except KeyboardInterrupt:
            incumbent.interrupted = True
        return incumbent.outcome(self.name)


@dataclass(frozen=True, slots=True)
class Heft:
    """HEFT for tasks on one of several processors each, with transfer times."""

    name: str = "heft"

    def capabilities(self) -> frozenset[Feature]:
        """Modes that each hold one machine, and precedence with lags that may depend on modes."""
        return frozenset({"makespan", "modes", "lags", "mode_lags"})

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """HEFT's schedule."""
        require(self, problem)
        order, edges = _precedence(problem, self.name)
        index = {resource.id: i for i, resource in enumerate(problem.resources)}
        tasks = [problem.tasks[i] for i in order]
        for task in tasks:
            if any(len(mode.uses) != 1 or mode.uses[0].amount != 1 for mode in task.modes):
                raise UnsupportedPolicy(f"{self.name} is for tasks that hold one machine; {task.id} of {problem.name} does not")
        work = [np.array([mode.duration for mode in task.modes], np.int64) for task in tasks]
        where = [np.array([index[mode.uses[0].resource] for mode in task.modes], np.int64) for task in tasks]
        transfers: dict[tuple[int, int], Ints] = {}
        for i, j, lag, by_modes in edges:
            table = np.full((len(work[i]), len(work[j])), lag, np.int64)
            for (a, b), ticks in by_modes.items():
                table[a, b] += ticks
            transfers[i, j] = np.maximum(transfers[i, j], table) if (i, j) in transfers else table
        start, mode = heft(work, where, transfers, len(problem.resources))
        incumbent = Incumbent(problem, budget, on_progress)
        names = [task.id for task in tasks]
        length = max(int(start[i] + work[i][mode[i]]) for i in range(len(tasks)))
        modes = dict(zip(names, mode.tolist(), strict=True))
        incumbent.offer(length, lambda: Schedule(dict(zip(names, start.tolist(), strict=True)), modes))
        return incumbent.outcome(self.name)


@cache
def _compile() -> None:
    tiny = project_of(np.array([1, 1]), np.array([[1], [1]]), np.array([1]), [(0, 1, 0)])
    serial(tiny, parallel(tiny, np.zeros(2)).astype(np.float64))


def as_project(problem: Problem, solver: str) -> tuple[Project, tuple[str, ...]]:
    """A project as columns, and the task that each row is.

    Raises
    ------
    UnsupportedPolicy
        If lags are not from end to start and at least 0, or the objective is not the makespan.
    """
    order, edges = _precedence(problem, solver)
    tasks = [problem.tasks[i] for i in order]
    index = {resource.id: r for r, resource in enumerate(problem.resources)}
    demand = np.zeros((len(tasks), len(problem.resources)), np.int64)
    for i, task in enumerate(tasks):
        for use in task.modes[0].uses:
            demand[i, index[use.resource]] = use.amount
    duration = np.array([task.modes[0].duration for task in tasks], np.int64)
    capacity = np.array([resource.capacity for resource in problem.resources], np.int64)
    return project_of(duration, demand, capacity, [(i, j, lag) for i, j, lag, _ in edges]), tuple(task.id for task in tasks)


def _precedence(problem: Problem, solver: str) -> tuple[list[int], list[tuple[int, int, int, dict[tuple[int, int], int]]]]:
    """Tasks in a topological order, and (place, place, lag, more by modes) for every lag."""
    if problem.objective is None or [set(stage) for stage in problem.objective.stages] != [{"makespan"}]:
        raise UnsupportedPolicy(f"{solver} minimises the makespan alone, which {problem.name} does not ask for; choose another solver")
    number = {task.id: i for i, task in enumerate(problem.tasks)}
    after: list[list[int]] = [[] for _ in problem.tasks]
    missing = [0] * len(problem.tasks)
    for lag in problem.lags:
        if (lag.a.edge, lag.b.edge) != ("end", "start") or lag.max is not None or (lag.min or 0) < 0:
            raise UnsupportedPolicy(
                f"{solver} needs lags of at least 0 from ends to starts; {problem.name} has another between {lag.a.task} and {lag.b.task}"
            )
        after[number[lag.a.task]].append(number[lag.b.task])
        missing[number[lag.b.task]] += 1
    order = [i for i, n in enumerate(missing) if n == 0]
    for i in order:
        for j in after[i]:
            missing[j] -= 1
            if missing[j] == 0:
                order.append(j)
    if len(order) < len(problem.tasks):
        raise UnsupportedPolicy(f"{solver} cannot order the tasks of {problem.name}: precedence goes round in a circle")
    place = {problem.tasks[i].id: at for at, i in enumerate(order)}
    return order, [(place[lag.a.task], place[lag.b.task], lag.min or 0, dict(lag.by_modes or {})) for lag in problem.lags]


def project_bound(project: Project) -> int:
    """The critical path, or the work of a resource over its capacity."""
    work = (project.duration[:, None] * project.demand).sum(0)
    return max(int(longest_after(project).max()), int(np.max(-(-work // project.capacity), initial=0)))


def _schedule(tasks: tuple[str, ...], start: Ints) -> Schedule:
    return Schedule(dict(zip(tasks, start.tolist(), strict=True)), dict.fromkeys(tasks, 0))
