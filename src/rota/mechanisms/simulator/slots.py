"""Slot-contiguous buffers, as in Flover: every request owns a slot, and a fused kernel computes one window of consecutive slots.

Pure bookkeeping, of no use to a paged cache. It says which slots a step computes and which slots must be copied so that the live ones
stay next to each other; what a copy costs is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from rota.errors import InputError


def densest_window(live: Sequence[bool]) -> int:
    """First slot of the window, as long as there are live slots, that holds the most of them; the lowest of several."""
    k = sum(live)
    before = [0, *accumulate(live)]
    return max(range(len(live) - k + 1), key=lambda low: (before[low + k] - before[low], -low))


def moves(live: Sequence[bool]) -> list[tuple[int, int]]:
    """Copies (from slot, to slot) after which the live slots are consecutive: as few as can be, each into a slot that is not live.

    The live slots outside `densest_window` fill the holes inside it, both in ascending order. Any other consecutive arrangement is a
    window too, and leaves at least as many live slots outside; each of these needs a copy of its own.
    """
    low, k = densest_window(live), sum(live)
    inside = range(low, low + k)
    holes = [slot for slot in inside if not live[slot]]
    strays = [slot for slot, alive in enumerate(live) if alive and slot not in inside]
    return list(zip(strays, holes, strict=True))


class Slots:
    """Slots of one batch as requests join and leave.

    A request joins in a dead row of the window if there is one, else beside the window, above it where there is room. With `reorder`
    a leaving request's row is closed at once by `moves`; without it, rows die inside the window and are computed until an end of
    the window frees them.

    Parameters
    ----------
    n : int
        Slots.
    reorder : bool

    Attributes
    ----------
    owner : list of int
        Request in each slot, or -1.
    low, high : int
        The window, half open: all its rows are computed.
    """

    def __init__(self, n: int, *, reorder: bool = True) -> None:
        if n < 1:
            raise InputError(f"a batch needs at least one slot, not {n}")
        self.owner = [-1] * n
        self.reorder = reorder
        self.low = self.high = 0

    @property
    def live(self) -> int:
        """Requests that hold a slot."""
        return sum(owner >= 0 for owner in self.owner)

    @property
    def rows(self) -> int:
        """Rows that a step computes, dead ones included."""
        return self.high - self.low

    def join(self, request: int) -> int:
        """The slot that `request` gets.

        Raises
        ------
        InputError
            If all slots are taken.
        """
        dead = next((slot for slot in range(self.low, self.high) if self.owner[slot] < 0), -1)
        if dead >= 0:
            slot = dead
        elif self.high < len(self.owner):
            slot, self.high = self.high, self.high + 1
        elif self.low > 0:
            slot = self.low = self.low - 1
        else:
            raise InputError(f"all {len(self.owner)} slots are taken; give the batch more")
        self.owner[slot] = request
        return slot

    def leave(self, request: int) -> list[tuple[int, int]]:
        """Free the slot of `request`; returns the copies that were made."""
        self.owner[self.owner.index(request)] = -1
        copies: list[tuple[int, int]] = []
        live = [owner >= 0 for owner in self.owner]
        if not any(live):
            self.low = self.high = 0
            return copies
        self.low, self.high = live.index(True), len(live) - live[::-1].index(True)
        if self.reorder and self.rows > sum(live):
            copies = moves(live)
            for source, target in copies:
                self.owner[target], self.owner[source] = self.owner[source], -1
            self.low = densest_window(live)
            self.high = self.low + sum(live)
        return copies
