"""Panneerselvam's rule (2006): the shortest job, unless a slightly longer one is due before and would otherwise be late."""

from __future__ import annotations

import numpy as np

from rota.jit import njit
from rota.policies.dispatch.sequencing import Ints


def psk(now: int, p: Ints, d: Ints) -> int:
    """Scan the jobs from the shortest on; keep the one due first, until it or the next candidate could not wait."""
    return int(_scan(now, np.lexsort((d, p)), p, d))


@njit(cache=True)
def _scan(now: int, shortest_first: Ints, p: Ints, d: Ints) -> int:
    active = shortest_first[0]
    for job in shortest_first[1:]:
        if now + p[active] >= d[active] or d[active] <= now + p[job]:
            break
        if d[job] < d[active]:
            active = job
    return int(active)
