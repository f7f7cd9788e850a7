"""What a neighbourhood leaves as it is: modes, and who comes before whom, but no times.

The frozen part of a schedule becomes a partial order (Policella et al. 2004): every unit of a resource is handed from holder to holder, and
each hand-over is a precedence. Frozen tasks may still be shifted, earlier above all, when those between them are moved. All that is added is
true of the schedule it comes from, so a model with it always has that schedule as a solution.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from rota.contracts.shop import Event, Problem, Schedule
from rota.policies.solvers.evaluate import ends


class Frozen(NamedTuple):
    """Modes of tasks, and pairs of events of which the second is not before the first."""

    mode: Mapping[str, int]
    order: frozenset[tuple[Event, Event]]


class _Hold(NamedTuple):
    start: int
    end: int
    take: Event
    release: Event
    amount: int


def freeze(problem: Problem, schedule: Schedule, free: Collection[str]) -> Frozen:
    """The partial order and the modes of all tasks that are not free; holds that are empty have no place in the order."""
    times = event_times(problem, schedule)
    kept = [task for task in problem.tasks if task.id not in free]
    mode = {task.id: schedule.mode.get(task.id, 0) for task in kept}
    renewable = {resource.id: resource.capacity for resource in problem.resources if resource.kind == "renewable"}
    holds: dict[str, list[_Hold]] = defaultdict(list)
    for task in kept:
        take = Event(task.id, "start")
        for use in task.modes[mode[task.id]].uses:
            release = use.until or Event(task.id, "end")
            if use.resource in renewable and times[take] < times[release]:
                holds[use.resource].append(_Hold(times[take], times[release], take, release, use.amount))
    follows = {(lag.a[0], lag.b[0]) for lag in problem.lags}
    order: set[tuple[Event, Event]] = set()
    for resource, own in holds.items():
        order.update(_hand_overs(own, renewable[resource], follows))
    for group in problem.exclusive:
        spans = [(Event(task.id, "start"), Event(task.id, "end")) for task in kept if task.id in group]
        order.update(_hand_overs([_Hold(times[a], times[b], a, b, 1) for a, b in spans if times[a] < times[b]], 1, follows))
    return Frozen(mode, frozenset(order))


def event_times(problem: Problem, schedule: Schedule) -> dict[Event, int]:
    """When every task starts and ends."""
    end = ends(problem, schedule)
    times = {Event(task.id, "start"): schedule.start[task.id] for task in problem.tasks}
    times.update((Event(name, "end"), at) for name, at in end.items())
    return times


def _hand_overs(holds: list[_Hold], capacity: int, follows: Collection[tuple[str, str]]) -> Iterable[tuple[Event, Event]]:
    """From whom each holder gets its units.

    It takes them from as few as it can: first from those that come before it anyway, then from those that have most to give.
    """
    free: list[tuple[int, Event | None, int]] = [(-1, None, capacity)]  # from when, from whom, how many
    for hold in sorted(holds):
        given = [one for one in free if one[0] <= hold.start]
        kept = [one for one in free if one[0] > hold.start]
        given.sort(key=lambda one: (one[1] is None or (one[1].task, hold.take.task) not in follows, one[1] is not None, -one[2]))
        missing = hold.amount
        for at, giver, units in given:
            taken = min(units, missing)
            missing -= taken
            if taken and giver is not None:
                yield giver, hold.take
            if units > taken:
                kept.append((at, giver, units - taken))
        free = [*kept, (hold.end, hold.release, hold.amount)]
