"""How much of a resource is free over time, as schedule generation asks it: where does this fit, and until when would it go on fitting?"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from rota.contracts.shop import Resource


class Profile:
    """Free units of a resource as a step function, from tick 0 on for ever.

    Parameters
    ----------
    resource : Resource
        Its calendar is taken into account but for stretches of capacity 0, in which those who hold may go on holding.
    """

    def __init__(self, resource: Resource) -> None:
        steps = {0: resource.capacity, **{at: units or resource.capacity for at, units in resource.calendar}}
        self._at = list(steps)
        self._free = list(steps.values())

    def fits_until(self, start: int, amount: int) -> int | None:
        """The first tick from `start` on at which `amount` is no longer free, `start` itself if it is not; None if that never comes."""
        for k in range(bisect_right(self._at, start) - 1, len(self._at)):
            if self._free[k] < amount:
                return max(start, self._at[k])
        return None

    def free_from(self, tick: int, amount: int) -> int | None:
        """The first tick from `tick` on at which `amount` is free; None if that never comes."""
        for k in range(bisect_right(self._at, tick) - 1, len(self._at)):
            if self._free[k] >= amount:
                return max(tick, self._at[k])
        return None

    def take(self, start: int, end: int, amount: int) -> None:
        """Take `amount` away in [start, end)."""
        if start >= end:
            return
        first, last = self._cut(start), self._cut(end)
        for k in range(first, last):
            self._free[k] -= amount

    def _cut(self, at: int) -> int:
        k = bisect_right(self._at, at) - 1
        if self._at[k] == at:
            return k
        self._at.insert(k + 1, at)
        self._free.insert(k + 1, self._free[k])
        return k + 1


def earliest(start: int, ticks: int, wanted: Iterable[tuple[Profile, int]], closed: list[tuple[int, int]]) -> int | None:
    """The first start from `start` on at which all of `wanted` is free for `ticks` ticks that touch no closed stretch; None if never."""
    parts = list(wanted)
    while ticks:
        moved = start
        for begin, end in closed:
            if begin < moved + ticks and moved < end:
                moved = end
        for profile, amount in parts:
            until = profile.fits_until(moved, amount)
            if until is not None and until < moved + ticks:
                later = profile.free_from(until, amount)
                if later is None:
                    return None
                moved = later
        if moved == start:
            return start
        start = moved
    return start
