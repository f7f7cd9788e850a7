"""Rings of holders that exchange machines at one instant, for problems that forbid them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from rota.contracts.shop import Event, Lag, Problem
from rota.mechanisms.shop.violations import Hold, Violation


def rings(problem: Problem, modes: dict[str, int], times: dict[Event, int], holds: dict[str, list[Hold]]) -> Iterator[Violation]:
    """Events of one instant must have an order that keeps lags of zero and frees each machine before it is taken.

    Such an order exists if no cycle of "comes before" has a hand-over of a machine in it.
    """
    tied = _tied(problem)
    before: dict[Event, set[Event]] = defaultdict(set)
    for lag in problem.lags:
        a, b = Event(*lag.a), Event(*lag.b)
        if times[a] == times[b] and _apart(lag, modes) == 0:
            before[a].add(b)
        if times[a] == times[b] and lag.max == 0:
            before[b].add(a)
    for task in problem.tasks:
        start, end = Event(task.id, "start"), Event(task.id, "end")
        if times[start] == times[end]:
            before[start].add(end)
    handed = []
    for resource in problem.resources:
        if resource.capacity == 1 and resource.kind == "renewable":
            taken = {hold.start: Event(hold.task, "start") for hold in holds[resource.id]}
            for hold in holds[resource.id]:
                taker = taken.get(hold.end)
                if taker is not None and taker != hold.release and tied.get(taker, taker) != tied.get(hold.release, hold.release):
                    before[hold.release].add(taker)
                    handed.append((hold.release, taker, resource.id))
    group = _cyclic_groups(before)
    for release, taker, name in handed:
        if release in group and group[release] == group.get(taker):
            yield Violation("ring", f"{name} from {release.task} to {taker.task}", times[taker], 1)
            return


def _tied(problem: Problem) -> dict[Event, int]:
    """Events that lags of zero in both directions keep at one instant, whatever the schedule."""
    before: dict[Event, set[Event]] = defaultdict(set)
    for lag in problem.lags:
        if lag.min == 0 and not lag.by_modes:
            before[Event(*lag.a)].add(Event(*lag.b))
        if lag.max == 0:
            before[Event(*lag.b)].add(Event(*lag.a))
    return _cyclic_groups(before)


def _cyclic_groups(before: dict[Event, set[Event]]) -> dict[Event, int]:
    """Number of the strongly connected component, for events that are on a cycle (Kosaraju)."""
    order: list[Event] = []
    seen: set[Event] = set()
    for root in list(before):
        stack = [(root, iter(before[root]))] if root not in seen else []
        seen.add(root)
        while stack:
            event, following = stack[-1]
            new = next((other for other in following if other not in seen), None)
            if new is None:
                order.append(event)
                stack.pop()
            else:
                seen.add(new)
                stack.append((new, iter(before.get(new, ()))))
    after: dict[Event, set[Event]] = defaultdict(set)
    for event, others in before.items():
        for other in others:
            after[other].add(event)
    groups: dict[Event, int] = {}
    placed: set[Event] = set()
    for number, root in enumerate(reversed(order)):
        members, todo = [], [root] if root not in placed else []
        placed.add(root)
        while todo:
            event = todo.pop()
            members.append(event)
            fresh = [other for other in after.get(event, ()) if other not in placed]
            placed.update(fresh)
            todo += fresh
        if len(members) > 1:
            groups.update(dict.fromkeys(members, number))
    return groups


def _apart(lag: Lag, modes: dict[str, int]) -> int | None:
    more = (lag.by_modes or {}).get((modes[lag.a[0]], modes[lag.b[0]]), 0)
    return None if lag.min is None else lag.min + more
