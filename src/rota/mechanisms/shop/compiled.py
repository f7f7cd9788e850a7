"""The shop simulator compiled, for job shops with or without blocking and rules that are numbers: the same runs, hundreds of times as fast."""

from __future__ import annotations

import heapq
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.contracts.dispatch import NumberedRule
from rota.jit import njit
from rota.mechanisms.shop.plant import Plant

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Columns(NamedTuple):
    """A job shop as arrays, operations job by job.

    Attributes
    ----------
    task : array (operations,)
        Number of the task.
    first : array (jobs + 1,)
        Operations of job j are first[j] to first[j + 1].
    machine, expected, actual : array (operations,)
    arrival : array (jobs,)
    due : float array (jobs,)
    down_first, down : array (machines + 1,), array (breakdowns, 2)
    blocking : bool
    restarts : bool
        Interrupted work begins anew.
    """

    task: Ints
    first: Ints
    machine: Ints
    expected: Ints
    actual: Ints
    arrival: Ints
    due: Floats
    down_first: Ints
    down: Ints
    blocking: bool
    restarts: bool


def columns(plant: Plant) -> Columns | None:
    """The plant as arrays; None if it is not a job shop with one machine per operation, all of it blocking with swaps or none of it."""
    if any(units != 1 for units in plant.capacity) or any(len(ways) != 1 or len(ways[0].uses) != 1 for ways in plant.ways):
        return None
    last = -1
    holds = set()
    for tasks in plant.job_tasks:
        if plant.before[tasks[0]] or tasks[0] < last:
            return None
        for a, b in pairwise(tasks):
            if [tuple(p) for p in plant.before[b]] != [(a, 0, {})] or b < a:
                return None
            use = plant.ways[a][0].uses[0]
            if use.until not in (-1, b) or (use.until == b and use.at_end):
                return None
            holds.add(use.until == b)
        last = tasks[-1]
        if plant.ways[last][0].uses[0].until != -1:
            return None
    if len(holds) > 1 or (holds == {True} and not plant.problem.swap):
        return None
    ops = [t for tasks in plant.job_tasks for t in tasks]
    ways = [plant.ways[t][0] for t in ops]
    return Columns(
        np.array(ops, np.int64),
        np.cumsum([0, *(len(tasks) for tasks in plant.job_tasks)]).astype(np.int64),
        np.array([way.uses[0].resource for way in ways], np.int64),
        np.array([way.expected for way in ways], np.int64),
        np.array([way.actual for way in ways], np.int64),
        np.array(plant.arrival, np.int64),
        np.array([np.inf if due is None else due for due in plant.due], np.float64),
        np.cumsum([0, *map(len, plant.down)]).astype(np.int64),
        np.array([stretch for down in plant.down for stretch in down], np.int64).reshape(-1, 2),
        holds == {True},
        plant.restarts,
    )


def run_columns(shop: Columns, rule: NumberedRule) -> tuple[Ints, Ints, int]:
    """Starts and ends, shape (operations,), and the number of rotations."""
    sizes = np.diff(shop.first)
    job = np.repeat(np.arange(len(sizes)), sizes)
    number = rule.numbers(shop.expected, job, shop.due[job]).astype(np.float64)
    parts = (shop.first, shop.machine, shop.actual, number, rule.by_arrival, shop.arrival, shop.down_first, shop.down, shop.restarts)
    if not shop.blocking:
        start, end = _plain(*parts)
        return start, end, 0
    start, end, rotations = _blocking(*parts, rule.most_inside or len(sizes))
    return start, end, int(rotations)


@njit(cache=True, nogil=True)
def _until(down_first: Ints, down: Ints, at: Ints, machine: int, now: int) -> int:
    """When the machine is up again; -1 if it is up. `at` remembers how far its breakdowns have passed."""
    while at[machine] < down_first[machine + 1] and down[at[machine], 1] <= now:
        at[machine] += 1
    k = at[machine]
    return int(down[k, 1]) if k < down_first[machine + 1] and down[k, 0] <= now else -1


@njit(cache=True, nogil=True)
def _end(down_first: Ints, down: Ints, restarts: bool, at: Ints, machine: int, now: int, work: int) -> int:
    """When work that starts now, while the machine is up, is done."""
    end = now + work
    k = at[machine]
    while work > 0 and k < down_first[machine + 1] and down[k, 0] < end:
        end = down[k, 1] + work if restarts else end + down[k, 1] - down[k, 0]
        k += 1
    return int(end)


@njit(cache=True, nogil=True)
def _plain(
    first: Ints, machine: Ints, actual: Ints, number: Floats, by_arrival: bool, arrival: Ints, down_first: Ints, down: Ints, restarts: bool
) -> tuple[Ints, Ints]:
    """Operations wait for their machine in a heap of (number, operation)."""
    n, jobs, machines = len(machine), len(arrival), len(down_first) - 1
    start, end = np.empty(n, np.int64), np.empty(n, np.int64)
    job = np.empty(n, np.int64)
    waiting = [[(0.0, 0) for _ in range(0)] for _ in range(machines)]
    busy = np.zeros(machines, np.bool_)
    at = down_first[:-1].copy()
    look, looking, n_look = np.empty(machines, np.int64), np.zeros(machines, np.bool_), 0
    events = [(0, 0) for _ in range(0)]  # (time, operation that ends), or n + job that arrives, or n + jobs + machine that comes up
    for j in range(jobs):
        job[first[j] : first[j + 1]] = j
        events.append((arrival[j], n + j))
    heapq.heapify(events)
    while len(events) > 0:
        now = events[0][0]
        n_look = 0
        while len(events) > 0 and events[0][0] == now:
            code = heapq.heappop(events)[1]
            m, op = -1, -1
            if code < n:
                m = machine[code]
                busy[m] = False
                if code + 1 < first[job[code] + 1]:
                    op = code + 1
            elif code < n + jobs:
                op = first[code - n]
            else:
                m = code - n - jobs
            if op >= 0:
                heapq.heappush(waiting[machine[op]], (number[op] + (now if by_arrival else 0), op))
                if not looking[machine[op]]:
                    looking[machine[op]] = True
                    look[n_look] = machine[op]
                    n_look += 1
            if m >= 0 and not looking[m]:
                looking[m] = True
                look[n_look] = m
                n_look += 1
        for i in range(n_look):
            m = look[i]
            looking[m] = False
            if busy[m] or len(waiting[m]) == 0:
                continue
            up = _until(down_first, down, at, m, now)
            if up >= 0:
                heapq.heappush(events, (up, n + jobs + m))
                continue
            op = heapq.heappop(waiting[m])[1]
            start[op], end[op] = now, _end(down_first, down, restarts, at, m, now, actual[op])
            busy[m] = True
            heapq.heappush(events, (end[op], op))
    return start, end


@njit(cache=True, nogil=True)
def _blocking(
    first: Ints, machine: Ints, actual: Ints, number: Floats, by_arrival: bool, arrival: Ints, down_first: Ints, down: Ints, restarts: bool,
    most_inside: int,
) -> tuple[Ints, Ints, int]:  # fmt: skip
    """Jobs keep their machine until they move on; who waits is looked for among all jobs at every move."""
    n, jobs, machines = len(machine), len(arrival), len(down_first) - 1
    start, end = np.empty(n, np.int64), np.empty(n, np.int64)
    holder = np.full(machines, -1, np.int64)
    here = np.full(jobs, -1, np.int64)  # machine that the job holds
    want = first[:-1].copy()  # its next operation
    waits = np.zeros(jobs, np.bool_)
    since = np.zeros(jobs, np.int64)
    at = down_first[:-1].copy()
    up_at = np.full(machines, -1, np.int64)  # when a machine that is down comes up
    seen, stamp, rotations, inside = np.zeros(jobs, np.int64), 0, 0, 0
    events = [(arrival[j], j) for j in range(jobs)]  # (time, job that arrives or whose work ends), or jobs + machine that comes up
    heapq.heapify(events)
    while len(events) > 0:
        now = events[0][0]
        while len(events) > 0 and events[0][0] == now:
            code = heapq.heappop(events)[1]
            if code >= jobs:
                continue
            if want[code] == first[code + 1]:
                holder[here[code]] = -1
                here[code] = -1
                inside -= 1
            else:
                waits[code], since[code] = True, now
        for m in range(machines):
            up = _until(down_first, down, at, m, now)
            if up > up_at[m]:
                heapq.heappush(events, (up, jobs + m))
            up_at[m] = up
        while True:
            best, value = -1, np.inf
            for j in range(jobs):
                if not waits[j] or (here[j] < 0 and inside >= most_inside):
                    continue
                m = machine[want[j]]
                if up_at[m] >= 0 or (holder[m] >= 0 and holder[m] != j) or (here[j] >= 0 and up_at[here[j]] >= 0):
                    continue
                this = number[want[j]] + (since[j] if by_arrival else 0)
                if best < 0 or this < value:
                    best, value = j, this
            if best >= 0:
                if here[best] >= 0:
                    holder[here[best]] = -1
                last = best
            else:
                last = _on_ring(machine, want, waits, here, holder, up_at, seen, stamp)
                stamp += jobs
                if last < 0:
                    break
                rotations += 1
                best = last
            j = best
            while True:  # along the ring, or once
                m = machine[want[j]]
                behind = holder[m]
                op = want[j]
                inside += here[j] < 0
                start[op], end[op] = now, _end(down_first, down, restarts, at, m, now, actual[op])
                holder[m], here[j], waits[j] = j, m, False
                want[j] += 1
                heapq.heappush(events, (end[op], j))
                if behind < 0 or behind == best:
                    break
                j = behind
    return start, end, rotations


@njit(cache=True, nogil=True)
def _on_ring(machine: Ints, want: Ints, waits: Ints, here: Ints, holder: Ints, up_at: Ints, seen: Ints, stamp: int) -> int:
    """A blocked job on a ring of blocked jobs whose machines are all up; -1 if there is none. Marks of earlier calls are at most `stamp`."""
    jobs = len(want)
    for root in range(jobs):
        mark = stamp + root + 1
        j = root
        while waits[j] and here[j] >= 0 and up_at[here[j]] < 0:
            if seen[j] == mark:
                return int(j)
            if seen[j] > stamp:
                break
            seen[j] = mark
            j = holder[machine[want[j]]]
            if j < 0:
                break
    return -1
