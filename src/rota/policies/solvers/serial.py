"""Serial schedule generation (Kelley 1963): task after task, each in the mode and at the start at which it ends first.

Next is, of the tasks whose predecessors are placed, the one with the longest path behind it, or where the objective has due dates, the one
whose job is due first. Nothing that was placed moves, so limits that look back (maximum lags, holds until another event) are not handled.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from rota.contracts.shop import (
    DUE_TERMS,
    Budget,
    Feature,
    Lag,
    Mode,
    OnProgress,
    Outcome,
    Problem,
    Progress,
    Resource,
    Schedule,
    Task,
    require,
)
from rota.policies.solvers.breaks import closed, end_of, merged
from rota.policies.solvers.evaluate import stage_values
from rota.policies.solvers.profile import Profile, earliest

_CANNOT = frozenset({"until", "max_lags", "no_swap"})


@dataclass(frozen=True, slots=True)
class Serial:
    """One schedule, at once; none where a deadline, a latest end or a consumable does not allow it."""

    name: str = "serial"

    def capabilities(self) -> frozenset[Feature]:
        """All but what looks back."""
        from typing import get_args

        return frozenset(get_args(Feature)) - _CANNOT

    def solve(
        self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None
    ) -> Outcome:
        """The schedule; budget and hint are not looked at."""
        require(self, problem)
        return constructed(problem, generate(problem), self.name, on_progress)


def constructed(problem: Problem, schedule: Schedule | None, name: str, on_progress: OnProgress | None) -> Outcome:
    """What a rule that builds one schedule hands back."""
    if schedule is None:
        return Outcome("unknown", None, None, None, solver=name)
    values = stage_values(problem, schedule)
    point = Progress(0.0, values[0] if values else None, None)
    if on_progress is not None:
        on_progress(point, schedule)
    if problem.objective is None:
        return Outcome("optimal", schedule, None, None, (point,), name)
    return Outcome("feasible", schedule, values, (None,) * len(values), (point,), name)


def generate(problem: Problem, priority: Mapping[str, tuple[int, int]] | None = None) -> Schedule | None:
    """A schedule, or None where the next task does not fit its limits; lowest `priority` first, by default as said above."""
    state = _State(problem)
    before: dict[str, set[str]] = defaultdict(set)
    after: dict[str, set[str]] = defaultdict(set)
    for lag in problem.lags:
        if lag.a[0] != lag.b[0]:
            before[lag.b[0]].add(lag.a[0])
            after[lag.a[0]].add(lag.b[0])
    if priority is None:
        priority = _priorities(problem, after)
    number = {task.id: i for i, task in enumerate(problem.tasks)}
    waits = {task.id: len(before[task.id]) for task in problem.tasks}
    ready = [(priority[name], number[name]) for name, count in waits.items() if not count]
    heapq.heapify(ready)
    while ready:
        task = problem.tasks[heapq.heappop(ready)[1]]
        if not state.place(task):
            return None
        for name in after[task.id]:
            waits[name] -= 1
            if not waits[name]:
                heapq.heappush(ready, (priority[name], number[name]))
    # tasks that wait for each other (by lags from starts, say) have no first
    return Schedule(state.start, state.mode) if len(state.start) == len(problem.tasks) else None


def _priorities(problem: Problem, after: dict[str, set[str]]) -> dict[str, tuple[int, int]]:
    """Due date of the job (where that counts), then the negative length of the longest path of shortest modes from the task on."""
    order: list[str] = []
    waits = {task.id: 0 for task in problem.tasks}
    for others in after.values():
        for name in others:
            waits[name] += 1
    order = [name for name, count in waits.items() if not count]
    for name in order:
        for other in after[name]:
            waits[other] -= 1
            if not waits[other]:
                order.append(other)
    ticks = {task.id: min(mode.duration for mode in task.modes) for task in problem.tasks}
    behind = dict(ticks)
    for name in reversed(order):
        behind[name] = ticks[name] + max((behind[other] for other in after[name]), default=0)
    stages = problem.objective.stages if problem.objective else ()
    counts = bool(stages) and any(term in DUE_TERMS for term in stages[0])
    due = {name: job.due_date for job in problem.jobs for name in job.tasks if job.due_date is not None and counts}
    return {task.id: (due.get(task.id, problem.horizon), -behind[task.id]) for task in problem.tasks}


class _State:
    """What is placed, and what that leaves free."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.start: dict[str, int] = {}
        self.mode: dict[str, int] = {}
        self._end: dict[str, int] = {}
        self._resources = {resource.id: resource for resource in problem.resources}
        self._free = {resource.id: Profile(resource) for resource in problem.resources if resource.kind == "renewable"}
        self._left = {resource.id: resource.capacity for resource in problem.resources if resource.kind == "consumable"}
        self._last: dict[str, tuple[str, int]] = {}  # on machines with setups: family, and when it is done
        self._alone = [(group, Profile(Resource("alone"))) for group in problem.exclusive]
        self._lags: dict[str, list[Lag]] = defaultdict(list)
        for lag in problem.lags:
            self._lags[lag.b[0]].append(lag)
        self._release = {name: job.release_date for job in problem.jobs for name in job.tasks}
        self._limit = {name: job.deadline for job in problem.jobs for name in job.tasks if job.deadline is not None}

    def place(self, task: Task) -> bool:
        """Put the task where it ends first; of modes that end alike, and where anything is used up, in the one that uses up least."""
        found = []
        for m, mode in enumerate(task.modes):
            at = self._earliest(task, m, mode)
            if at is not None:
                burnt = sum(
                    use.amount / max(1, self._resources[use.resource].capacity) for use in mode.uses if use.resource in self._left
                )
                found.append((round(burnt, 9), *at[::-1], m))
        if not found:
            return False
        _, end, start, m = min(found)
        limit = min(self._limit.get(task.id, end), end if task.latest_end is None else task.latest_end)
        if end > limit:
            return False
        self._take(task, m, start, end)
        return True

    def _earliest(self, task: Task, m: int, mode: Mode) -> tuple[int, int] | None:
        if any(use.amount > self._left.get(use.resource, use.amount) for use in mode.uses):
            return None
        least = max(task.earliest_start, self._release.get(task.id, 0), 0)
        end_least = 0
        for lag in self._lags[task.id]:
            if lag.min is not None and lag.a[0] != task.id:
                ticks = lag.min + (lag.by_modes or {}).get((self.mode[lag.a[0]], m), 0)
                at = ticks + (self.start if lag.a[1] == "start" else self._end)[lag.a[0]]
                if lag.b[1] == "start":
                    least = max(least, at)
                else:
                    end_least = max(end_least, at)
        for use in mode.uses:
            setup = self._resources[use.resource].setup
            if setup:
                family, done = self._last.get(use.resource, ("", 0))
                least = max(least, done + setup.get((family, task.family), 0))
        breaks = merged([stretch for use in mode.uses for stretch in closed(self._resources[use.resource], self.problem.horizon)])
        wanted = [(self._free[use.resource], use.amount) for use in mode.uses if use.resource in self._free]
        wanted += [(profile, 1) for group, profile in self._alone if task.id in group]
        start: int | None = max(least, end_least - mode.duration)
        while start is not None and start <= self.problem.horizon:
            end = end_of(start, mode.duration, breaks) if task.allow_breaks and mode.duration else start + mode.duration
            fitting = earliest(start, end - start, wanted, [] if task.allow_breaks else breaks)
            if fitting == start:
                return (start, end) if end >= end_least else None
            start = fitting
        return None

    def _take(self, task: Task, m: int, start: int, end: int) -> None:
        self.start[task.id], self.mode[task.id], self._end[task.id] = start, m, end
        for use in task.modes[m].uses:
            if use.resource in self._left:
                self._left[use.resource] -= use.amount
                continue
            if self._resources[use.resource].setup:
                self._last[use.resource] = (task.family, end)
            self._free[use.resource].take(start, end, use.amount)
        for group, profile in self._alone:
            if task.id in group:
                profile.take(start, end, 1)
