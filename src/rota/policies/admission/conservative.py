"""Conservative admission: there must be room for everybody's longest output, so that (without overcommitment) nobody is ever evicted."""

from __future__ import annotations

import math

from rota.contracts.serving import H_MAX_NEW
from rota.errors import InputError
from rota.policies.admission.peak import Forecast, Ints
from rota.policies.batching.policy import flag


class Conservative(Forecast):
    """Admission by the declared limit on output tokens.

    Parameters
    ----------
    overcommit : float
        How many times the memory may be promised.
    peak : bool
        Count what all would hold at the worst moment, not the sum of what each will hold at its end.
    """

    def __init__(self, *, overcommit: float = 1.0, peak: bool = False) -> None:
        if isinstance(overcommit, bool) or not isinstance(overcommit, int | float) or not 0 < overcommit < math.inf:
            raise InputError(f"overcommit must be a positive number, not {overcommit!r}; 1 promises the memory once")
        super().__init__(float(overcommit))
        self.peak = flag("peak", peak)

    def outputs(self, table: Ints) -> Ints:
        """As long as allowed."""
        return table[None, :, H_MAX_NEW]
