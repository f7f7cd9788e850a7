"""MDDC (Discovering Heuristics with Large Language Models for Mixed-Integer Programs, 2025): MDD with penalties for long jobs.

The paper's text starts from the shortest-job order, its experiments from the due-date order; that only decides ties.
"""

from __future__ import annotations

import numpy as np

from rota.policies.dispatch.sequencing import Ints, smallest


def mddc(now: int, p: Ints, d: Ints) -> int:
    """The job with the smallest mu (1 + theta) + sigma.

    Here mu is MDD with durations 10% longer, theta = rho^2 / (1 + rho^2) where rho is the job's duration over the time until which the
    longest waiting job would run, and sigma is the duration over that of the mean one.
    """
    share = np.minimum(1.0, p / max(now + p.max(), 1))
    penalty = share**2 / (1 + share**2)
    return smallest(np.maximum(1.1 * p + now, d) * (1 + penalty) + p / max(now + p.mean(), 1e-9), d, p)
