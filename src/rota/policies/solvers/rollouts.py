"""Best of many randomised runs of one dispatch rule: the rule as it is first, then with noise on its priorities.

This is what any rule can do with time on its hands, and the fair baseline of a learned rule that is sampled.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from rota.policies.dispatch.priorities import priorities
from rota.policies.dispatch.sequencing import Ints
from rota.policies.solvers.disjunctive import Shop
from rota.policies.solvers.generation import active, nondelay

#: Largest noise, in standard deviations of the rule's priorities over all operations.
NOISE = 0.5


def rollouts(shop: Shop, rule: str, seed: int = 0, schemes: str = "both") -> Iterator[tuple[Ints, int]]:
    """Endless schedules by `rule`: start times, shape (operations,), and makespan.

    Parameters
    ----------
    rule : str
        See `PRIORITIES`.
    schemes : {"non-delay", "active", "both"}
        How schedules are generated; "both" takes turns.
    """
    rng = np.random.default_rng(seed)
    duration, job = shop.duration[:-1], shop.job[:-1]
    plain = priorities(rule, duration, job)
    scale = plain.std() or duration.std() or 1.0
    generators = {"non-delay": [nondelay], "active": [active], "both": [nondelay, active]}[schemes]
    priority = plain
    while True:
        for generate in generators:
            start = generate(shop, priority, rule == "FIFO")
            yield start, int((start + duration).max())
        priority = plain + rng.uniform(0, NOISE) * scale * rng.standard_normal(len(plain))


def best_of(shop: Shop, rule: str, runs: int, seed: int = 0, wall_s: float = float("inf"), schemes: str = "both") -> tuple[Ints, int]:
    """The best of `runs` rollouts, or of as many as `wall_s` seconds allow: start times and makespan."""
    until = time.perf_counter() + wall_s
    source = rollouts(shop, rule, seed, schemes)
    best = next(source)
    for _ in range(runs - 1):
        if time.perf_counter() > until:
            break
        best = min(best, next(source), key=lambda found: found[1])
    return best
