"""Problems of one kind as columns, for the algorithms that are made for that kind; what is of another kind is refused, saying why."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rota.contracts.shop import Event, Problem, Task, Use
from rota.errors import UnsupportedPolicy
from rota.policies.dispatch.sequencing import Ints
from rota.policies.solvers.disjunctive import Shop


class NamedShop(NamedTuple):
    """A job shop as columns, and the task that each operation is."""

    shop: Shop
    tasks: tuple[str, ...]


class NamedJobs(NamedTuple):
    """Jobs of one machine: durations and due dates, shape (jobs,), and the task of each."""

    p: Ints
    d: Ints
    tasks: tuple[str, ...]


def as_job_shop(problem: Problem, solver: str, blocking: bool = False) -> NamedShop:
    """Each job a chain of tasks, each task on one machine; with `blocking`, held until the next one starts.

    Raises
    ------
    UnsupportedPolicy
        If the problem is not that.
    """

    def refuse(why: str) -> UnsupportedPolicy:
        kind = "blocking job shops" if blocking else "job shops"
        return UnsupportedPolicy(f"{solver} is for {kind}; in {problem.name} {why}; choose another solver")

    if problem.objective is None or [set(stage) for stage in problem.objective.stages] != [{"makespan"}]:
        raise refuse("the objective is not the makespan")
    after, before = _chains(problem)
    if after is None or before is None:
        raise refuse("tasks have several predecessors or successors")
    machines = {resource.id: i for i, resource in enumerate(problem.resources)}
    by_name = {task.id: task for task in problem.tasks}
    operations: list[Task] = []
    jobs: list[int] = []
    for task in problem.tasks:
        if task.id in before:
            continue
        name: str | None = task.id
        while name is not None:
            operations.append(by_name[name])
            jobs.append(jobs[-1] if name in before else jobs[-1] + 1 if jobs else 0)
            name = after.get(name)
    n = len(operations)
    if n < len(problem.tasks):
        raise refuse("precedence goes round in a circle")
    columns = np.empty((3, n + 1), np.int64)
    columns[:, n] = 0, -1, -1
    for i, (task, job) in enumerate(zip(operations, jobs, strict=True)):
        following = after.get(task.id)
        until = Event(following, "start") if blocking and following is not None else None
        (mode,) = task.modes
        if len(mode.uses) != 1 or mode.uses[0] != Use(mode.uses[0].resource, 1, until):
            raise refuse(f"task {task.id} does not hold one machine {'until its successor starts' if until else 'while it runs'}")
        columns[:, i] = mode.duration, machines[mode.uses[0].resource], job
    order = np.arange(n + 1)
    is_first = np.append(columns[2, 1:n] != columns[2, : n - 1], True)
    earlier = np.where(np.append(True, is_first)[: n + 1], n, order - 1)
    later = np.where(np.append(is_first, True), n, order + 1)
    earlier[n] = later[n] = n
    return NamedShop(Shop(columns[0], columns[1], columns[2], earlier, later), tuple(task.id for task in operations))


def _chains(problem: Problem) -> tuple[dict[str, str], dict[str, str]] | tuple[None, None]:
    """Successor and predecessor of each task, or nothing if one has several; lags are precedence, as the features say."""
    after: dict[str, str] = {}
    before: dict[str, str] = {}
    for lag in problem.lags:
        a, b = lag.a.task, lag.b.task
        if after.setdefault(a, b) != b or before.setdefault(b, a) != a:
            return None, None
    return after, before


def as_single_machine(problem: Problem, solver: str) -> NamedJobs:
    """Jobs of one task each on one machine, all with weight 1, for total tardiness.

    Raises
    ------
    UnsupportedPolicy
        If the problem is not that.
    """

    def refuse(why: str) -> UnsupportedPolicy:
        return UnsupportedPolicy(f"{solver} is for total tardiness on one machine; in {problem.name} {why}; choose another solver")

    if problem.objective is None or [set(stage) for stage in problem.objective.stages] != [{"total_tardiness"}]:
        raise refuse("the objective is not total tardiness")
    if problem.lags:
        raise refuse("there is precedence")
    if any(task.modes[0].uses != (Use(problem.resources[0].id),) for task in problem.tasks):
        raise refuse("not every task needs just the one machine")
    far = sum(task.modes[0].duration for task in problem.tasks)
    due = {task.id: far for task in problem.tasks}
    for job in problem.jobs:
        if not job.tasks:
            continue
        if len(job.tasks) > 1 or job.weight != 1:
            raise refuse(f"job {job.id} has {'several tasks' if len(job.tasks) > 1 else f'the weight {job.weight}'}")
        due[job.tasks[0]] = far if job.due_date is None else job.due_date
    durations = [task.modes[0].duration for task in problem.tasks]
    return NamedJobs(np.array(durations, np.int64), np.array(list(due.values()), np.int64), tuple(due))
