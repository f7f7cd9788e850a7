"""Periodic work over its hyperperiod: by earliest deadline, each instance at the first start at which it fits.

What an instance is taken to occupy sets the three variants apart (Skrzypczyk and Wehner, 2021): ``network``, as one processor; ``protocol``,
all of its qubits all the time; ``qubits``, each qubit only while it is busy or locked. Critical EDF lets the instance that can wait least go
first where another would take its last place. With a preemption budget, an instance that does not fit in one piece may pause where none of
its operations is under way, which keeps what it has stored locked. Demands are admitted one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from rota.policies.solvers.slots import Profile, Slots
from rota.policies.solvers.splitting import parts, place_split
from rota.workload.shop.periodic import Periodic, Start, capacities, hyperperiod

OCCUPANCIES = ("network", "protocol", "qubits")


class _Instance(NamedTuple):
    """One run of a task; deadlines come first, so that sorting is by them."""

    deadline: int
    release: int
    task: int


def profile_of(one: Periodic, occupancy: str, budget: int = 0) -> Profile:
    """What an instance is taken to occupy."""
    true = one.protocol.profile()
    if occupancy == "network":
        # where others pause, what they have locked counts beside the one processor
        return {"network": [(0, one.protocol.duration)]} | (true if budget else {})
    if occupancy == "qubits":
        return true
    return {name: [(0, one.protocol.duration)] * _most(spans) for name, spans in true.items()}


def _most(spans: Sequence[tuple[int, int]]) -> int:
    return max(sum(a <= at < b for a, b in spans) for at, _ in spans)


def schedule(work: Sequence[Periodic], occupancy: str, critical: bool = False, budget: int = 0) -> list[list[Start]] | None:
    """Starts of each task's instances, in ticks (of one that pauses, those of its parts); None where an instance misses its deadline.

    Parameters
    ----------
    work : sequence of Periodic
    occupancy : {"network", "protocol", "qubits"}
    critical : bool
        Before an instance is placed, see that the waiting one with the earliest latest start fits beside it; if not, that one goes first.
    budget : int
        Ticks that pauses may add to an instance, in all.
    """
    qubits = {} if occupancy == "network" and not budget else capacities(work)
    free = Slots(qubits | ({"network": 1} if occupancy == "network" else {}))
    profiles = [profile_of(one, occupancy, budget) for one in work]
    pieces = [parts(one.protocol, profile) for one, profile in zip(work, profiles, strict=True)] if budget else []
    starts: list[list[Start]] = [[] for _ in work]
    waiting = sorted(
        _Instance((k + 1) * one.period, k * one.period, j) for j, one in enumerate(work) for k in range(hyperperiod(work) // one.period)
    )
    by_latest = sorted(waiting, key=lambda one: one.deadline - work[one.task].protocol.duration)
    next_latest = 0
    placed: set[_Instance] = set()

    def place(one: _Instance) -> bool:
        at: Start | None = free.earliest(profiles[one.task], one.release, one.deadline - work[one.task].protocol.duration)
        if isinstance(at, int):
            free.take(profiles[one.task], at)
        elif budget:
            at = place_split(free, pieces[one.task], one.release, one.deadline, budget)
        if at is not None:
            starts[one.task].append(at)
            placed.add(one)
        return at is not None

    for one in waiting:
        if one in placed:
            continue
        if critical:
            while by_latest[next_latest] in placed:
                next_latest += 1
            other = next((o for o in islice(by_latest, next_latest, None) if o not in placed and o != one), None)
            if other is not None and not _leaves_room(free, profiles, work, one, other) and not place(other):
                return None
        if not place(one):
            return None
    return [sorted(own, key=begin) for own in starts]


def begin(start: Start) -> int:
    """When an instance begins."""
    return start if isinstance(start, int) else start[0]


def _leaves_room(free: Slots, profiles: Sequence[Profile], work: Sequence[Periodic], one: _Instance, other: _Instance) -> bool:
    """Whether `other` can still be placed once `one` is at its earliest start; True if `one` has none."""
    first, second = (
        (profiles[each.task], each.release, each.deadline - work[each.task].protocol.duration) for each in (one, other)
    )
    at = free.earliest(*first)
    if at is None or at + work[one.task].protocol.duration <= other.release or not first[0].keys() & second[0].keys():
        return True
    with free.taken(profiles[one.task], at):
        return free.earliest(*second) is not None


def admit(demands: Sequence[Periodic], occupancy: str, critical: bool = False, budget: int = 0) -> tuple[list[int], list[list[Start]]]:
    """Numbers of the demands that are accepted, one after the other, and the starts of their instances."""
    accepted: list[int] = []
    starts: list[list[Start]] = []
    for number, demand in enumerate(demands):
        tried = [*(demands[i] for i in accepted), demand]
        if max(utilisation(tried).values()) > 1:
            continue
        found = schedule(tried, occupancy, critical, budget)
        if found is not None:
            accepted.append(number)
            starts = found
    return accepted, starts


def utilisation(work: Sequence[Periodic]) -> dict[str, float]:
    """Share of each kind of qubit that is busy or locked."""
    units = capacities(work)
    used = dict.fromkeys(units, 0.0)
    for one in work:
        for name, spans in one.protocol.profile().items():
            used[name] += sum(b - a for a, b in spans) / (one.period * units[name])
    return used
