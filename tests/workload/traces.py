"""Hypothesis strategies that make traces."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from rota.workload.trace import Trace


@st.composite
def traces(draw: st.DrawFn, *, linked: bool | None = None, hashed: bool | None = None) -> Trace:
    """Any legal trace of up to 12 requests."""
    n = draw(st.integers(1, 12))

    def ints(low: int, high: int) -> np.ndarray:
        return np.array(draw(st.lists(st.integers(low, high), min_size=n, max_size=n)), np.int64)

    def floats(high: float) -> np.ndarray:
        return np.array(draw(st.lists(st.floats(0, high), min_size=n, max_size=n)), np.float64)

    columns: dict[str, object] = {"arrival": np.sort(floats(1e6)), "prompt": ints(1, 200), "output": ints(1, 200)}
    if draw(st.booleans()):
        columns["max_new"] = columns["output"] + ints(0, 9)
    if draw(st.booleans()):
        columns["estimate"] = ints(1, 200)
    if draw(st.booleans()):
        columns["priority"] = ints(-3, 3)
    if draw(st.booleans()):
        columns["tenant"] = ints(0, 3)
    if draw(st.booleans()):
        columns["program"] = ints(-1, 3)
        columns |= {"tool": ints(-1, 2), "tools": ("a", "b c", "7")}
    if draw(st.booleans()) if linked is None else linked:
        columns["after"] = np.array([draw(st.integers(-1, i - 1)) if i else -1 for i in range(n)])
        columns["delay"] = floats(100.0)
    if draw(st.booleans()) if hashed is None else hashed:
        runs = -(-columns["prompt"] // 64)
        ids = draw(st.lists(st.integers(0, 3), min_size=int(runs.sum()), max_size=int(runs.sum())))
        columns |= {"hash_ids": np.array(ids, np.int64), "hash_start": np.concatenate([[0], np.cumsum(runs)]), "hash_block": 64}
    return Trace(**columns)


COLUMNS = ("arrival", "prompt", "output", "max_new", "estimate", "priority", "tenant", "program", "after", "delay", "hash_ids", "hash_start")


def assert_same(a: Trace, b: Trace) -> None:
    """Both traces hold exactly the same requests."""
    for column in COLUMNS:
        x, y = getattr(a, column), getattr(b, column)
        assert (x is None) == (y is None), column
        if x is not None:
            np.testing.assert_array_equal(x, y, err_msg=column)
            assert x.dtype == y.dtype, column
    assert a.hash_block == b.hash_block
    assert tool_names(a) == tool_names(b)


def tool_names(trace: Trace) -> list[str | None] | None:
    """What each answer calls, by name."""
    return None if trace.tool is None else [trace.tools[i] if i >= 0 else None for i in trace.tool]
