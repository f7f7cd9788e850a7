"""Which units of some resources are taken in which slots of time, as sets of slots: bits of whole numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

#: Per resource, intervals from the start of what occupies it, one per unit.
Profile = Mapping[str, Sequence[tuple[int, int]]]


class Slots:
    """What is taken: bit t of level m of a resource says that more than m of its units are taken at t."""

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
        starts = self.starts(profile, first, last)
        return (starts & -starts).bit_length() - 1 if starts else None

    def starts(self, profile: Profile, first: int, last: int) -> int:
        """All starts from `first` to `last` at which the profile fits, as a set of slots."""
        if last < first:
            return 0
        blocked = 0
        for name, spans in profile.items():
            levels = self._levels[name]
            for at in range(min(a for a, _ in spans), max(b for _, b in spans)):
                wanted = sum(a <= at < b for a, b in spans)
                if wanted:
                    if wanted > len(levels):
                        return 0
                    blocked |= levels[len(levels) - wanted] >> at
        return ~blocked & ((1 << (last + 1)) - (1 << first))

    def free(self, units: Mapping[str, int]) -> int:
        """The slots in which so many units of each resource are free, as a set; beyond the last slot that is taken, all are."""
        blocked = 0
        for name, count in units.items():
            blocked |= self._levels[name][len(self._levels[name]) - count]
        return ~blocked

    def take(self, profile: Profile, start: int) -> None:
        """Occupy it."""
        for name, spans in profile.items():
            levels = self._levels[name]
            for a, b in spans:
                carry = ((1 << (b - a)) - 1) << (a + start)
                for m, taken in enumerate(levels):
                    levels[m] = taken | carry
                    carry &= taken
