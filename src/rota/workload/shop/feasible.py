"""Whether the times asked of a problem can hold at all: lags, durations and windows as differences, longest paths by Bellman and Ford.

A cycle of differences that adds up to more than 0 contradicts itself, and is named. Resources are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from rota.errors import InfeasibleProblem, InputError
from rota.workload.shop.problem import Event

if TYPE_CHECKING:
    from rota.workload.shop.problem import Lag, Mode, Problem, Task, Use

_NEVER = -(1 << 60)


class _Difference(NamedTuple):
    """time(to) >= time(of) + ticks. Events are numbered 2 i (start of task i) and 2 i + 1 (its end); the last number is time 0."""

    of: int
    to: int
    ticks: int
    why: str


def check_times(problem: Problem) -> None:
    """Raise where no start times can satisfy all lags and windows, or a hold may end before it begins.

    Raises
    ------
    InfeasibleProblem
        Names the differences that contradict each other.
    InputError
        Names the hold.
    """
    index = {task.id: i for i, task in enumerate(problem.tasks)}
    lags = list(_lags(problem, index))
    origin = 2 * len(problem.tasks)
    limits = [*_durations(problem), *lags, *_windows(problem, index)]
    cycle = _longest([0] * origin + [0], limits)[1]
    if cycle:
        raise InfeasibleProblem(f"{problem.name}: {_explain(problem, cycle)}")
    _check_holds(problem, index, [*_durations(problem), *lags])


def _number(event: Event, index: dict[str, int]) -> int:
    return 2 * index[event[0]] + (event[1] == "end")


def _durations(problem: Problem) -> Iterator[_Difference]:
    for i, task in enumerate(problem.tasks):
        ticks = [mode.duration for mode in task.modes]
        yield _Difference(2 * i, 2 * i + 1, min(ticks), f"{task.id} takes {min(ticks)}")
        if not task.allow_breaks:
            yield _Difference(2 * i + 1, 2 * i, -max(ticks), f"{task.id} takes at most {max(ticks)}")


def _lags(problem: Problem, index: dict[str, int]) -> Iterator[_Difference]:
    for lag in problem.lags:
        a, b = _number(lag.a, index), _number(lag.b, index)
        between = f"{lag.b[0]} {lag.b[1]}s {{}} {{}} after {lag.a[0]} {lag.a[1]}s"
        if lag.min is not None:
            ticks = lag.min + _least_by_modes(lag, problem.tasks[a // 2], problem.tasks[b // 2])
            yield _Difference(a, b, ticks, between.format("at least", ticks))
        if lag.max is not None:
            yield _Difference(b, a, -lag.max, between.format("at most", lag.max))


def _least_by_modes(lag: Lag, first: Task, second: Task) -> int:
    if not lag.by_modes:
        return 0
    return min(lag.by_modes.get((i, j), 0) for i in range(len(first.modes)) for j in range(len(second.modes)))


def _windows(problem: Problem, index: dict[str, int]) -> Iterator[_Difference]:
    origin = 2 * len(problem.tasks)
    for i, task in enumerate(problem.tasks):
        yield _Difference(origin, 2 * i, task.earliest_start, f"{task.id} starts at {task.earliest_start} or later")
        if task.latest_end is not None:
            yield _Difference(2 * i + 1, origin, -task.latest_end, f"{task.id} ends by {task.latest_end}")
    for job in problem.jobs:
        for name in job.tasks:
            if job.release_date:
                yield _Difference(origin, 2 * index[name], job.release_date, f"job {job.id} is released at {job.release_date}")
            if job.deadline is not None:
                yield _Difference(2 * index[name] + 1, origin, -job.deadline, f"job {job.id} must be complete by {job.deadline}")


def _longest(times: list[int], differences: list[_Difference]) -> tuple[list[int], list[_Difference]]:
    """Least times that keep all differences, from those given on; or a cycle that cannot be kept."""
    by: list[_Difference | None] = [None] * len(times)
    rounds = 0
    place = _forward(len(times), differences)
    differences = sorted(differences, key=lambda difference: place[difference.of])
    while True:
        changed = False
        for difference in differences:
            of, to, ticks, _ = difference
            if times[of] > _NEVER and times[of] + ticks > times[to]:
                times[to] = times[of] + ticks
                by[to] = difference
                changed = True
        if not changed:
            return times, []
        rounds += 1
        if rounds & (rounds - 1) == 0:
            cycle = _cycle(by)
            if cycle:
                return times, cycle


def _forward(count: int, differences: list[_Difference]) -> list[int]:
    """Places of events in an order along the differences that are not negative, so that one round over them is mostly enough."""
    after: list[list[int]] = [[] for _ in range(count)]
    waits = [0] * count
    for of, to, ticks, _ in differences:
        if ticks >= 0:
            after[of].append(to)
            waits[to] += 1
    place = [count] * count
    ready = [event for event in range(count) if not waits[event]]
    for number, event in enumerate(ready):
        place[event] = number
        for other in after[event]:
            waits[other] -= 1
            if not waits[other]:
                ready.append(other)
    return place


def _cycle(by: list[_Difference | None]) -> list[_Difference]:
    """A cycle among the differences that set each time last; while times only rise, there is one exactly where they rise for ever."""
    seen = [-1] * len(by)
    for first in range(len(by)):
        node = first
        while seen[node] < 0:
            seen[node] = first
            last = by[node]
            if last is None:
                break
            node = last.of
        else:
            if seen[node] != first:
                continue
            cycle: list[_Difference] = []
            at = node
            while not cycle or at != node:
                last = by[at]
                assert last is not None
                cycle.append(last)
                at = last.of
            return cycle[::-1]
    return []


def _explain(problem: Problem, cycle: list[_Difference]) -> str:
    names = [problem.tasks[d.of // 2].id for d in cycle if d.of // 2 < len(problem.tasks)]
    if all(d.ticks >= 0 for d in cycle):
        path = [name for name, before in zip(names, [names[-1], *names[:-1]], strict=True) if name != before] or names[:1]
        return f"precedence is cyclic: {' -> '.join([*path, path[0]])}; remove one of these"
    too_much = sum(d.ticks for d in cycle)
    return f"no times can satisfy all of: {'; '.join(d.why for d in cycle)} (by {too_much}); relax one of these"


def _check_holds(problem: Problem, index: dict[str, int], differences: list[_Difference]) -> None:
    near = {(lag.a, lag.b) for lag in problem.lags if lag.min is not None and lag.min >= 0 and not lag.by_modes}
    shortest = {task.id: min(mode.duration for mode in task.modes) for task in problem.tasks}
    for i, task in enumerate(problem.tasks):
        for mode in task.modes:
            for use in mode.uses:
                if use.until is not None and not _surely_later(task, mode, use, near, shortest):
                    times = [_NEVER] * (2 * len(problem.tasks) + 1)
                    times[2 * i] = 0
                    if _longest(times, differences)[0][_number(use.until, index)] < _least_hold(problem, use):
                        raise InputError(
                            f"{problem.name}: {task.id} holds {use.resource} until {use.until[0]} {use.until[1]}s, but no lag keeps that "
                            f"from coming first; add a lag from {task.id} to {use.until[0]}"
                        )


def _surely_later(task: Task, mode: Mode, use: Use, near: set[tuple[Event, Event]], shortest: dict[str, int]) -> bool:
    """Whether it is plain, without looking at all times, that the hold ends after it begins."""
    assert use.until is not None
    own_end, (other, edge) = Event(task.id, "end"), use.until
    if other == task.id and edge == "end":
        return True
    if edge == "end" and (own_end, Event(other, "start")) in near:
        return mode.duration + shortest[other] > 0
    return (own_end, use.until) in near and mode.duration > 0


def _least_hold(problem: Problem, use: Use) -> int:
    # a machine with setups has an order of holders, so that no hold may be empty
    return int(any(resource.id == use.resource and bool(resource.setup) for resource in problem.resources))
