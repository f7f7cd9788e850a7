"""The latest goes first: by arrival, as in vLLM v0 and Sarathi-Serve, or by admission, as in vLLM v1."""

from __future__ import annotations

from collections.abc import Sequence

from rota.contracts.serving import SeqView
from rota.policies.batching.recompute import earliest_first


class LatestArrival:
    """Evict who arrived last."""

    def rank(self, running: Sequence[SeqView]) -> Sequence[SeqView]:
        """Earliest arrival first."""
        return earliest_first(running)


class LatestAdmitted:
    """Evict who was admitted last."""

    def rank(self, running: Sequence[SeqView]) -> Sequence[SeqView]:
        """The engine's list is in order of admission."""
        return running
