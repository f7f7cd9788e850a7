"""Breaks of calendars, and when work that is suspended by them ends."""

from __future__ import annotations

from typing import NamedTuple

from rota.contracts.shop import Resource


def closed(resource: Resource, horizon: int) -> list[tuple[int, int]]:
    """Stretches [from, to) in which nobody works, as far as needed for ends up to `horizon`."""
    stretches = []
    for k, (at, units) in enumerate(resource.calendar):
        if units == 0 and at <= horizon:
            end = resource.calendar[k + 1][0] if k + 1 < len(resource.calendar) else horizon + 1
            stretches.append((at, min(end, horizon + 1)))
    return stretches


def merged(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union of stretches, ascending and apart."""
    union: list[tuple[int, int]] = []
    for begin, end in sorted(stretches):
        if union and begin <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end))
        else:
            union.append((begin, end))
    return union


class Piece(NamedTuple):
    """For starts from `first` to `last`, the end is `at` if `fixed`, else the start plus `at`."""

    first: int
    last: int
    at: int
    fixed: bool


def end_pieces(duration: int, breaks: list[tuple[int, int]], latest: int) -> list[Piece]:
    """The end of `duration` >= 1 ticks of work as a function of its start, for all starts that end by `latest`.

    A start within a break is as good as one at the end of it.
    """
    open_from = [0, *(end for _, end in breaks)]
    open_to = [*(begin for begin, _ in breaks), latest]
    pieces = []
    for p, (begin, until) in enumerate(zip(open_from, open_to, strict=True)):
        first = begin
        slept = 0
        for q in range(p, len(open_from)):
            if q > p:
                slept += open_from[q] - open_to[q - 1]
            # work that starts at `last` ends exactly where open stretch q does
            last = min(until - 1, open_to[q] - slept - duration)
            if first <= last:
                pieces.append(Piece(first, last, duration + slept, False))
                first = last + 1
            if last == until - 1:
                break
        if p < len(breaks):
            end = end_of(open_from[p + 1], duration, breaks)
            if end <= latest:
                pieces.append(Piece(breaks[p][0], breaks[p][1] - 1, end, True))
    return [piece for piece in pieces if piece.first <= piece.last]


def end_of(start: int, duration: int, breaks: list[tuple[int, int]]) -> int:
    """When `duration` ticks of work that begin at `start` are done."""
    now, left = start, duration
    for begin, end in breaks:
        if end <= now:
            continue
        if left <= begin - now:
            break
        left -= max(0, begin - now)
        now = end
    return now + left
