"""Schedule generation for job shops: non-delay (no machine waits while it has work) and active (Giffler and Thompson 1960), from priorities.

Of several operations, the one with the smallest priority goes first; ties go to the job with the lowest number.
"""

from __future__ import annotations

import heapq

import numpy as np

from rota.jit import njit
from rota.policies.dispatch.sequencing import Floats, Ints
from rota.policies.solvers.disjunctive import Shop


@njit(cache=True, nogil=True)
def nondelay(shop: Shop, priority: Floats, by_arrival: bool) -> Ints:
    """Start times, shape (operations,), when every free machine takes a waiting job at once.

    Parameters
    ----------
    priority : array (operations,)
    by_arrival : bool
        Add the time at which the job joined the queue (FIFO).
    """
    n, n_jobs, n_machines = len(shop.job) - 1, shop.job.max() + 1, shop.machine.max() + 1
    start = np.empty(n, np.int64)
    current = np.full(n_jobs, n, np.int64)  # operation of each job that waits or runs
    arrived = np.zeros(n_jobs, np.int64)
    first, following = np.full(n_machines, -1, np.int64), np.full(n_jobs, -1, np.int64)  # queues as chains of jobs
    free = np.ones(n_machines, np.bool_)
    look = np.arange(n_machines)  # machines that may have something to start
    looking = np.ones(n_machines, np.bool_)
    n_look = n_machines
    for op in range(n):
        if shop.before[op] == n:
            job, machine = shop.job[op], shop.machine[op]
            current[job] = op
            following[job] = first[machine]
            first[machine] = job
    running = [np.int64(0) for _ in range(0)]  # heap of end * jobs + job
    now = 0
    while True:
        for i in range(n_look):
            machine = look[i]
            looking[machine] = False
            if free[machine] and first[machine] >= 0:
                op = _take(machine, first, following, current, arrived, priority, by_arrival)
                start[op] = now
                free[machine] = False
                heapq.heappush(running, (now + shop.duration[op]) * n_jobs + shop.job[op])
        n_look = 0
        if len(running) == 0:
            return start
        now = running[0] // n_jobs
        while len(running) > 0 and running[0] // n_jobs == now:
            job = heapq.heappop(running) % n_jobs
            machine = shop.machine[current[job]]
            free[machine] = True
            if not looking[machine]:
                looking[machine] = True
                look[n_look] = machine
                n_look += 1
            op = shop.after[current[job]]
            if op == n:
                continue
            machine = shop.machine[op]
            current[job], arrived[job] = op, now
            following[job] = first[machine]
            first[machine] = job
            if not looking[machine]:
                looking[machine] = True
                look[n_look] = machine
                n_look += 1


@njit(cache=True, nogil=True)
def _take(
    machine: int, first: Ints, following: Ints, current: Ints, arrived: Ints, priority: Floats, by_arrival: bool
) -> int:
    """Take the best job out of the machine's queue; its operation."""
    best, best_value, before_best = -1, np.inf, -1
    before, job = -1, first[machine]
    while job >= 0:
        value = priority[current[job]] + (arrived[job] if by_arrival else 0)
        if value < best_value or (value == best_value and job < best):
            best, best_value, before_best = job, value, before
        before, job = job, following[job]
    if before_best < 0:
        first[machine] = following[best]
    else:
        following[before_best] = following[best]
    return int(current[best])


@njit(cache=True, nogil=True)
def active(shop: Shop, priority: Floats, by_arrival: bool) -> Ints:
    """Start times, shape (operations,), of an active schedule: no operation could start earlier without delaying another.

    The machine on which an operation could end first takes the best of those that could start before that end.
    """
    n, n_jobs, n_machines = len(shop.job) - 1, shop.job.max() + 1, shop.machine.max() + 1
    start = np.empty(n, np.int64)
    current = np.full(n_jobs, n, np.int64)
    ready = np.zeros(n_jobs, np.int64)
    free = np.zeros(n_machines, np.int64)
    first, following = np.full(n_machines, -1, np.int64), np.full(n_jobs, -1, np.int64)  # queues as chains of jobs
    ends = [np.int64(0) for _ in range(0)]  # heap of earliest end * jobs + job; an entry may be too early, never too late
    for op in range(n):
        if shop.before[op] == n:
            job = shop.job[op]
            current[job] = op
            following[job] = first[shop.machine[op]]
            first[shop.machine[op]] = job
            heapq.heappush(ends, shop.duration[op] * n_jobs + job)
    while len(ends) > 0:
        earliest = ends[0] % n_jobs
        op = current[earliest]
        if op == n:
            heapq.heappop(ends)
            continue
        machine = shop.machine[op]
        limit = max(ready[earliest], free[machine]) + shop.duration[op]
        if limit > ends[0] // n_jobs:
            heapq.heapreplace(ends, limit * n_jobs + earliest)
            continue
        best, best_value, before_best = -1, np.inf, -1
        before, job = -1, first[machine]
        while job >= 0:
            if max(ready[job], free[machine]) < limit or job == earliest:
                value = priority[current[job]] + (ready[job] if by_arrival else 0)
                if value < best_value or (value == best_value and job < best):
                    best, best_value, before_best = job, value, before
            before, job = job, following[job]
        if before_best < 0:
            first[machine] = following[best]
        else:
            following[before_best] = following[best]
        op = current[best]
        start[op] = max(ready[best], free[machine])
        free[machine] = ready[best] = start[op] + shop.duration[op]
        current[best] = shop.after[op]
        if current[best] < n:
            machine = shop.machine[current[best]]
            following[best] = first[machine]
            first[machine] = best
    return start


def line_of(shop: Shop, start: Ints) -> Ints:
    """The linear order of a schedule's operations: by start, then by end (an empty one goes first), then along the jobs."""
    n = len(start)
    return np.lexsort((np.arange(n), start + shop.duration[:n], start)).astype(np.int64)
