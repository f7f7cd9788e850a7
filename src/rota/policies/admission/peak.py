"""The most memory that a batch will ever hold, and admission by it: a request joins if, by predicted output lengths, it will always suffice.

Every sequence takes a token per step until it ends, so use rises until an end and falls there: the most is held just before one. With the
sequences sorted by the tokens they have left, longest first, the i-th is the end of those that i outlive or equal:
``M* = max_i (i left_(i) + held_(1) + ... + held_(i))`` [LightLLM's router; Past-Future Scheduler, ASPLOS 2025].
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rota.contracts.serving import DECODE, PREFILL, EngineView, Limits, SeqView

Ints = NDArray[np.int64]


def peak(held: Ints, left: Ints) -> Ints:
    """Most tokens held at any one time until all have ended.

    Parameters
    ----------
    held, left : int64 (..., n)
        Tokens that each sequence holds now, and steps until it ends, each of which adds a token.

    Returns
    -------
    int64 (...,)
        0 where there is no sequence.
    """
    order = np.argsort(-left, axis=-1)
    left = np.take_along_axis(left, order, -1)
    together = np.cumsum(np.take_along_axis(held, order, -1), -1)
    return np.asarray((together + left * np.arange(1, left.shape[-1] + 1)).max(-1, initial=0))


class Forecast:
    """Admission by the peak of memory under predicted output lengths. A subclass predicts them; several at once are several futures.

    Tokens are counted with a block's rounding on top, prompts with the steps that their chunks will take, so that with true lengths
    nothing is ever evicted. Cached prefixes that sequences share count for each of them. Whoever finds the engine empty joins.

    Parameters
    ----------
    scale : float
        Share of the capacity that the peak must stay below; above 1 is overcommitment.
    """

    spare = 0
    learns = True
    again = math.inf

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def outputs(self, sids: Ints, generated: Ints, max_new: Ints) -> Ints:
        """Predicted output lengths of requests with `generated` tokens so far: int64 (futures, n)."""
        raise NotImplementedError

    def demand(self, held: Ints, left: Ints) -> Ints:
        """Memory that must be there, in tokens, by future."""
        return peak(held, left)

    def start(self, limits: Limits) -> None:
        """A new engine: forget everything."""
        self._limits = limits
        self._joined: dict[int, None] = {}  # who holds memory, in order of admission; the view's list leaves out what is in flight

    def begin(self, view: EngineView) -> None:
        """Take stock of who runs."""
        running = [view.seq(sid) for sid in self._joined]
        running = [seq for seq in running if seq.phase in (PREFILL, DECODE)]
        self._joined = {seq.sid: None for seq in running}
        size = self._limits.block_size
        pinned = max(0, self._limits.blocks - view.free_blocks - sum(seq.kv_blocks for seq in running))
        self._room = self.scale * self._limits.blocks * size - pinned * size
        self._prompt = 0
        self._chunk = max(1, self._limits.max_step_tokens - len(running))
        self._held, self._left = self._ahead(running)

    def admits(self, seq: SeqView, free: int) -> bool:
        """Whether the most that this and all others will hold fits. True: it has joined."""
        before = self._prompt
        held, left = self._ahead([seq])
        held, left = np.concatenate([self._held, held], -1), np.concatenate([self._left, left], -1)
        if self._joined and self.demand(held, left).max() >= self._room:
            self._prompt = before
            return False
        self._joined[seq.sid] = None
        self._held, self._left = held, left
        return True

    def finished(self, seq: SeqView) -> None:
        """It holds nothing any more."""
        self._joined.pop(seq.sid, None)

    def _ahead(self, seqs: list[SeqView]) -> tuple[Ints, Ints]:
        """Tokens held and steps left, int64 (futures, n); queues the unfinished prompts behind those before."""
        rows = np.zeros((5, len(seqs)), np.int64)
        for i, seq in enumerate(seqs):
            known = seq.n_known
            ahead = wait = 0
            if seq.phase != DECODE:
                self._prompt += known - seq.n_computed
                wait = -(-self._prompt // self._chunk) - 1
                ahead = 1  # where prompts do not run beside decodes, it gets its first token before they move on
            rows[:, i] = seq.sid, known - seq.n_prompt, seq.max_new, known + ahead, wait
        sids, generated, max_new, held, waits = rows
        outputs = self.outputs(sids, generated, max_new)
        held = np.broadcast_to(held + self._limits.block_size - 1, outputs.shape)
        return held, np.maximum(outputs - generated - 1, 0) + waits
