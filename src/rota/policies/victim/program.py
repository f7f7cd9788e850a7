"""The program that began last goes first, whatever turn it is in: Continuum's victim, the counterpart of program order."""

from __future__ import annotations

from collections.abc import Sequence

from rota.contracts.serving import SeqView


class LatestProgram:
    """Evict who belongs to the latest program."""

    def rank(self, running: Sequence[SeqView]) -> Sequence[SeqView]:
        """Earliest program first, and of one program the earliest turn."""
        return sorted(running, key=lambda seq: (seq.program_arrival, seq.arrival, seq.sid))
