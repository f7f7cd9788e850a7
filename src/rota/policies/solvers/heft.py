"""HEFT (Topcuoglu, Hariri and Wu 2002): tasks by upward rank, each on the processor where it ends first, gaps included."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rota.policies.dispatch.sequencing import Floats, Ints

#: Transfer time by (predecessor, successor): array (modes of the predecessor, modes of the successor).
Transfers = Mapping[tuple[int, int], Ints]


def upward_ranks(work: list[Ints], where: list[Ints], transfers: Transfers) -> Floats:
    """Mean work plus the longest way on, transfers at their mean between different processors; shape (tasks,).

    Parameters
    ----------
    work, where : lists of arrays (modes,)
        Duration and processor of each mode of each task; tasks in a topological order.
    transfers : mapping
        An entry for every edge.
    """
    rank = np.array([float(np.mean(times)) for times in work])
    mean = rank.copy()
    for i, j in sorted(transfers, reverse=True):
        apart = where[i][:, None] != where[j][None, :]
        moved = transfers[i, j][apart].mean() if apart.any() else transfers[i, j].mean()
        rank[i] = max(rank[i], mean[i] + float(moved) + rank[j])
    return rank


def heft(work: list[Ints], where: list[Ints], transfers: Transfers, n_processors: int) -> tuple[Ints, Ints]:
    """Start times and modes, each of shape (tasks,)."""
    n = len(work)
    rank = upward_ranks(work, where, transfers)
    start, mode, end = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    busy: list[list[tuple[int, int]]] = [[] for _ in range(n_processors)]
    before: dict[int, list[int]] = {}
    for i, j in transfers:
        before.setdefault(j, []).append(i)
    # ties by number, which is topological: a task never comes before its predecessor, whose rank is at least as high
    for task in sorted(range(n), key=lambda i: (-rank[i], i)):
        best: tuple[int, int, int] | None = None
        for m, (duration, processor) in enumerate(zip(work[task].tolist(), where[task].tolist(), strict=True)):
            ready = max((int(end[i] + transfers[i, task][mode[i], m]) for i in before.get(task, ())), default=0)
            at = gap(busy[processor], ready, duration)
            if best is None or at + duration < best[0]:
                best = (at + duration, at, m)
        assert best is not None
        end[task], start[task], mode[task] = best
        processor = int(where[task][mode[task]])
        busy[processor] = sorted([*busy[processor], (int(start[task]), int(end[task]))])
    return start, mode


def gap(busy: list[tuple[int, int]], ready: int, duration: int) -> int:
    """The earliest start from `ready` on between busy intervals, which are in order."""
    for begin, finish in busy:
        if ready + duration <= begin:
            break
        ready = max(ready, finish)
    return ready
