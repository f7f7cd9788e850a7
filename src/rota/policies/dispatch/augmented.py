"""Augmented rules, Aug-X: after every job that rule X appends, the best single move of an earlier job to the end is made if it helps."""

from __future__ import annotations

import numpy as np

from rota.jit import njit
from rota.policies.dispatch.sequencing import Ints, SequencingRule


def augmented(rule: SequencingRule, p: Ints, d: Ints, start: int = 0) -> Ints:
    """The order, shape (jobs,), of `rule` with moves to the end.

    A move changes neither who waits nor the time at which the machine is free, so the rule's choices stay as they were.
    """
    p, d = np.asarray(p, np.int64), np.asarray(d, np.int64)
    waiting = np.arange(len(p))
    order = np.empty(len(p), np.int64)
    now = start
    for position in range(len(p)):
        chosen = rule(now, p[waiting], d[waiting])
        order[position] = waiting[chosen]
        waiting = np.delete(waiting, chosen)
        now += int(p[order[position]])
        _move_to_end(order[: position + 1], p, d, start, now)
    return order


@njit(cache=True)
def _move_to_end(order: Ints, p: Ints, d: Ints, start: int, end: int) -> None:
    """Move the job to the end of `order`, which runs from `start` to `end`, whose move lowers total tardiness most, if any does."""
    best, best_change = -1, 0
    begin = start
    for i in range(len(order)):
        moved = p[order[i]]
        change = max(0, end - d[order[i]]) - max(0, begin + moved - d[order[i]])
        at = begin + moved
        for k in range(i + 1, len(order)):
            job = order[k]
            at += p[job]
            change += max(0, at - moved - d[job]) - max(0, at - d[job])
        if change < best_change:
            best, best_change = i, change
        begin += moved
    if best >= 0:
        job = order[best]
        order[best:-1] = order[best + 1 :].copy()
        order[-1] = job
