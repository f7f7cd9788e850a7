"""The objective of a schedule, for solvers that build schedules and not models."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from rota.contracts.shop import CONSUMABLE, Problem, Schedule, Task
from rota.policies.solvers.breaks import closed, end_of, merged


def ends(problem: Problem, schedule: Schedule) -> dict[str, int]:
    """When each task ends."""
    breaks = {resource.id: closed(resource, problem.horizon) for resource in problem.resources}
    return {task.id: _end(task, schedule, breaks) for task in problem.tasks}


def _end(task: Task, schedule: Schedule, breaks: dict[str, list[tuple[int, int]]]) -> int:
    mode = task.modes[schedule.mode.get(task.id, 0)]
    start = schedule.start[task.id]
    if not task.allow_breaks or not mode.duration:
        return start + mode.duration
    return end_of(start, mode.duration, merged([stretch for use in mode.uses for stretch in breaks[use.resource]]))


def stage_values(problem: Problem, schedule: Schedule) -> tuple[int, ...]:
    """The value of each stage of the objective; () without one. The schedule is taken to be feasible."""
    if problem.objective is None:
        return ()
    end = ends(problem, schedule)
    complete = {job.id: max(end[name] for name in job.tasks) for job in problem.jobs}
    late = [(job.weight, complete[job.id] - job.due_date) for job in problem.jobs if job.due_date is not None]

    def value(term: str) -> int:
        if term == "makespan":
            return max(end.values())
        if term == "total_completion":
            return sum(job.weight * complete[job.id] for job in problem.jobs)
        if term == "total_flow_time":
            return sum(job.weight * (complete[job.id] - job.release_date) for job in problem.jobs)
        if term == "total_tardiness":
            return sum(weight * max(0, lateness) for weight, lateness in late)
        if term == "tardy_jobs":
            return sum(weight for weight, lateness in late if lateness > 0)
        if term == "max_lateness":
            return max(lateness for _, lateness in late)
        if term == "total_setup":
            return _setups(problem, schedule, end)
        return _used(problem, schedule, term.removeprefix(CONSUMABLE))

    return tuple(sum(weight * value(term) for term, weight in stage.items()) for stage in problem.objective.stages)


def _setups(problem: Problem, schedule: Schedule, end: dict[str, int]) -> int:
    setups = {resource.id: resource.setup for resource in problem.resources if resource.setup}
    users: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for task in problem.tasks:
        for use in task.modes[schedule.mode.get(task.id, 0)].uses:
            if use.resource in setups:
                users[use.resource].append((schedule.start[task.id], task.family))
    total = 0
    for name, order in users.items():
        families = ["", *(family for _, family in sorted(order))]
        total += sum(setups[name].get(pair, 0) for pair in pairwise(families))
    return total


def _used(problem: Problem, schedule: Schedule, resource: str) -> int:
    modes = (task.modes[schedule.mode.get(task.id, 0)] for task in problem.tasks)
    return sum(use.amount for mode in modes for use in mode.uses if use.resource == resource)
