"""Job-shop tabu search over moves of critical operations (neighbourhoods N6 and N7 of Balas and Vazacopoulos 1998, Zhang et al. 2007).

One search starts from a linear order and ends when it has not improved for `patience` moves. `evolve` keeps a pool of solutions, crosses
two of them at a point between their start times, which is always feasible, and searches from there (in the manner of path relinking; Peng,
Lue and Cheng 2015).
"""

from __future__ import annotations

import numpy as np

from rota.jit import njit
from rota.policies.solvers.disjunctive import (
    Graph,
    Ints,
    Shop,
    estimate_after,
    estimate_before,
    graph,
    makespan,
    may_follow,
    may_precede,
    move_after,
    move_before,
)

_FAR = 2**62
#: Entries of the tabu list, at most.
_TABU = 2**22


@njit(cache=True, nogil=True)
def draw(state: Ints, n: int) -> int:
    """A number in 0 ... n - 1 from the generator `state` (xorshift, one positive entry)."""
    x = state[0]
    x ^= (x << 13) & 0x7FFFFFFFFFFFFFFF
    x ^= x >> 7
    x ^= (x << 17) & 0x7FFFFFFFFFFFFFFF
    state[0] = x
    return int((x >> 11) % n)


@njit(cache=True, nogil=True)
def tabu_search(shop: Shop, line: Ints, patience: int, most: int, target: int, state: Ints) -> tuple[Ints, int, int]:
    """The best linear order found from `line`, its makespan, and the number of moves made.

    Parameters
    ----------
    patience : int
        Moves without improvement after which to stop.
    most : int
        Moves after which to stop anyway.
    target : int
        Makespan at which to stop.
    state : array (1,)
        Generator.
    """
    n = len(line)
    n_jobs, n_machines = shop.job.max() + 1, shop.machine.max() + 1
    g = graph(shop, line)
    best_line, best = g.line.copy(), makespan(g)
    # until when an operation may not go in front of another job's on its machine; places are shared where there are very many
    entries = 1
    while entries < n * n_jobs and entries < _TABU:
        entries *= 2
    tabu = np.zeros(entries, np.int64)
    path, scratch = np.empty(n, np.int64), np.empty(n, np.int64)
    move = np.zeros(3, np.int64)  # operation, anchor, 1 after it or 0 before it
    shortest = 10 + n_jobs // n_machines
    spread = max(1, (2 if n_jobs <= 2 * n_machines else 3) * shortest // 5)
    moves, last = 0, 0
    while best > target and moves - last < patience and moves < most:
        length = critical_path(shop, g, path, state)
        if not choose(shop, g, path, length, tabu, n_jobs, moves, best, move, scratch, state):
            break  # one block, or none with two operations: optimal
        until = moves + shortest + draw(state, spread)
        op, anchor = move[0], move[1]
        if move[2] == 1:
            other = op
            while other != anchor:
                other = g.next[other]
                tabu[(op * n_jobs + shop.job[other]) & (entries - 1)] = until
            move_after(shop, g, op, anchor, scratch)
        else:
            other = op
            while other != anchor:
                other = g.prev[other]
                tabu[(other * n_jobs + shop.job[op]) & (entries - 1)] = until
            move_before(shop, g, op, anchor, scratch)
        moves += 1
        now = makespan(g)
        if now < best:
            best, last = now, moves
            best_line[:] = g.line
    return best_line, best, moves


@njit(cache=True, nogil=True)
def critical_path(shop: Shop, g: Graph, path: Ints, state: Ints) -> int:
    """Write a random longest path to `path`, first operation first; returns how many operations it has."""
    n = len(g.line)
    longest = makespan(g)
    op, ties = n, 0
    for candidate in range(n):
        if g.tail[candidate] == longest and g.head[candidate] == 0 and shop.duration[candidate] > 0:
            ties += 1
            if draw(state, ties) == 0:
                op = candidate
    length = 0
    while op < n:
        path[length] = op
        length += 1
        rest = g.tail[op] - shop.duration[op]
        a, b = shop.after[op], g.next[op]
        if rest == 0:
            break
        follows_job, follows_machine = g.tail[a] == rest, g.tail[b] == rest
        op = b if not follows_job or (follows_machine and draw(state, 2) == 0) else a
    return length


@njit(cache=True, nogil=True)
def choose(
    shop: Shop, g: Graph, path: Ints, length: int, tabu: Ints, n_jobs: int, now: int, best: int, move: Ints, trial: Ints, state: Ints
) -> bool:
    """Write the best move that is not tabu, or that leads below `best`, to `move` (a random one if there is none); whether any exists."""
    least, ties, seen = _FAR, 0, 0
    begin = 0
    while begin < length:
        end = begin
        while end + 1 < length and shop.machine[path[end + 1]] == shop.machine[path[begin]]:
            end += 1
        first, last = path[begin], path[end]
        for i in range(begin, end + 1):
            op = path[i]
            for kind in range(4):
                # towards the rear: behind the last, the first behind this; towards the front: before the first, the last before this
                if kind == 0 and i < end and end + 1 < length:
                    u, v, later = op, last, True
                elif kind == 1 and begin < i < end and begin > 0:
                    u, v, later = first, op, True
                elif kind == 2 and i > begin + 1 and begin > 0:
                    u, v, later = op, first, False
                elif kind == 3 and begin < i < end - 1 and end + 1 < length:
                    u, v, later = last, op, False
                else:
                    continue
                if later:
                    if not may_follow(shop, g, u, v):
                        continue
                    value = estimate_after(shop, g, u, v, trial)
                    forbidden = _tabu_after(shop, g, u, v, tabu, n_jobs, now)
                else:
                    if not may_precede(shop, g, u, v):
                        continue
                    value = estimate_before(shop, g, u, v, trial)
                    forbidden = _tabu_before(shop, g, u, v, tabu, n_jobs, now)
                seen += 1
                if forbidden and value >= best:
                    if least == _FAR and draw(state, seen) == 0:
                        move[0], move[1], move[2] = u, v, int(later)
                    continue
                if value < least:
                    least, ties = value, 1
                elif value == least:
                    ties += 1
                if value == least and draw(state, ties) == 0:
                    move[0], move[1], move[2] = u, v, int(later)
        begin = end + 1
    return seen > 0


@njit(cache=True, nogil=True)
def _tabu_after(shop: Shop, g: Graph, u: int, v: int, tabu: Ints, n_jobs: int, now: int) -> bool:
    """Whether putting `u` behind `v` brings an operation in front of `u` that may not go there yet."""
    op = u
    while op != v:
        op = g.next[op]
        if tabu[(op * n_jobs + shop.job[u]) & (len(tabu) - 1)] > now:
            return True
    return False


@njit(cache=True, nogil=True)
def _tabu_before(shop: Shop, g: Graph, v: int, u: int, tabu: Ints, n_jobs: int, now: int) -> bool:
    """Whether putting `v` before `u` brings it in front of an operation where it may not go yet."""
    op = v
    while op != u:
        op = g.prev[op]
        if tabu[(v * n_jobs + shop.job[op]) & (len(tabu) - 1)] > now:
            return True
    return False
