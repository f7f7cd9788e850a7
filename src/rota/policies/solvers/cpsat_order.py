"""Who follows whom on a machine, for CP-SAT: setups between consecutive holders, and hand-overs that are no ring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rota.contracts.shop import Event, Problem

if TYPE_CHECKING:
    from rota.policies.solvers.cpsat_model import Hold, Model


def add_setups(
    cp: Any, setup: Mapping[tuple[str, str], int], holds: Sequence[Hold], families: Sequence[str], horizon: int
) -> Any:
    """A circuit through the holders of a machine, each arc with its setup; returns the sum of all setups."""
    arcs: list[tuple[int, int, Any]] = []
    total: Any = 0
    for j, hold in enumerate(holds, 1):
        first, last = cp.new_bool_var(""), cp.new_bool_var("")
        arcs += [(0, j, first), (j, 0, last), (j, j, ~hold.lit)]
        before = setup.get(("", families[j - 1]), 0)
        cp.add(hold.start >= before).only_enforce_if(first)
        total += before * first
        for i, other in enumerate(holds, 1):
            if i != j:
                follows = cp.new_bool_var("")
                ticks = setup.get((families[i - 1], families[j - 1]), 0)
                arcs.append((i, j, follows))
                cp.add(hold.start >= other.end + ticks).only_enforce_if(follows)
                total += ticks * follows
    nobody = cp.new_bool_var("")
    arcs.append((0, 0, nobody))
    cp.add(sum(hold.lit for hold in holds) == 0).only_enforce_if(nobody)
    cp.add_circuit(arcs)
    return total


def add_ranks(model: Model) -> None:
    """No rings: all events get ranks, ascending along lags, and a machine is freed at a lower rank than it is taken at.

    Ranks order events of one instant; for events of different times such ranks always exist, so the constraints need not ask for the time.
    """
    problem, cp = model.problem, model.cp
    events = [Event(task.id, edge) for task in problem.tasks for edge in ("start", "end")]
    rank = {event: cp.new_int_var(0, len(events), f"rank {event}") for event in events}
    for task in problem.tasks:
        cp.add(rank[Event(task.id, "start")] <= rank[Event(task.id, "end")])
    for lag in problem.lags:
        a, b = Event(*lag.a), Event(*lag.b)
        if lag.max is not None and lag.max <= 0:
            cp.add(rank[b] <= rank[a])
        if lag.min is None:
            continue
        if lag.min >= 0 and not lag.by_modes:
            cp.add(rank[a] <= rank[b])
        elif lag.by_modes:
            first, second = model.mode_lits(a.task), model.mode_lits(b.task)
            for i, in_first in enumerate(first):
                for j, in_second in enumerate(second):
                    if lag.min + lag.by_modes.get((i, j), 0) >= 0:
                        cp.add(rank[a] <= rank[b]).only_enforce_if(in_first, in_second)
    tied = _tied(problem)
    for resource in problem.resources:
        if resource.capacity == 1 and resource.kind == "renewable":
            _add_hand_overs(model, model.holds[resource.id], rank, tied)


def _add_hand_overs(model: Model, holds: Sequence[Hold], rank: Mapping[Event, Any], tied: Mapping[Event, int]) -> None:
    cp = model.cp
    there = [_not_empty(cp, hold) for hold in holds]
    takes = [Event(model.problem.tasks[hold.task].id, "start") for hold in holds]

    def add(i: int, j: int, lits: list[Any]) -> None:
        cp.add(holds[i].end <= holds[j].start).only_enforce_if(lits)
        release, take = holds[i].release, takes[j]
        if release != take and tied.get(release, release) != tied.get(take, take):
            cp.add(rank[release] + 1 <= rank[take]).only_enforce_if(lits)

    for i in range(len(holds)):
        for j in range(i):
            if holds[i].task != holds[j].task:
                first = cp.new_bool_var("")
                add(i, j, [*there[i], *there[j], first])
                add(j, i, [*there[i], *there[j], ~first])


def _not_empty(cp: Any, hold: Hold) -> list[Any]:
    if not hold.maybe_empty:
        return [hold.lit]
    some = cp.new_bool_var("")
    cp.add(hold.size >= 1).only_enforce_if(some)
    cp.add(hold.size == 0).only_enforce_if(~some)
    return [hold.lit, some]


def _tied(problem: Problem) -> dict[Event, int]:
    """Events that lags of zero in both directions keep together, by number of their group."""
    after: dict[Event, set[Event]] = defaultdict(set)
    for lag in problem.lags:
        a, b = Event(*lag.a), Event(*lag.b)
        if lag.min == 0 and not lag.by_modes:
            after[a].add(b)
        if lag.max == 0:
            after[b].add(a)
    reach = {event: _reached(event, after) for event in after}
    groups: dict[Event, int] = {}
    for number, (event, others) in enumerate(reach.items()):
        if event not in groups:
            for other in others:
                if event in reach.get(other, ()):
                    groups[other] = number
    return groups


def _reached(event: Event, after: Mapping[Event, set[Event]]) -> set[Event]:
    found: set[Event] = set()
    todo = [event]
    while todo:
        for other in after.get(todo.pop(), ()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found
