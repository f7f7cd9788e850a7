"""Asymmetric pipelining as NEO does it: which host decodes go into which of two sub-batches, and what that would bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.contracts.offload import SplitCosts
from rota.jit import njit


class Division(NamedTuple):
    """Host decodes of the first and the second sub-batch; seconds of a layer, in which the device never waits; host seconds left in both."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    seconds: float
    left: tuple[float, float]

    @property
    def host(self) -> int:
        return len(self.first) + len(self.second)


def divide(host: Sequence[int], contexts: NDArray[np.int64], tokens: int, attention: float, costs: SplitCosts) -> Division:
    """Fill both sub-batches with as many host decodes as the host attends for without the device waiting.

    Each goes where more of the host's time is left; one for which there is not enough is passed over, and so are longer ones.

    Parameters
    ----------
    host : sequence of int
        Host decodes, first to be served first.
    contexts : int64 array
        Theirs, tokens.
    tokens : int
        Of prompts and device decodes, all in the first sub-batch.
    attention : float
        Their attention on the device, seconds of a layer.
    costs : SplitCosts
    """
    call, per_sequence, per_token = costs.host_terms
    place, seconds, left, other = _fill(contexts, tokens, attention, costs.linear_table, call, per_sequence, per_token)
    first, second = (tuple(host[i] for i in np.flatnonzero(place == j).tolist()) for j in (0, 1))
    return Division(first, second, seconds + attention, (left, other))


@njit(cache=True)
def _fill(contexts, tokens, attention, table, call, per_sequence, per_token):  # type: ignore[no-untyped-def]
    """(sub-batch of each host decode or -1, seconds of both linear layers, host seconds left in the first and in the second)."""
    place = np.full(contexts.size, -1, np.int64)
    size = np.array([tokens, 0])
    linear = np.array([_lookup(table, tokens), 0.0])
    busy = np.zeros(2)
    window = np.array([attention, linear[0]])  # while a sub-batch is attended for, the other's linear layer runs
    refused = np.iinfo(np.int64).max
    for i in range(contexts.size):
        if contexts[i] >= refused:
            continue
        j = 0 if window[0] - busy[0] > window[1] - busy[1] else 1
        own = busy[j] + per_sequence + per_token * contexts[i] + (call if busy[j] == 0.0 else 0.0)
        grown = _lookup(table, size[j] + 1) - linear[j]
        if own > window[j] or busy[1 - j] > window[1 - j] + grown:
            refused = contexts[i]
            continue
        place[i] = j
        busy[j] = own
        size[j] += 1
        linear[j] += grown
        window[1 - j] += grown
    return place, linear[0] + linear[1], window[0] - busy[0], window[1] - busy[1]


@njit(cache=True)
def _lookup(table, n):  # type: ignore[no-untyped-def]
    last = table.size - 1
    return table[n] if n <= last else table[last] + (n - last) * (table[last] - table[last - 1])
