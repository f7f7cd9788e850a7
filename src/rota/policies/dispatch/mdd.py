"""Modified due date (Baker and Bertrand 1982): a job that can no longer be in time counts by its earliest completion instead."""

from __future__ import annotations

import numpy as np

from rota.policies.dispatch.sequencing import Ints


def mdd(now: int, p: Ints, d: Ints) -> int:
    """The job with the smallest max(now + p, d); of several, the one given first."""
    return int(np.argmin(np.maximum(now + p, d)))
