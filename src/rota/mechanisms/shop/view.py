"""What a dispatch rule sees of the simulated shop, worked out when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rota.contracts.dispatch import Committed, JobState, ResourceState, Startable
from rota.contracts.shop import Problem

if TYPE_CHECKING:
    from rota.mechanisms.shop.plant import Plant
    from rota.mechanisms.shop.simulator import State


class ShopView:
    """Implements `rota.contracts.dispatch.View` on the state of a simulator."""

    def __init__(self, plant: Plant, state: State) -> None:
        self._plant = plant
        self._state = state
        self._startable: list[tuple[int, int]] = []
        self._names = list(plant.index)
        self._known: Problem | None = None
        self._arrived = 0

    def at(self, startable: list[tuple[int, int]]) -> ShopView:
        """The same view, of now."""
        self._startable = startable
        return self

    @property
    def now(self) -> int:
        return self._state.now

    @property
    def next_event(self) -> int | None:
        return min(map(self._expected_end, self._state.running), default=None)

    def _expected_end(self, task: int) -> int:
        """Start and expected work; work that takes longer is expected to end at the next tick."""
        state = self._state
        end = state.start[task] + self._plant.ways[task][state.mode[task]].expected
        return end if end > state.now or end == state.start[task] else state.now + 1

    @property
    def startable(self) -> Sequence[Startable]:
        plant, names, since = self._plant, self._names, self._state.since
        return [
            Startable(names[task], mode, plant.job_names[plant.job[task]], plant.ways[task][mode].expected, since[task])
            for task, mode in self._startable
        ]

    @property
    def resources(self) -> Mapping[str, ResourceState]:
        state = self._state
        found = {}
        for r, resource in enumerate(self._plant.problem.resources):
            holders = state.holders[r]
            end = min((self._expected_end(task) for task in holders if task in state.running), default=None)
            found[resource.id] = ResourceState(state.free[r], tuple(self._names[t] for t in holders), not state.is_down[r], end)
        return found

    @property
    def jobs(self) -> Mapping[str, JobState]:
        plant, now = self._plant, self._state.now
        return _Jobs({name: j for j, name in enumerate(plant.job_names) if plant.arrival[j] <= now}, self._job)

    def _job(self, job: int) -> JobState:
        state = self._state
        tasks = self._plant.job_tasks[job]
        waiting = None
        if not any(t in state.running for t in tasks):
            waiting = min((state.since[t] for t in tasks if state.start[t] < 0 and not state.missing[t]), default=None)
        inside = any(state.start[t] >= 0 for t in tasks) and not all(state.done[t] for t in tasks)
        return JobState(state.work_left[job], state.tasks_left[job], self._plant.due[job], waiting, inside)

    @property
    def committed(self) -> Mapping[str, Committed]:
        state = self._state
        return {
            name: Committed(state.mode[t], state.start[t], state.end[t] if state.done[t] else self._expected_end(t), state.done[t])
            for t, name in enumerate(self._names)
            if state.start[t] >= 0
        }

    @property
    def known(self) -> Problem:
        plant, now = self._plant, self._state.now
        arrived = sum(at <= now for at in plant.arrival)
        if self._known is None or arrived != self._arrived:
            self._arrived = arrived
            self._known = plant.problem if arrived == len(plant.arrival) else self._announced()
        return self._known

    def _announced(self) -> Problem:
        """The problem without the jobs that have not arrived."""
        plant, now = self._plant, self._state.now
        there = {name for t, name in enumerate(self._names) if plant.arrival[plant.job[t]] <= now}
        problem = plant.problem
        exclusive = (some & there for some in problem.exclusive)
        return replace(
            problem,
            tasks=tuple(task for task in problem.tasks if task.id in there),
            lags=tuple(lag for lag in problem.lags if lag.a.task in there and lag.b.task in there),
            jobs=tuple(job for job in problem.jobs if there.issuperset(job.tasks)),
            exclusive=tuple(some for some in exclusive if len(some) > 1),
        )


class _Jobs(Mapping[str, JobState]):
    """States of jobs, each worked out when it is looked at."""

    def __init__(self, numbers: dict[str, int], state: Callable[[int], JobState]) -> None:
        self._numbers = numbers
        self._state = state

    def __getitem__(self, name: str) -> JobState:
        return self._state(self._numbers[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)
