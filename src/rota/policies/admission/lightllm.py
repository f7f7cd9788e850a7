"""LightLLM's router before Past-Future: the peak of memory under a rule of thumb for output lengths."""

from __future__ import annotations

import numpy as np

from rota.contracts.serving import H_KNOWN, H_MAX_NEW, H_PROMPT, EngineView, Limits
from rota.policies.admission.peak import Forecast, Ints
from rota.policies.batching.policy import share


class LightLLM(Forecast):
    """Admission by a guess: while memory is not in much use, an output ends at 1.1 times what is there, or at 1024 tokens if that is more.

    Parameters
    ----------
    router_token_ratio : float
        Share of memory in use from which on the engine counts as busy, and every output as long as allowed. At 0 it always does.
    """

    def __init__(self, *, router_token_ratio: float = 0.0) -> None:
        super().__init__()
        self.router_token_ratio = share("router_token_ratio", router_token_ratio)

    def start(self, limits: Limits) -> None:
        """A new engine."""
        super().start(limits)
        self._busy = True

    def begin(self, view: EngineView) -> None:
        """See how busy the engine is."""
        blocks = self._limits.blocks
        self._busy = blocks - view.free_blocks >= self.router_token_ratio * blocks
        super().begin(view)

    def outputs(self, table: Ints) -> Ints:
        """The rule of thumb."""
        allowed = table[None, :, H_MAX_NEW]
        if self._busy:
            return allowed
        generated = table[:, H_KNOWN] - table[:, H_PROMPT]
        return np.minimum(allowed, np.maximum((1.1 * generated).astype(np.int64), 1024))
