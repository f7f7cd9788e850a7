"""Keep KV until the memory is wanted, or until nothing else could run: no times, no statistics."""

from __future__ import annotations

import math

from rota.contracts.serving import Limits, SeqView
from rota.errors import InputError


class UntilPressure:
    """Keep every turn's KV until the first in the queue, or a running sequence, needs the memory.

    Parameters
    ----------
    yields : {"anyone", "older", "deadlock"}
        Who in the queue may have it: anyone, programs that began earlier, or nobody as long as anything runs ("forever").
    """

    def __init__(self, yields: str = "older") -> None:
        if yields not in ("anyone", "older", "deadlock"):
            raise InputError(f"yields must be anyone, older or deadlock, not {yields!r}")
        self.yields = yields

    def start(self, limits: Limits) -> None:
        """Nothing to forget."""

    def arrived(self, seq: SeqView) -> None:
        """Nothing to learn."""

    def admitted(self, seq: SeqView, reused: int, now: float) -> None:
        """Nothing to learn."""

    def finished(self, seq: SeqView) -> float:
        """Without end."""
        return math.inf
