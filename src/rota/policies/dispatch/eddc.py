"""EDDC (Discovering Heuristics with Large Language Models for Mixed-Integer Programs, 2025): shortest first, then jobs move forward by due date.

The paper prints it with a due-date order at the start, from which no job would ever move; its results come from the shortest-first start here.
"""

from __future__ import annotations

import numpy as np

from rota.jit import njit
from rota.policies.dispatch.sequencing import Ints


def eddc(p: Ints, d: Ints) -> Ints:
    """The order, shape (jobs,): each job in turn passes those before it that are due later, where these would still not be late."""
    order = np.lexsort((d, p)).astype(np.int64)
    _pass_forward(order, np.asarray(p, np.int64), np.asarray(d, np.int64))
    return order


@njit(cache=True)
def _pass_forward(order: Ints, p: Ints, d: Ints) -> None:
    ends = np.cumsum(p[order])  # completion at each position
    for i in range(1, len(order)):
        j = i
        while j > 0 and d[order[j]] < d[order[j - 1]]:
            ahead, job = order[j - 1], order[j]
            if d[ahead] > ends[j - 1]:
                order[j - 1], order[j] = job, ahead
                ends[j - 1] += p[job] - p[ahead]
            j -= 1
