"""Aggressive admission: whatever fits into memory as it is used now, less a watermark. What is still to be generated is ignored.

The rule of vLLM v0 and Sarathi-Serve; evictions correct it when it was too bold.
"""

from __future__ import annotations

import math

from rota.contracts.serving import EngineView, Limits, SeqView
from rota.policies.batching.policy import share


class Aggressive:
    """Admit while a share of the KV blocks stays free.

    Parameters
    ----------
    watermark : float
        That share.
    """

    learns = False
    again = math.inf

    def __init__(self, watermark: float = 0.01) -> None:
        self.watermark = share("watermark", watermark)
        self.spare = 0

    def start(self, limits: Limits) -> None:
        """Take over an engine's limits."""
        self.spare = int(self.watermark * limits.blocks)

    def begin(self, view: EngineView) -> None:
        """Nothing to look at."""

    def admits(self, seq: SeqView, free: int) -> bool:
        """Whether the watermark stays free."""
        return free >= self.spare

    def finished(self, seq: SeqView) -> None:
        """Nothing to learn."""
