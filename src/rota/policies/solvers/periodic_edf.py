"""Periodic work over its hyperperiod without preemption: by earliest deadline, each instance at the first start at which it fits.

What an instance is taken to occupy sets the three variants apart (Skrzypczyk and Wehner, 2021): ``network``, as one processor; ``protocol``,
all of its qubits all the time; ``qubits``, each qubit only while it is busy or locked. Critical EDF lets the instance that can wait least go
first where another would take its last place. Demands are admitted one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from rota.workload.shop.periodic import Periodic, capacities, hyperperiod

OCCUPANCIES = ("network", "protocol", "qubits")
#: Per resource, intervals from the start of an instance, one per unit.
Profile = Mapping[str, Sequence[tuple[int, int]]]


class _Instance(NamedTuple):
    """One run of a task; deadlines come first, so that sorting is by them."""

    deadline: int
    release: int
    task: int


def profile_of(one: Periodic, occupancy: str) -> Profile:
    """What an instance is taken to occupy."""
    if occupancy == "network":
        return {"network": [(0, one.protocol.duration)]}
    true = one.protocol.profile()
    if occupancy == "qubits":
        return true
    return {name: [(0, one.protocol.duration)] * _most(spans) for name, spans in true.items()}


def _most(spans: Sequence[tuple[int, int]]) -> int:
    return max(sum(a <= at < b for a, b in spans) for at, _ in spans)


def schedule(work: Sequence[Periodic], occupancy: str, critical: bool = False) -> list[list[int]] | None:
    """Starts of each task's instances, in ticks; None where an instance misses its deadline.

    Parameters
    ----------
    work : sequence of Periodic
    occupancy : {"network", "protocol", "qubits"}
    critical : bool
        Before an instance is placed, see that the waiting one with the earliest latest start fits beside it; if not, that one goes first.
    """
    free = _Free({"network": 1} if occupancy == "network" else capacities(work))
    profiles = [profile_of(one, occupancy) for one in work]
    starts: list[list[int]] = [[] for _ in work]
    waiting = sorted(
        _Instance((k + 1) * one.period, k * one.period, j) for j, one in enumerate(work) for k in range(hyperperiod(work) // one.period)
    )
    by_latest = sorted(waiting, key=lambda one: one.deadline - work[one.task].protocol.duration)
    next_latest = 0
    placed: set[_Instance] = set()

    def place(one: _Instance) -> bool:
        at = free.earliest(profiles[one.task], one.release, one.deadline - work[one.task].protocol.duration)
        if at is not None:
            free.take(profiles[one.task], at)
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
    return [sorted(own) for own in starts]


def _leaves_room(free: _Free, profiles: Sequence[Profile], work: Sequence[Periodic], one: _Instance, other: _Instance) -> bool:
    """Whether `other` can still be placed once `one` is at its earliest start; True if `one` has none."""
    first, second = (
        (profiles[each.task], each.release, each.deadline - work[each.task].protocol.duration) for each in (one, other)
    )
    at = free.earliest(*first)
    if at is None or at + work[one.task].protocol.duration <= other.release or not first[0].keys() & second[0].keys():
        return True
    with free.taken(profiles[one.task], at):
        return free.earliest(*second) is not None


def admit(demands: Sequence[Periodic], occupancy: str, critical: bool = False) -> tuple[list[int], list[list[int]]]:
    """Numbers of the demands that are accepted, one after the other, and the starts of their instances."""
    accepted: list[int] = []
    starts: list[list[int]] = []
    for number, demand in enumerate(demands):
        tried = [*(demands[i] for i in accepted), demand]
        if max(utilisation(tried).values()) > 1:
            continue
        found = schedule(tried, occupancy, critical)
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


class _Free:
    """What is taken, as a set of slots (bits of a number) per resource and count: bit t of level m says that more than m units are taken at t."""

    def __init__(self, units: Mapping[str, int]) -> None:
        self._levels = {name: [0] * count for name, count in units.items()}

    @contextmanager
    def taken(self, profile: Profile, start: int) -> Iterator[None]:
        """Occupied for a while."""
        before = {name: list(self._levels[name]) for name in profile}
        self.take(profile, start)
        yield
        self._levels |= before

    def earliest(self, profile: Profile, first: int, last: int) -> int | None:
        """The first start from `first` to `last` at which the profile fits; None if there is none."""
        if last < first:
            return None
        blocked = 0
        for name, spans in profile.items():
            levels = self._levels[name]
            for at in range(min(a for a, _ in spans), max(b for _, b in spans)):
                wanted = sum(a <= at < b for a, b in spans)
                if wanted:
                    if wanted > len(levels):
                        return None
                    blocked |= levels[len(levels) - wanted] >> at
        open_starts = ~blocked & ((1 << (last + 1)) - (1 << first))
        return (open_starts & -open_starts).bit_length() - 1 if open_starts else None

    def take(self, profile: Profile, start: int) -> None:
        """Occupy it."""
        for name, spans in profile.items():
            levels = self._levels[name]
            for a, b in spans:
                carry = ((1 << (b - a)) - 1) << (a + start)
                for m, taken in enumerate(levels):
                    levels[m] = taken | carry
                    carry &= taken
