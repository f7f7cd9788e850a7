"""Total tardiness on one machine, exactly: Lawler's decomposition (1977) with memory.

The longest of a set of jobs, given the due-date order 1..n, has some optimal position k: the jobs 1..k run before it, the others after it.
Trying the positions that no dominance rule excludes (Potts and Van Wassenhove 1982; Szwarc, Della Croce and Grosso 1999) leaves two
smaller problems of the same kind. Every set that arises holds the jobs of a range in due-date order whose rank in the order of durations is
below a limit, so that four numbers and a start time name it, and what was solved once is looked up. Without lower bounds, as in Szwarc,
Grosso and Della Croce (2001): a pruned set would be met again, a solved one is known.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from rota.errors import InputError
from rota.jit import njit
from rota.policies.dispatch.augmented import augmented
from rota.policies.dispatch.mdd import mdd
from rota.policies.dispatch.mddc import mddc
from rota.policies.dispatch.sequencing import Ints, total_tardiness

#: Most entries of the memory (2 ** this, 32 bytes each); an entry whose place is taken is overwritten, and solved anew if it is needed again.
_MEMORY_BITS = 22
_UNSOLVED = -1
#: Sets looked at between two looks at the clock.
_SLICE = 200_000


@dataclass(frozen=True, slots=True)
class Tardiness:
    """What was found.

    Attributes
    ----------
    order : array (jobs,)
        Jobs in the order in which they run.
    value, bound : int
        Its total tardiness, and what no order can be below; equal if and only if `order` is proven optimal.
    nodes : int
        Sets of jobs looked at.
    """

    order: Ints
    value: int
    bound: int
    nodes: int


def minimise_tardiness(p: Ints, d: Ints, start: int = 0, wall_s: float = float("inf")) -> Tardiness:
    """The order of least total tardiness, or, where the time is not enough, a good one with a bound.

    Parameters
    ----------
    p, d : array (jobs,)
        Durations (not negative) and due dates (any), integers.
    start : int
        When the machine becomes free.
    wall_s : float
        Seconds after which the search gives up.

    Raises
    ------
    InputError
        If a duration is negative, or `p` and `d` differ in length.
    """
    p, d = np.asarray(p, np.int64), np.asarray(d, np.int64)
    if p.shape != d.shape or p.ndim != 1:
        raise InputError(f"{p.size} durations and {d.size} due dates; give one of each per job")
    if len(p) and p.min() < 0:
        raise InputError(f"job {int(p.argmin())} has the duration {int(p.min())}; durations must not be negative")
    until = time.perf_counter() + wall_s
    by_due = np.lexsort((p, d))
    sp, sd = p[by_due], d[by_due]
    rank = np.empty(len(p), np.int64)
    rank[np.lexsort((np.arange(len(p)), sp))] = np.arange(len(p))
    entries = 1 << min(_MEMORY_BITS, 12 + len(p) // 16)
    keys = np.full((entries, 2), -1, np.int64)
    values = np.empty((entries, 2), np.int64)
    order = np.empty(len(p), np.int64)
    spent = np.zeros(1, np.int64)
    members = np.arange(len(p))
    while True:
        limit = spent[0] + _SLICE
        if _solve(members, start, sp, sd, rank, keys, values, spent, limit) != _UNSOLVED:
            break
        if time.perf_counter() > until:
            return _unproven(p, d, start, int(spent[0]))
    _unfold(members, start, sp, sd, rank, keys, values, spent, order, 0)
    order = by_due[order]
    value = total_tardiness(order, p, d, start)
    return Tardiness(order, value, value, int(spent[0]))


@njit(cache=True)
def _solve(members: Ints, t: int, p: Ints, d: Ints, rank: Ints, keys: Ints, values: Ints, spent: Ints, limit: int) -> int:
    """Least total tardiness of `members` (places in due-date order) from time `t` on, or `_UNSOLVED` if `limit` sets were looked at."""
    n = len(members)
    end, late, total = t, 0, 0
    for i in members:
        end += p[i]
        if end > d[i]:
            late += 1
            total += end - d[i]
    if late <= 1:
        return total  # the due-date order minimises the largest tardiness, here the only one
    longest = 0
    for i in range(n):
        if rank[members[i]] > rank[members[longest]]:
            longest = i
    slot, known = _find(keys, members, rank[members[longest]], t)
    if known:
        return int(values[slot, 0])
    spent[0] += 1
    if spent[0] > limit:
        return _UNSOLVED
    best, best_k = np.int64(2**62), -1
    due = d[members[longest]]
    end, latest = t, np.int64(-(2**62))
    for i in range(longest):
        end += p[members[i]]
    for k in range(longest, n):
        job = members[k]
        end += p[job]
        if k > longest:
            latest = max(latest, d[job] + p[job])
        if end < latest or (k < n - 1 and end >= d[members[k + 1]]):
            continue
        first = _solve(_before(members, longest, k), t, p, d, rank, keys, values, spent, limit)
        if first == _UNSOLVED:
            return _UNSOLVED
        cost = first + max(0, end - due)
        if cost >= best:
            continue
        second = _solve(members[k + 1 :].copy(), end, p, d, rank, keys, values, spent, limit)
        if second == _UNSOLVED:
            return _UNSOLVED
        if cost + second < best:
            best, best_k = cost + second, k
    slot, _ = _find(keys, members, rank[members[longest]], t)
    keys[slot, 0] = _name(members, rank[members[longest]])
    keys[slot, 1] = t
    values[slot, 0] = best
    values[slot, 1] = best_k
    return int(best)


@njit(cache=True)
def _before(members: Ints, longest: int, k: int) -> Ints:
    """`members[: k + 1]` without the one at `longest`."""
    left = np.empty(k, np.int64)
    left[:longest] = members[:longest]
    left[longest:] = members[longest + 1 : k + 1]
    return left


@njit(cache=True)
def _name(members: Ints, top: int) -> int:
    return int((members[0] << 40) | (members[-1] << 20) | top)


@njit(cache=True)
def _find(keys: Ints, members: Ints, top: int, t: int) -> tuple[int, bool]:
    """Where this set and time is in the memory or would go, and whether it is there; at most four places are tried."""
    name = _name(members, top)
    mask = len(keys) - 1
    mixed = name * 0x1E3779B97F4A7C15 ^ t * 0x42B2AE3D27D4EB4F
    home = (mixed ^ (mixed >> 29)) & mask
    for step in range(4):
        slot = (home + step) & mask
        if keys[slot, 0] == name and keys[slot, 1] == t:
            return slot, True
        if keys[slot, 0] == -1:
            return slot, False
    return home, False


@njit(cache=True)
def _unfold(members: Ints, t: int, p: Ints, d: Ints, rank: Ints, keys: Ints, values: Ints, spent: Ints, order: Ints, at: int) -> None:
    """Write the best order of `members` to `order[at:]`; what the memory no longer holds is solved again."""
    n = len(members)
    if n == 0:
        return
    end, late = t, 0
    for i in members:
        end += p[i]
        late += end > d[i]
    if late <= 1:
        order[at : at + n] = members
        return
    _solve(members, t, p, d, rank, keys, values, spent, 2**62)
    longest = 0
    for i in range(n):
        if rank[members[i]] > rank[members[longest]]:
            longest = i
    slot, _ = _find(keys, members, rank[members[longest]], t)
    k = values[slot, 1]
    end = t
    for i in members[: k + 1]:
        end += p[i]
    order[at + k] = members[longest]
    _unfold(_before(members, longest, k), t, p, d, rank, keys, values, spent, order, at)
    _unfold(members[k + 1 :].copy(), end, p, d, rank, keys, values, spent, order, at + k + 1)


def _unproven(p: Ints, d: Ints, start: int, nodes: int) -> Tardiness:
    """The best rule's order."""
    spt = np.lexsort((d, p))  # ties of MDD go to the shorter job
    orders = (spt[augmented(rule, p[spt], d[spt], start)] for rule in (mdd, mddc))
    order = min(orders, key=lambda order: total_tardiness(order, p, d, start))
    return Tardiness(order, total_tardiness(order, p, d, start), relaxed_tardiness(p, d, start), nodes)


def relaxed_tardiness(p: Ints, d: Ints, start: int = 0) -> int:
    """A lower bound: what could be reached if durations and due dates could be paired at will."""
    return int(np.maximum(0, start + np.cumsum(np.sort(p)) - np.sort(d)).sum())
