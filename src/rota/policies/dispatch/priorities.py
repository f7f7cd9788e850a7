"""Priorities of operations in a job shop: the classical rules, each a number per operation of which the smallest goes first.

FIFO, SPT and LPT (first in first out, shortest and longest processing time), MWKR and LWKR (most and least work remaining, the operation
itself included), MOR and LOR (most and least operations remaining).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rota.errors import InputError
from rota.policies.dispatch.sequencing import Floats, Ints


def remaining(values: Ints, job: Ints) -> Ints:
    """For each operation, the sum of `values` from it to the end of its job; both of shape (operations,), job by job."""
    sums = np.cumsum(values)
    last = np.flatnonzero(np.append(job[1:] != job[:-1], True))
    left: Ints = sums[last][np.cumsum(np.append(0, job[1:] != job[:-1]))] - sums + values
    return left


#: By name: priorities, shape (operations,), from durations and jobs. FIFO goes by arrival, which no number that is known beforehand says.
PRIORITIES: dict[str, Callable[[Ints, Ints], Ints]] = {
    "FIFO": lambda duration, job: np.zeros_like(duration),
    "SPT": lambda duration, job: duration,
    "LPT": lambda duration, job: -duration,
    "MWKR": lambda duration, job: -remaining(duration, job),
    "LWKR": remaining,
    "MOR": lambda duration, job: -remaining(np.ones_like(duration), job),
    "LOR": lambda duration, job: remaining(np.ones_like(duration), job),
}


def priorities(rule: str, duration: Ints, job: Ints) -> Floats:
    """The rule's numbers, shape (operations,), as floats, so that noise can be added.

    Raises
    ------
    InputError
        If there is no such rule.
    """
    if rule not in PRIORITIES:
        raise InputError(f"unknown dispatch rule {rule!r}; choose from {', '.join(PRIORITIES)}")
    return PRIORITIES[rule](np.asarray(duration, np.int64), np.asarray(job, np.int64)).astype(np.float64)
