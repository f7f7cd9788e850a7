"""Admission that knows every output length in advance: the best that any estimate can lead to. Not for real engines."""

from __future__ import annotations

import numpy as np

from rota.contracts.serving import H_SID
from rota.policies.admission.peak import Forecast, Ints


class OracleLengths(Forecast):
    """An oracle: admission by the peak of memory under true output lengths. With nothing else to go wrong it never evicts.

    Parameters
    ----------
    lengths : int64 (n,), optional
        True output tokens by request; may be given later.
    """

    def __init__(self, lengths: Ints | None = None) -> None:
        super().__init__()
        self.lengths = np.zeros(0, np.int64) if lengths is None else lengths

    def outputs(self, table: Ints) -> Ints:
        """The truth."""
        return np.asarray(self.lengths[table[:, H_SID]][None])
