"""Blocking job shops with swaps: jobs are taken out and put back into the gaps that others leave (an iterated greedy method).

An operation keeps its machine until its job enters the next one. Putting a job in is exact: of all ways through the gaps of its machines, the
one that ends first is found by dynamic programming, since to be in a gap earlier is never worse. Half-open intervals let jobs exchange
places. After each step all machine orders stay and every operation moves to its earliest time. Iterated greedy: Ruiz and Stuetzle (2007);
for this problem Pranzo and Pacciarelli (2016), who insert into orders instead of gaps.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rota.jit import njit
from rota.policies.dispatch.sequencing import Ints
from rota.policies.solvers.disjunctive import Shop
from rota.policies.solvers.tabu import draw

_NEVER = 2**60
Orders = NDArray[np.int64]


@njit(cache=True, nogil=True)
def leave(shop: Shop, start: Ints, op: int) -> int:
    """When `op` frees its machine."""
    after = shop.after[op]
    return int(start[op] + shop.duration[op] if after == len(start) else start[after])


@njit(cache=True, nogil=True)
def put_in(
    shop: Shop, first: int, release: int, start: Ints, close: Ints, orders: Orders, counts: Ints, enter: Ints, came: Ints
) -> int:
    """Insert the job whose first operation is `first` where it ends earliest if it begins at `release` or later; returns that end.

    Parameters
    ----------
    start : array (operations,)
        Start times of the operations that are in; those of the job are written.
    close : array (operations,)
        Until when the job may hold the machine in front of each operation: its start time, or later if it may be pushed.
    orders, counts : array (machines, operations), array (machines,)
        Operations of each machine by time, and how many.
    enter, came : array (operations, operations + 1)
        Scratch: earliest entry into each gap, and the previous operation's gap.
    """
    n = len(start)
    op, k = first, 0
    while op < n:
        machine = shop.machine[op]
        for gap in range(counts[machine] + 1):
            opens = leave(shop, start, orders[machine, gap - 1]) if gap > 0 else 0
            closes = close[orders[machine, gap]] if gap < counts[machine] else _NEVER
            enter[k, gap], came[k, gap] = _NEVER, -1
            if k == 0:
                opens = max(opens, release)
                if opens + shop.duration[op] <= closes:
                    enter[0, gap] = opens
                continue
            before = shop.before[op]
            other = shop.machine[before]
            for old in range(counts[other] + 1):
                if enter[k - 1, old] == _NEVER:
                    continue
                at = max(opens, enter[k - 1, old] + shop.duration[before])
                if at >= enter[k, gap] or at + shop.duration[op] > closes:
                    continue
                if old == counts[other] or at <= close[orders[other, old]]:
                    enter[k, gap], came[k, gap] = at, old
        op = shop.after[op]
        k += 1
    last = first + k - 1
    machine = shop.machine[last]
    gap = 0
    for other in range(counts[machine] + 1):
        if enter[k - 1, other] < enter[k - 1, gap]:
            gap = other
    end = enter[k - 1, gap] + shop.duration[last]
    for op in range(last, first - 1, -1):
        k -= 1
        machine = shop.machine[op]
        for i in range(counts[machine], gap, -1):
            orders[machine, i] = orders[machine, i - 1]
        orders[machine, gap] = op
        counts[machine] += 1
        came_from = came[k, gap]
        came[k, 0] = enter[k, gap]  # the entry itself, for the second pass
        gap = came_from
    for op in range(first, last + 1):
        start[op] = came[op - first, 0]
    return int(end)


@njit(cache=True, nogil=True)
def take_out(shop: Shop, first: int, orders: Orders, counts: Ints) -> None:
    """Remove the job whose first operation is `first`."""
    op = first
    while op < len(shop.job) - 1:
        machine = shop.machine[op]
        to = 0
        for i in range(counts[machine]):
            if orders[machine, i] != op:
                orders[machine, to] = orders[machine, i]
                to += 1
        counts[machine] = to
        op = shop.after[op]


@njit(cache=True, nogil=True)
def earliest(shop: Shop, start: Ints, orders: Orders, counts: Ints, cap: int) -> int:
    """Move every operation that is in to its earliest time in the given machine orders; returns the makespan.

    Beyond `cap` it stops: orders that no schedule can follow would push each other for ever.
    """
    n = len(start)
    members = _members(orders, counts)
    by_time = members[np.argsort(start[members], kind="mergesort")]
    ahead = np.full(n, n, np.int64)
    for machine in range(len(counts)):
        for i in range(1, counts[machine]):
            ahead[orders[machine, i]] = orders[machine, i - 1]
    start[members] = 0
    changed = True
    length = 0
    for op in members:
        length = max(length, shop.duration[op])
    while changed and length <= cap:
        changed = False
        for op in by_time:
            at = start[op]
            before = shop.before[op]
            if before < n:
                at = max(at, start[before] + shop.duration[before])
            if ahead[op] < n:
                at = max(at, leave(shop, start, ahead[op]))
            if at > start[op]:
                start[op] = at
                length = max(length, at + shop.duration[op])
                changed = True
    return int(length)


@njit(cache=True, nogil=True)
def latest(shop: Shop, start: Ints, orders: Orders, counts: Ints, end: int) -> Ints:
    """The latest time of every operation that is in, in these machine orders, if all is to be done by `end`; `start` are the earliest times."""
    n = len(start)
    members = _members(orders, counts)
    by_time = members[np.argsort(-start[members], kind="mergesort")]
    behind = np.full(n, n, np.int64)
    for machine in range(len(counts)):
        for i in range(1, counts[machine]):
            behind[orders[machine, i - 1]] = orders[machine, i]
    close = np.full(n, end, np.int64)
    changed = True
    while changed:
        changed = False
        for op in by_time:
            at = close[op]
            after, before = shop.after[op], shop.before[op]
            at = min(at, (close[after] if after < n else end) - shop.duration[op])
            if after == n and behind[op] < n:
                at = min(at, close[behind[op]] - shop.duration[op])
            if before < n and behind[before] < n:
                at = min(at, close[behind[before]])
            if at < close[op]:
                close[op] = at
                changed = True
    return close


@njit(cache=True, nogil=True)
def _members(orders: Orders, counts: Ints) -> Ints:
    """All operations that are in."""
    members = np.empty(counts.sum(), np.int64)
    n = 0
    for machine in range(len(counts)):
        members[n : n + counts[machine]] = orders[machine, : counts[machine]]
        n += counts[machine]
    return members


@njit(cache=True, nogil=True)
def build(shop: Shop, order: Ints, firsts: Ints) -> Ints:
    """Start times when the jobs are put in in this order; `firsts` has the first operation of each."""
    n, n_machines = len(shop.job) - 1, shop.machine.max() + 1
    start = np.zeros(n, np.int64)
    orders, counts = np.zeros((n_machines, n + 1), np.int64), np.zeros(n_machines, np.int64)
    enter, came = np.zeros((n, n + 1), np.int64), np.zeros((n, n + 1), np.int64)
    for job in order:
        put_in(shop, firsts[job], 0, start, start, orders, counts, enter, came)
    earliest(shop, start, orders, counts, _NEVER)
    return start


@njit(cache=True, nogil=True)
def machine_orders(shop: Shop, start: Ints) -> tuple[Orders, Ints]:
    """Operations of each machine by time, and how many; of those that start together, the empty ones first, along their jobs."""
    n, n_machines = len(start), shop.machine.max() + 1
    orders, counts = np.zeros((n_machines, n + 1), np.int64), np.zeros(n_machines, np.int64)
    for op in range(n):
        machine = shop.machine[op]
        i = counts[machine]
        while i > 0 and (start[op], leave(shop, start, op)) < (start[orders[machine, i - 1]], leave(shop, start, orders[machine, i - 1])):
            orders[machine, i] = orders[machine, i - 1]
            i -= 1
        orders[machine, i] = op
        counts[machine] += 1
    return orders, counts


@njit(cache=True, nogil=True)
def iterate(
    shop: Shop, begin: Ints, firsts: Ints, rounds: int, hot: float, cold: float, most: int, target: int, state: Ints
) -> tuple[Ints, Ints, int]:
    """Take jobs out and put them back, `rounds` times: the last start times, the best ones, and their makespan.

    Parameters
    ----------
    begin : array (operations,)
        Start times to begin with.
    firsts : array (jobs,)
        First operation of each job.
    hot, cold : float
        How much longer than the present a schedule may be to replace it one time in e, as a share, at the first and at the last round.
    most : int
        Jobs taken out at once, at most.
    target : int
        Makespan at which to stop.
    state : array (1,)
        Generator.
    """
    n, n_jobs = len(begin), len(firsts)
    start = begin.copy()
    orders, counts = machine_orders(shop, start)
    enter, came = np.zeros((n, n + 1), np.int64), np.zeros((n, n + 1), np.int64)
    now = earliest(shop, start, orders, counts, _NEVER)
    best, best_start = now, start.copy()
    old_start, old_orders, old_counts = start.copy(), orders.copy(), counts.copy()
    chosen = np.arange(n_jobs)
    for done in range(rounds):
        if best <= target:
            break
        heat = hot + (cold - hot) * done / rounds
        cap = now + int(3 * heat * now)  # what is longer would hardly be taken
        k = 1 + draw(state, min(most, n_jobs))
        for i in range(k):
            j = i + draw(state, n_jobs - i)
            chosen[i], chosen[j] = chosen[j], chosen[i]
            take_out(shop, firsts[chosen[i]], orders, counts)
        value = earliest(shop, start, orders, counts, _NEVER)
        for i in range(k):
            release = draw(state, now) if draw(state, 4) == 0 else 0  # later than need be, another gap may turn out better
            close = latest(shop, start, orders, counts, max(value, cap))
            share = draw(state, 5)
            for op in range(n):
                close[op] = start[op] + (close[op] - start[op]) * share // 4
            put_in(shop, firsts[chosen[i]], release, start, close, orders, counts, enter, came)
            value = earliest(shop, start, orders, counts, cap)
            if value > cap:
                break
        if value <= now or (value <= cap and draw(state, 1 << 30) < (1 << 30) * math.exp((now - value) / (heat * now))):
            now = value
            old_start[:], old_orders[:], old_counts[:] = start, orders, counts
            if now < best:
                best = now
                best_start[:] = start
        else:
            start[:], orders[:], counts[:] = old_start, old_orders, old_counts
    return start, best_start, best
