"""Which leading tokens requests share: identities of prefixes, and what a cache that never forgets could reuse."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.workload.trace import Ints, Trace


class Reuse(NamedTuple):
    """Per request, what earlier rows share with it.

    Attributes
    ----------
    runs : int64 (n,)
        Leading hash runs that an earlier row has too.
    latest : int64 (n,)
        The latest earlier row that has all of them; -1 if there are none.
    """

    runs: Ints
    latest: Ints


def ragged(lengths: Ints) -> tuple[Ints, Ints]:
    """Row and position of every element of rows that are `lengths` long, laid end to end."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def identities(hash_ids: Ints, hash_start: Ints) -> NDArray[np.uint64]:
    """A 64-bit identity of every run together with all runs before it in its row."""
    lengths = np.diff(hash_start)
    order = np.argsort(-lengths, kind="stable")
    start, lengths = hash_start[:-1][order], lengths[order]
    state = np.ones(len(order), np.uint64)
    found = np.empty(len(hash_ids), np.uint64)
    alive = len(order)
    for depth in range(int(lengths[0]) if alive else 0):
        alive = int(np.searchsorted(-lengths, -depth, side="left"))
        at = start[:alive] + depth
        # the finaliser of SplitMix64: every bit of the pair reaches every bit of the result
        x = state[:alive] * np.uint64(0x9E3779B97F4A7C15) + hash_ids[at].astype(np.uint64) + np.uint64(0x1B873593CC9E2D51)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = x ^ (x >> np.uint64(31))
        found[at] = state
    return found


def reuse(trace: Trace) -> Reuse:
    """What each request shares with the rows before it."""
    n = len(trace)
    if trace.hash_ids is None or trace.hash_start is None:
        return Reuse(np.zeros(n, np.int64), np.full(n, -1, np.int64))
    codes = identities(trace.hash_ids, trace.hash_start)
    row, depth = ragged(np.diff(trace.hash_start))
    order = np.argsort(codes, kind="stable")
    previous = np.full(len(codes), -1, np.int64)
    same = codes[order[1:]] == codes[order[:-1]]
    previous[order[1:][same]] = row[order[:-1][same]]
    hit = previous >= 0
    runs = np.bincount(row[hit], minlength=n).astype(np.int64)
    latest = np.full(n, -1, np.int64)
    deepest = hit & (depth == runs[row] - 1)
    latest[row[deepest]] = previous[deepest]
    return Reuse(runs, latest)


def ideal_hit_ratio(trace: Trace) -> float:
    """Share of all prompt tokens that a prefix cache of unlimited size could reuse, if each row came after the rows before it.

    A shared run counts in full, although an earlier row may have filled only part of it: the figure is high by less than one run
    per request.
    """
    shared = np.minimum(reuse(trace).runs * trace.hash_block, trace.prompt)
    return float(shared.sum() / trace.prompt.sum())
