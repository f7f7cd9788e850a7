"""Shared leading tokens, against brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from rota.workload.prefix import ideal_hit_ratio, identities, ragged, reuse
from rota.workload.trace import Trace
from tests.workload.traces import traces


def rows(trace: Trace) -> list[tuple[int, ...]]:
    assert trace.hash_ids is not None
    assert trace.hash_start is not None
    return [tuple(trace.hash_ids[a:b].tolist()) for a, b in zip(trace.hash_start[:-1], trace.hash_start[1:], strict=True)]


@given(traces(hashed=True))
def test_reuse_is_the_longest_common_beginning(trace: Trace) -> None:
    runs = rows(trace)
    shared, latest = reuse(trace)
    for i, mine in enumerate(runs):
        common = [next((k for k, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other)))
                  for other in runs[:i]]  # fmt: skip
        best = max(common, default=0)
        assert shared[i] == best
        assert latest[i] == (max(j for j, c in enumerate(common) if c == best) if best else -1)
    hit = sum(min(int(s) * trace.hash_block, int(p)) for s, p in zip(shared, trace.prompt, strict=True))
    assert ideal_hit_ratio(trace) == hit / trace.prompt.sum()


@given(traces(hashed=True))
def test_identities_are_equal_where_prefixes_are(trace: Trace) -> None:
    assert trace.hash_ids is not None
    assert trace.hash_start is not None
    codes = identities(trace.hash_ids, trace.hash_start)
    prefixes = [row[: k + 1] for row in rows(trace) for k in range(len(row))]
    assert len(set(codes.tolist())) == len(set(prefixes))
    for code in set(codes.tolist()):
        assert len({p for p, c in zip(prefixes, codes.tolist(), strict=True) if c == code}) == 1


def test_nothing_known_means_nothing_shared() -> None:
    trace = Trace(np.zeros(2), np.array([5, 5]), np.array([1, 1]))
    assert ideal_hit_ratio(trace) == 0
    assert reuse(trace).latest.tolist() == [-1, -1]


def test_ragged() -> None:
    row, at = ragged(np.array([2, 0, 3]))
    assert row.tolist() == [0, 0, 2, 2, 2]
    assert at.tolist() == [0, 1, 0, 1, 2]
