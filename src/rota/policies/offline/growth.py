"""How much KV memory running sequences will come to hold together, by what is expected of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rota.contracts.offline import Ints


class Growth(NamedTuple):
    """Tokens still expected of some sequences, ascending, and tokens that each holds now."""

    left: Ints
    held: Ints

    @classmethod
    def of(cls, sequences: Sequence[tuple[int, int]]) -> Growth:
        """From (tokens still expected, tokens held) of each sequence."""
        left, held = np.array(sequences, np.int64).reshape(-1, 2).T
        order = np.argsort(left)
        return cls(left[order], held[order])

    def joined_by(self, left: int, held: int) -> Growth:
        """With one more sequence."""
        at = int(np.searchsorted(self.left, left))
        return Growth(np.insert(self.left, at, left), np.insert(self.held, at, held))


def peak(growth: Growth, block_size: int) -> int:
    """Most blocks that sequences will hold together if each takes a token a step until its expected end, then gives all back.

    The most is held just before one ends: then all that have as much left or more are as long as that makes them.
    """
    n = len(growth.left)
    together = np.cumsum((growth.held + block_size - 1)[::-1])[::-1] + growth.left * np.arange(n, 0, -1)
    return int(together.max(initial=0)) // block_size
