"""The disjunctive graph of a job shop in arrays: machine orders, heads and tails, and moves of an operation along its machine.

Operations are numbered job by job; number N (the count of operations) stands for "none" and has duration, head and tail 0. A solution is one
linear order of all operations that is consistent with jobs and machines (`line`); the machine orders follow from it. `head` is the earliest
start; `tail` the longest way from an operation's start to the end, its own duration included, so that head + tail is the length of the
longest path through it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.jit import njit

Ints = NDArray[np.int64]


class Shop(NamedTuple):
    """A job shop as columns, each with one entry per operation and one for "none".

    Attributes
    ----------
    duration, machine, job : array (operations + 1,)
    before, after : array (operations + 1,)
        Previous and next operation of the same job.
    """

    duration: Ints
    machine: Ints
    job: Ints
    before: Ints
    after: Ints


class Graph(NamedTuple):
    """A solution and what follows from it; all arrays are changed in place by moves.

    Attributes
    ----------
    line, place : array (operations,), array (operations + 1,)
        The linear order, and where each operation is in it.
    prev, next : array (operations + 1,)
        Neighbours on the machine.
    head, tail : array (operations + 1,)
    """

    line: Ints
    place: Ints
    prev: Ints
    next: Ints
    head: Ints
    tail: Ints


def job_shop(ops: list[list[tuple[int, int]]]) -> Shop:
    """Columns of a job shop given as `ops[job] = [(machine, duration), ...]`."""
    flat = [(machine, duration, j) for j, job in enumerate(ops) for machine, duration in job]
    n = len(flat)
    machine = np.array([m for m, _, _ in flat] + [-1], np.int64)
    duration = np.array([d for _, d, _ in flat] + [0], np.int64)
    job = np.array([j for _, _, j in flat] + [-1], np.int64)
    before, after = np.full(n + 1, n, np.int64), np.full(n + 1, n, np.int64)
    inside = np.flatnonzero(job[1:n] == job[: n - 1])
    before[inside + 1] = inside
    after[inside] = inside + 1
    return Shop(duration, machine, job, before, after)


@njit(cache=True, nogil=True)
def graph(shop: Shop, line: Ints) -> Graph:
    """The solution with that linear order."""
    n = len(line)
    none = np.full(n + 1, n, np.int64)
    found = Graph(line.copy(), np.zeros(n + 1, np.int64), none, none.copy(), np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64))
    last = np.full(shop.machine.max() + 1, n, np.int64)
    for at in range(n):
        op = line[at]
        found.place[op] = at
        before = last[shop.machine[op]]
        found.prev[op] = before
        if before < n:
            found.next[before] = op
        last[shop.machine[op]] = op
    heads(shop, found, 0)
    tails(shop, found, n - 1)
    return found


@njit(cache=True, nogil=True)
def heads(shop: Shop, g: Graph, begin: int) -> None:
    """Heads anew, from place `begin` of the line on."""
    duration, head = shop.duration, g.head
    for at in range(begin, len(g.line)):
        op = g.line[at]
        a, b = shop.before[op], g.prev[op]
        head[op] = max(head[a] + duration[a], head[b] + duration[b])


@njit(cache=True, nogil=True)
def tails(shop: Shop, g: Graph, end: int) -> None:
    """Tails anew, from place `end` of the line backwards."""
    tail = g.tail
    for at in range(end, -1, -1):
        op = g.line[at]
        tail[op] = shop.duration[op] + max(tail[shop.after[op]], tail[g.next[op]])


@njit(cache=True, nogil=True)
def makespan(g: Graph) -> int:
    """Length of the schedule."""
    longest = 0
    for op in range(len(g.line)):
        if g.tail[op] > longest:
            longest = g.tail[op]
    return longest


@njit(cache=True, nogil=True)
def may_follow(shop: Shop, g: Graph, u: int, v: int) -> bool:
    """Whether `u` can go right after `v`, later on its machine; a no may be wrong, a yes is not.

    A cycle would need a path from u's successor in the job to v, which would make that successor's tail longer by at least its duration.
    """
    after = shop.after[u]
    return bool(after != v and g.tail[after] - shop.duration[after] < g.tail[v])


@njit(cache=True, nogil=True)
def may_precede(shop: Shop, g: Graph, v: int, u: int) -> bool:
    """Whether `v` can go right before `u`, earlier on its machine; a no may be wrong, a yes is not."""
    before = shop.before[v]
    return bool(before != u and (before == len(g.line) or g.head[before] < g.head[u] + shop.duration[u]))


@njit(cache=True, nogil=True)
def estimate_after(shop: Shop, g: Graph, u: int, v: int, trial: Ints) -> int:
    """Longest path through the operations from `u` to `v` once `u` is right after `v`, as Balas and Vazacopoulos (1998) estimate it.

    Exact where no other head or tail that counts changes. `trial` is scratch, at least as long as the machine's order.
    """
    duration, head, tail, before, after = shop.duration, g.head, g.tail, shop.before, shop.after
    free = head[g.prev[u]] + duration[g.prev[u]]
    n, op = 0, g.next[u]
    while True:
        start = max(free, head[before[op]] + duration[before[op]])
        trial[n] = start
        n += 1
        free = start + duration[op]
        if op == v:
            break
        op = g.next[op]
    rest = duration[u] + max(tail[after[u]], tail[g.next[v]])
    longest = max(free, head[before[u]] + duration[before[u]]) + rest
    while n > 0:
        rest = duration[op] + max(rest, tail[after[op]])
        n -= 1
        longest = max(longest, trial[n] + rest)
        op = g.prev[op]
    return int(longest)


@njit(cache=True, nogil=True)
def estimate_before(shop: Shop, g: Graph, v: int, u: int, trial: Ints) -> int:
    """The same once `v` is right before `u`."""
    duration, head, tail, before, after = shop.duration, g.head, g.tail, shop.before, shop.after
    rest = tail[g.next[v]]
    n, op = 0, g.prev[v]
    while True:
        rest = duration[op] + max(rest, tail[after[op]])
        trial[n] = rest
        n += 1
        if op == u:
            break
        op = g.prev[op]
    start = max(head[before[v]] + duration[before[v]], head[g.prev[u]] + duration[g.prev[u]])
    longest = start + duration[v] + max(rest, tail[after[v]])
    free = start + duration[v]
    while n > 0:
        start = max(free, head[before[op]] + duration[before[op]])
        n -= 1
        longest = max(longest, start + trial[n])
        free = start + duration[op]
        op = g.next[op]
    return int(longest)


@njit(cache=True, nogil=True)
def move_after(shop: Shop, g: Graph, u: int, v: int, moved: Ints) -> None:
    """Put `u` right after `v`, a later operation of its machine; `moved` is scratch of the line's length.

    Between the two in the line, what depends on `u` goes behind it and the rest in front.
    """
    none = len(g.line)
    _unlink(g, u, none)
    following = g.next[v]
    g.next[v], g.prev[u], g.next[u] = u, v, following
    if following < none:
        g.prev[following] = u
    begin, end = g.place[u], g.place[v]
    to, n = begin, 1
    moved[0] = u
    g.place[u] = none  # marks what goes behind
    for at in range(begin + 1, end + 1):
        op = g.line[at]
        if g.place[shop.before[op]] == none or g.place[g.prev[op]] == none:
            g.place[op] = none
            moved[n] = op
            n += 1
        else:
            g.line[to] = op
            g.place[op] = to
            to += 1
    for i in range(n):
        g.line[to + i] = moved[i]
        g.place[moved[i]] = to + i
    heads(shop, g, begin)
    tails(shop, g, end)


@njit(cache=True, nogil=True)
def move_before(shop: Shop, g: Graph, v: int, u: int, moved: Ints) -> None:
    """Put `v` right before `u`, an earlier operation of its machine."""
    none = len(g.line)
    _unlink(g, v, none)
    leading = g.prev[u]
    g.prev[u], g.next[v], g.prev[v] = v, u, leading
    if leading < none:
        g.next[leading] = v
    begin, end = g.place[u], g.place[v]
    to, n = end, 1
    moved[0] = v
    g.place[v] = none
    for at in range(end - 1, begin - 1, -1):
        op = g.line[at]
        if g.place[shop.after[op]] == none or g.place[g.next[op]] == none:
            g.place[op] = none
            moved[n] = op
            n += 1
        else:
            g.line[to] = op
            g.place[op] = to
            to -= 1
    for i in range(n):
        g.line[to - i] = moved[i]
        g.place[moved[i]] = to - i
    heads(shop, g, begin)
    tails(shop, g, end)


@njit(cache=True, nogil=True)
def _unlink(g: Graph, op: int, none: int) -> None:
    """Take `op` out of its machine's order."""
    before, after = g.prev[op], g.next[op]
    if before < none:
        g.next[before] = after
    if after < none:
        g.prev[after] = before
