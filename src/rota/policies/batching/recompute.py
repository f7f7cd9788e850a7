"""Making room for decodes by recompute: the loop that Sarathi-Serve, vLLM v0, paged Orca and layered prefill share.

Decodes are served in order of arrival. Each wants one block free before its turn, whether or not it needs one; as long as there
is none, the latest arrival of those behind it is evicted, be it in decode or half-way through its prompt; in the end itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rota.contracts.serving import DECODE, EngineView, SeqView


def by_arrival(seq: SeqView) -> tuple[float, int]:
    """Sort key."""
    return seq.arrival, seq.sid


def earliest_first(running: Sequence[SeqView]) -> Sequence[SeqView]:
    """In order of arrival."""
    return sorted(running, key=by_arrival)


def make_room(
    view: EngineView, rank: Callable[[Sequence[SeqView]], Sequence[SeqView]] = earliest_first
) -> tuple[tuple[int, ...], int, int]:
    """Walk through the decodes in the order that `rank` gives and evict what must go, the last first.

    Returns
    -------
    evicted : tuple of int
        In order of eviction.
    decodes : int
        Sequences that decode in this step.
    free : int
        Blocks free after evictions and the decodes' needs.
    """
    size = view.limits.block_size
    running = rank(view.running)
    free = view.free_blocks
    evicted: list[int] = []
    decodes = 0
    at, end = 0, len(running)
    while at < end:
        seq = running[at]
        at += 1
        if seq.phase != DECODE:
            continue
        while free < 1:
            if at == end:
                free += seq.kv_blocks
                evicted.append(seq.sid)
                break
            end -= 1
            free += running[end].kv_blocks
            evicted.append(running[end].sid)
        else:
            decodes += 1
            if seq.n_computed == seq.kv_blocks * size:
                free -= 1
    return tuple(evicted), decodes, free
