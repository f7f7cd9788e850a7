"""A fixed time to live for all: what Continuum is without its statistics. 0 keeps nothing, and program order is all that is left."""

from __future__ import annotations

import math

from rota.contracts.serving import Limits, SeqView
from rota.errors import InputError


class FixedTtl:
    """Keep every turn's KV for so many seconds, if another turn follows.

    Parameters
    ----------
    seconds : float
    """

    yields = "deadlock"

    def __init__(self, seconds: float = 2.0) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise InputError(f"ttl must be 0 or a positive number of seconds, not {seconds!r}")
        self.seconds = float(seconds)

    def start(self, limits: Limits) -> None:
        """Nothing to forget."""

    def arrived(self, seq: SeqView) -> None:
        """Nothing to learn."""

    def admitted(self, seq: SeqView, reused: int, now: float) -> None:
        """Nothing to learn."""

    def finished(self, seq: SeqView) -> float:
        """The same for all."""
        return self.seconds
