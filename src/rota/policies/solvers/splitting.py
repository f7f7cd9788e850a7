"""Placing one run of a periodic protocol in parts: it may pause where no operation is under way (preemption with a budget of delay).

What is stored stays locked while the rest waits. Of all ways that delay the run by no more than the budget the one that ends first is
found, by the sets of slots in which each part can begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from rota.policies.solvers.slots import Profile, Slots
from rota.workload.shop.entanglement import Protocol


class Part(NamedTuple):
    """What runs in one piece.

    Parameters
    ----------
    offset, ticks : int
        Its start, if nothing pauses, and length.
    profile : Profile
        What it occupies, from its own start.
    locked : dict of str to int
        Units that stay locked while the run waits for this part.
    """

    offset: int
    ticks: int
    profile: Profile
    locked: dict[str, int]


def parts(protocol: Protocol, profile: Profile) -> list[Part]:
    """The parts between pauses, of a protocol that is taken to occupy `profile` (which may be more than it does)."""
    found = []
    true = protocol.profile()
    for begin, end in pairwise((0, *protocol.pauses(), protocol.duration)):
        own = {
            name: [(max(a, begin) - begin, min(b, end) - begin) for a, b in spans if a < end and b > begin] for name, spans in profile.items()
        }
        locked = {name: sum(a < begin < b for a, b in spans) for name, spans in true.items()}
        found.append(Part(begin, end - begin, {k: v for k, v in own.items() if v}, {name: n for name, n in locked.items() if n}))
    return found


def place_split(free: Slots, pieces: Sequence[Part], release: int, deadline: int, budget: int) -> tuple[int, ...] | None:
    """Take the slots of a run between `release` and `deadline`, at most `budget` slots longer than its parts together; starts of the parts.

    None, and nothing taken, if there is no way.
    """
    lasts = pieces[-1].offset + pieces[-1].ticks
    open_ = [free.starts(part.profile, release + part.offset, deadline - lasts + part.offset) for part in pieces]
    unlocked = [free.free(part.locked) for part in pieces]
    best: tuple[int, ...] | None = None
    for first in range(release, deadline - lasts + 1):
        if best is not None and best[-1] <= first + pieces[-1].offset:
            break  # no later start ends earlier
        if open_[0] >> first & 1:
            found = _from(first, pieces, open_, unlocked, budget)
            if found is not None and (best is None or found[-1] < best[-1]):
                best = found
    if best is not None:
        for part, at in zip(pieces, best, strict=True):
            free.take(part.profile, at)
        for (before, at), (part, then) in pairwise(zip(pieces, best, strict=True)):
            if then > at + before.ticks:
                free.take({name: [(0, then - at - before.ticks)] * units for name, units in part.locked.items()}, at + before.ticks)
    return best


def _from(first: int, pieces: Sequence[Part], open_: Sequence[int], unlocked: Sequence[int], budget: int) -> tuple[int, ...] | None:
    """Starts of the parts for a start of the first, the last as early as can be."""
    reached = [1 << first]
    for before, part, opened, passable in zip(pieces, pieces[1:], open_[1:], unlocked[1:], strict=False):
        ready = reached[-1] << before.ticks
        within = (1 << (first + part.offset + budget + 1)) - 1
        while (wider := (ready | (ready & passable) << 1) & within) != ready:
            ready = wider
        reached.append(ready & opened)
        if not reached[-1]:
            return None
    starts = [(reached[-1] & -reached[-1]).bit_length() - 1]
    for i in range(len(pieces) - 2, -1, -1):
        end = starts[0]
        while not reached[i] >> (end - pieces[i].ticks) & 1:
            end -= 1  # the slots waited through are those by which it was reached
        starts.insert(0, end - pieces[i].ticks)
    return tuple(starts)
