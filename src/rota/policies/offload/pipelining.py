"""Asymmetric pipelining as NEO does it: which host decodes go into which of two sub-batches, and what that would bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rota.contracts.offload import SplitCosts
from rota.contracts.serving import SeqView


class Division(NamedTuple):
    """Host decodes of the first and the second sub-batch; seconds of a layer, in which the device never waits; host seconds left in both."""

    first: list[int]
    second: list[int]
    seconds: float
    left: tuple[float, float]

    @property
    def host(self) -> int:
        return len(self.first) + len(self.second)


def divide(host: Sequence[SeqView], tokens: int, attention: float, costs: SplitCosts) -> Division:
    """Fill both sub-batches with as many host decodes as the host attends for without the device waiting.

    Each goes where more of the host's time is left; one for which there is not enough is passed over, and so are longer ones.

    Parameters
    ----------
    host : sequence of SeqView
        Host decodes, first to be served first.
    tokens : int
        Of prompts and device decodes, all in the first sub-batch.
    attention : float
        Their attention on the device, seconds of a layer.
    costs : SplitCosts
    """
    batches: tuple[list[int], list[int]] = ([], [])
    context = [0, 0]
    linear = [costs.linear(tokens), 0.0]
    left = [attention, linear[0]]
    refused = float("inf")
    for seq in host:
        known = seq.n_known
        if known >= refused:
            continue
        j = 0 if left[0] > left[1] else 1
        size = (tokens if j == 0 else 0) + len(batches[j]) + 1
        own = costs.linear(size)
        while_own = linear[1 - j] + (attention if j == 0 else 0.0) - costs.host(len(batches[j]) + 1, context[j] + known)
        while_other = left[1 - j] + own - linear[j]
        if while_own < 0 or while_other < 0:
            refused = known
            continue
        batches[j].append(seq.sid)
        context[j] += known
        linear[j] = own
        left[j], left[1 - j] = while_own, while_other
    return Division(batches[0], batches[1], linear[0] + linear[1] + attention, (left[0], left[1]))
