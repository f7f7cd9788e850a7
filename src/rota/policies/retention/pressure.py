"""Keep KV until the memory is wanted, or until nothing else could run: no times, no statistics."""

from __future__ import annotations

import math

from rota.contracts.serving import Limits, SeqView


class UntilPressure:
    """Keep every turn's KV until the first in the queue, or a running sequence, needs the memory.

    Parameters
    ----------
    deadlock_only : bool
        Let the queue wait as long as anything runs ("forever").
    """

    def __init__(self, *, deadlock_only: bool = False) -> None:
        self.yields = not deadlock_only

    def start(self, limits: Limits) -> None:
        """Nothing to forget."""

    def arrived(self, seq: SeqView) -> None:
        """Nothing to learn."""

    def admitted(self, seq: SeqView, reused: int, now: float) -> None:
        """Nothing to learn."""

    def finished(self, seq: SeqView) -> float:
        """Without end."""
        return math.inf
