"""A problem and what really happens to it, with numbers for names: what the shop simulator runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rota.contracts.shop import Feature, Lag, Problem
from rota.errors import UnsupportedPolicy
from rota.workload.shop.realization import Realization

#: Features of problems that can be run; the others have no meaning online yet, or need more than start and wait.
RUNNABLE: frozenset[Feature] = frozenset({
    "modes", "cumulative", "until", "no_swap", "lags", "mode_lags", "release", "exclusive", "makespan", "total_completion",
    "total_flow_time", "total_tardiness", "max_lateness", "tardy_jobs", "lexicographic",
})  # fmt: skip


class Use(NamedTuple):
    """Units held until the start of task `until`, or until its end (`at_end`); -1: until the own end."""

    resource: int
    amount: int
    until: int
    at_end: bool


class Way(NamedTuple):
    """A mode: expected and actual ticks, and what it holds."""

    expected: int
    actual: int
    uses: tuple[Use, ...]


class Before(NamedTuple):
    """A predecessor, ticks from its end, and more of them by (its mode, own mode)."""

    task: int
    lag: int
    by_modes: dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True)
class Plant:
    """Tasks, resources and jobs by number; exclusive sets are resources of one unit, tasks without a job are jobs of their own.

    Parameters
    ----------
    ways, before, after, job : per task
    capacity, down : per resource
    job_names, job_tasks, arrival, due : per job
    restarts : whether interrupted work begins anew
    """

    problem: Problem
    index: dict[str, int]
    ways: list[list[Way]]
    before: list[list[Before]]
    after: list[list[int]]
    job: list[int]
    capacity: list[int]
    down: list[tuple[tuple[int, int], ...]]
    job_names: list[str]
    job_tasks: list[list[int]]
    arrival: list[int]
    due: list[int | None]
    restarts: bool


def plant(problem: Problem, realization: Realization) -> Plant:
    """Number everything.

    Raises
    ------
    UnsupportedPolicy
        If the problem cannot be run online; says what stands in the way.
    """
    missing = problem.features - RUNNABLE
    if missing:
        raise UnsupportedPolicy(f"the shop simulator cannot handle {', '.join(sorted(missing))} of {problem.name}")
    index = {task.id: t for t, task in enumerate(problem.tasks)}
    resources = {resource.id: r for r, resource in enumerate(problem.resources)}
    ways: list[list[Way]] = []
    for task in problem.tasks:
        held = [Use(len(resources) + x, 1, -1, True) for x, some in enumerate(problem.exclusive) if task.id in some]
        ways.append([])
        for m, mode in enumerate(task.modes):
            uses = [
                Use(resources[use.resource], use.amount, index[use.until.task] if use.until else -1, not use.until or use.until.edge == "end")
                for use in mode.uses
            ]
            actual = realization.work.get((task.id, m), mode.duration)
            ways[-1].append(Way(mode.duration, actual, (*uses, *held)))
    before: list[list[Before]] = [[] for _ in index]
    after: list[list[int]] = [[] for _ in index]
    for lag in problem.lags:
        _require_precedence(problem, lag)
        a, b = index[lag.a.task], index[lag.b.task]
        before[b].append(Before(a, lag.min or 0, dict(lag.by_modes or {})))
        after[a].append(b)
    groups = [(job.id, [index[name] for name in job.tasks], job) for job in problem.jobs if job.tasks]
    grouped = {t for _, tasks, _ in groups for t in tasks}
    arrival = [max(job.release_date, realization.arrival.get(job.id, 0)) for _, _, job in groups]
    due = [job.due_date for _, _, job in groups]
    alone = [t for t in range(len(index)) if t not in grouped]
    names = [name for name, _, _ in groups] + [problem.tasks[t].id for t in alone]
    members = [tasks for _, tasks, _ in groups] + [[t] for t in alone]
    job_of = [0] * len(index)
    for j, tasks in enumerate(members):
        for t in tasks:
            job_of[t] = j
    _require_own(problem, before, ways, job_of, members, arrival + [0] * len(alone))
    capacity = [resource.capacity for resource in problem.resources] + [1] * len(problem.exclusive)
    down = [realization.down.get(resource.id, ()) for resource in problem.resources] + [()] * len(problem.exclusive)
    return Plant(
        problem, index, ways, before, after, job_of, capacity, down, names, members,
        arrival + [0] * len(alone), due + [None] * len(alone), realization.restarts,
    )  # fmt: skip


def _require_precedence(problem: Problem, lag: Lag) -> None:
    least = min([0, *(lag.by_modes or {}).values()])
    if (lag.a.edge, lag.b.edge, lag.max) == ("end", "start", None) and lag.min is not None and lag.min + least >= 0:
        return
    raise UnsupportedPolicy(
        f"the shop simulator handles lags from an end to a start with a minimum of 0 or more and no maximum; that from {lag.a.task} to "
        f"{lag.b.task} of {problem.name} is another"
    )


def _require_own(
    problem: Problem, before: list[list[Before]], ways: list[list[Way]], job_of: list[int], job_tasks: list[list[int]], arrival: list[int]
) -> None:
    """Jobs that arrive later stand for themselves; without swaps, the search for what is safe needs jobs that do one thing at a time."""
    late = any(arrival)
    for t, job in enumerate(job_of):
        tied = [p.task for p in before[t]] + [use.until for way in ways[t] for use in way.uses if use.until >= 0]
        if late and any(job_of[other] != job for other in tied):
            raise UnsupportedPolicy(f"task {problem.tasks[t].id} of {problem.name} is tied to another job, so jobs cannot arrive one by one")
    if problem.swap or "until" not in problem.features:
        return
    for t, job in enumerate(job_of):
        tasks = job_tasks[job]
        at = tasks.index(t)
        until = {use.until for way in ways[t] for use in way.uses if use.until >= 0 or not use.at_end}
        at_end = any(use.until >= 0 and use.at_end for way in ways[t] for use in way.uses)
        if [p.task for p in before[t]] != tasks[max(at - 1, 0) : at] or not until <= set(tasks[at + 1 : at + 2]) or at_end:
            raise UnsupportedPolicy(
                f"without swaps the shop simulator runs jobs that are chains of tasks, each holding until the next starts; "
                f"{problem.tasks[t].id} of {problem.name} is not like that"
            )
