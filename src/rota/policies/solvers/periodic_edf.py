"""Periodic work over its hyperperiod without preemption: by earliest deadline, each instance at the first start at which it fits.

What an instance is taken to occupy sets the three variants apart (Skrzypczyk and Wehner, 2021): ``network``, as one processor; ``protocol``,
all of its qubits all the time; ``qubits``, each qubit only while it is busy or locked. Demands are admitted one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rota.workload.shop.periodic import Periodic, capacities, hyperperiod

OCCUPANCIES = ("network", "protocol", "qubits")
#: Per resource, intervals from the start of an instance, one per unit.
Profile = Mapping[str, Sequence[tuple[int, int]]]


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


def schedule(work: Sequence[Periodic], occupancy: str) -> list[list[int]] | None:
    """Starts of each task's instances, in ticks; None where an instance misses its deadline.

    Parameters
    ----------
    work : sequence of Periodic
    occupancy : {"network", "protocol", "qubits"}
    """
    free = _Free({"network": 1} if occupancy == "network" else capacities(work))
    profiles = [profile_of(one, occupancy) for one in work]
    starts: list[list[int]] = [[] for _ in work]
    order = sorted(
        ((k + 1) * one.period, k * one.period, j) for j, one in enumerate(work) for k in range(hyperperiod(work) // one.period)
    )
    for deadline, release, j in order:
        at = free.earliest(profiles[j], release, deadline - work[j].protocol.duration)
        if at is None:
            return None
        free.take(profiles[j], at)
        starts[j].append(at)
    return starts


def admit(demands: Sequence[Periodic], occupancy: str) -> tuple[list[int], list[list[int]]]:
    """Numbers of the demands that are accepted, one after the other, and the starts of their instances."""
    accepted: list[int] = []
    starts: list[list[int]] = []
    for number, demand in enumerate(demands):
        tried = [*(demands[i] for i in accepted), demand]
        if max(utilisation(tried).values()) > 1:
            continue
        found = schedule(tried, occupancy)
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
