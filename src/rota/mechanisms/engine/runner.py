"""Where the engine meets what computes: a `Runner` turns the rows of a step into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rota.mechanisms.engine.blocks import Copy
from rota.mechanisms.engine.core import Row
from rota.mechanisms.engine.sequences import Seq


class Choice(NamedTuple):
    """The token that a row emits.

    Attributes
    ----------
    token : int
    logprob : float or None
        Natural logarithm, from the unmodified distribution; None unless the request asks for log-probabilities.
    top : tuple of (int, float)
        The likeliest tokens with theirs, as many as asked for.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Runner(Protocol):
    """Computes steps. Block tables are those of the pool it is given before the first step."""

    n_layers: int
    vocab: int
    #: Longest prompt and answer together.
    max_len: int
    #: Tokens that end an answer.
    end_tokens: frozenset[int]

    def allocate(self, blocks: int, block_size: int) -> None:
        """Make room for the KV of so many blocks."""

    def allocate_host(self, blocks: int) -> None:
        """Make room in host memory for the KV of so many blocks; only asked for where a policy swaps."""

    def copy(self, out: Sequence[Copy], back: Sequence[Copy]) -> None:
        """Copy KV to the host, and then from there, each in order; before what is run next."""

    def run(self, rows: Sequence[Row], tables: NDArray[np.int32]) -> list[Choice]:
        """Compute the rows, and choose a token for each that emits, in order. `tables` are `BlockPool.tables`."""

    def forget(self, seq: Seq) -> None:
        """The sequence has lost its blocks: what is kept of an open chunk is void."""
