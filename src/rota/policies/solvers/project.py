"""Projects with limited resources: serial and parallel schedule generation from priorities, and justification.

The serial scheme takes the best task whose predecessors are in and puts it at its earliest feasible time; the parallel scheme goes through
time and starts the best tasks that fit (Kolisch 1996). Justification (Valls, Ballestin and Quintanilla 2005) moves all tasks to the
right, the latest first, and back to the left, which never makes a schedule longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rota.errors import InputError
from rota.jit import njit
from rota.policies.dispatch.sequencing import Floats, Ints


class Project(NamedTuple):
    """Tasks in a topological order.

    Attributes
    ----------
    duration : array (tasks,)
    demand : array (tasks, resources)
    capacity : array (resources,)
    first, succ, lag : array (tasks + 1,), array (edges,), array (edges,)
        Successors of task i are ``succ[first[i]:first[i + 1]]``, and start at least `lag` after its end.
    """

    duration: Ints
    demand: Ints
    capacity: Ints
    first: Ints
    succ: Ints
    lag: Ints


def project_of(duration: Ints, demand: Ints, capacity: Ints, edges: list[tuple[int, int, int]]) -> Project:
    """Columns from edges (task, successor, lag); tasks must be in a topological order."""
    ordered = sorted(edges)
    first = np.searchsorted([i for i, _, _ in ordered], np.arange(len(duration) + 1)).astype(np.int64)
    ends = np.array([(j, lag) for _, j, lag in ordered], np.int64).reshape(-1, 2)
    return Project(duration, demand, capacity, first, ends[:, 0].copy(), ends[:, 1].copy())


def reversed_project(project: Project) -> Project:
    """The same with time running backwards; task i becomes task n - 1 - i."""
    n = len(project.duration)
    edges = [
        (n - 1 - int(project.succ[e]), n - 1 - i, int(project.lag[e])) for i in range(n) for e in range(project.first[i], project.first[i + 1])
    ]
    return project_of(project.duration[::-1].copy(), project.demand[::-1].copy(), project.capacity, edges)


def longest_after(project: Project) -> Ints:
    """Longest way, without resources, from each task's start to the end of the project."""
    n = len(project.duration)
    way = project.duration.copy()
    for i in range(n - 1, -1, -1):
        for e in range(project.first[i], project.first[i + 1]):
            way[i] = max(way[i], project.duration[i] + project.lag[e] + way[project.succ[e]])
    return way


def _successors(project: Project) -> Ints:
    """How many tasks follow each one, directly or not."""
    n = len(project.duration)
    reach = np.zeros((n, n), np.bool_)
    for i in range(n - 1, -1, -1):
        for j in project.succ[project.first[i] : project.first[i + 1]]:
            reach[i, j] = True
            reach[i] |= reach[j]
    count: Ints = reach.sum(1)
    return count


def _earliest(project: Project) -> Ints:
    """Earliest starts without resources."""
    at = np.zeros(len(project.duration), np.int64)
    for i in range(len(at)):
        for e in range(project.first[i], project.first[i + 1]):
            at[project.succ[e]] = max(at[project.succ[e]], at[i] + project.duration[i] + project.lag[e])
    return at


def _weight(project: Project) -> Ints:
    """Durations of each task and of its direct successors."""
    spans = zip(project.first, project.first[1:], strict=False)
    return project.duration + np.array([project.duration[project.succ[a:b]].sum() for a, b in spans], np.int64)


#: Priorities by name, the smallest first: latest finish and start time, most total successors, least slack, greatest rank positional weight,
#: shortest processing time.
PROJECT_RULES: dict[str, Callable[[Project], Ints]] = {
    "LFT": lambda p: p.duration - longest_after(p),
    "LST": lambda p: -longest_after(p),
    "MTS": lambda p: -_successors(p),
    "MSLK": lambda p: -longest_after(p) - _earliest(p),
    "GRPW": lambda p: -_weight(p),
    "SPT": lambda p: p.duration,
}


def project_priorities(rule: str, project: Project) -> Floats:
    """The rule's numbers, shape (tasks,).

    Raises
    ------
    InputError
        If there is no such rule.
    """
    if rule not in PROJECT_RULES:
        raise InputError(f"unknown priority rule {rule!r}; choose from {', '.join(PROJECT_RULES)}")
    return PROJECT_RULES[rule](project).astype(np.float64)


@njit(cache=True, nogil=True)
def serial(project: Project, priority: Floats) -> Ints:
    """Start times, shape (tasks,), by the serial scheme."""
    n = len(project.duration)
    start = np.zeros(n, np.int64)
    ready = np.zeros(n, np.int64)
    missing = np.zeros(n, np.int64)
    for j in project.succ:
        missing[j] += 1
    free = np.empty((project.duration.sum() + project.lag.sum() + 1, len(project.capacity)), np.int64)
    free[:] = project.capacity
    for _ in range(n):
        best = -1
        for i in range(n):
            if missing[i] == 0 and (best < 0 or priority[i] < priority[best]):
                best = i
        at, fits = ready[best], 0
        while fits < project.duration[best]:
            enough = True
            for r in range(len(project.capacity)):
                enough &= free[at + fits, r] >= project.demand[best, r]
            if enough:
                fits += 1
            else:
                at, fits = at + fits + 1, 0
        _place(project, best, at, start, ready, missing)
        free[at : at + project.duration[best]] -= project.demand[best]
    return start


@njit(cache=True, nogil=True)
def parallel(project: Project, priority: Floats) -> Ints:
    """Start times, shape (tasks,), by the parallel scheme."""
    n = len(project.duration)
    start = np.zeros(n, np.int64)
    ready = np.zeros(n, np.int64)
    missing = np.zeros(n, np.int64)
    running = np.zeros(n, np.bool_)
    for j in project.succ:
        missing[j] += 1
    free = project.capacity.copy()
    now, placed = 0, 0
    while True:
        for i in range(n):
            if running[i] and start[i] + project.duration[i] <= now:
                running[i] = False
                free += project.demand[i]
        while True:
            best = -1
            for i in range(n):
                if missing[i] == 0 and ready[i] <= now and (best < 0 or priority[i] < priority[best]) and (project.demand[i] <= free).all():
                    best = i
            if best < 0:
                break
            _place(project, best, now, start, ready, missing)
            placed += 1
            if project.duration[best] > 0:
                running[best] = True
                free -= project.demand[best]
        if placed == n:
            return start
        following = np.int64(2**62)
        for i in range(n):
            if running[i]:
                following = min(following, start[i] + project.duration[i])
            elif missing[i] == 0 and ready[i] > now:
                following = min(following, ready[i])
        now = int(following)


@njit(cache=True, nogil=True)
def _place(project: Project, task: int, at: int, start: Ints, ready: Ints, missing: Ints) -> None:
    start[task] = at
    missing[task] = -1
    for e in range(project.first[task], project.first[task + 1]):
        j = project.succ[e]
        missing[j] -= 1
        ready[j] = max(ready[j], at + project.duration[task] + project.lag[e])


def justified(project: Project, backwards: Project, start: Ints) -> Ints:
    """Start times after moving all tasks to the right and back to the left; never longer. `backwards` is the reversed project."""
    end = start + project.duration
    right = serial(backwards, -end[::-1].astype(np.float64))
    left: Ints = serial(project, -(right + backwards.duration)[::-1].astype(np.float64))
    return left


def makespan_of(project: Project, start: Ints) -> int:
    """When the last task ends."""
    return int((start + project.duration).max())
