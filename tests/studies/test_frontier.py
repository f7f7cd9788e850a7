"""Sweeps read as written, and the Pareto marks equal their definition."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.studies.frontier import pareto, settings


@pytest.mark.parametrize(
    ("sweep", "policies"),
    [
        ("orca", ["orca"]),
        ("sarathi:watermark=0.01", ["sarathi:watermark=0.01"]),
        ("sarathi:max_num_batched_tokens=128..1024", [f"sarathi:max_num_batched_tokens={n}" for n in (128, 256, 512, 1024)]),
        ("sarathi:max_num_batched_tokens=128..300", [f"sarathi:max_num_batched_tokens={n}" for n in (128, 256, 300)]),
        ("sarathi:max_num_batched_tokens=100..400+150", [f"sarathi:max_num_batched_tokens={n}" for n in (100, 250, 400)]),
        ("sarathi:a=1,b=4/8/16", ["sarathi:a=1,b=4", "sarathi:a=1,b=8", "sarathi:a=1,b=16"]),
        ("sarathi:b=7..7", ["sarathi:b=7"]),
    ],
)
def test_sweeps(sweep: str, policies: list[str]) -> None:
    found = settings(sweep)
    assert [s.policy for s in found] == policies
    assert {s.name for s in found} == {sweep.partition(":")[0]}


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("sarathi:a=1..4,b=2..8", "one at a time"),
        ("sarathi:a=x..4", "whole numbers"),
        ("sarathi:a=8..4", "is empty"),
        ("sarathi:a=0..4", "is empty"),
        ("sarathi:a=1..4+0", "is empty"),
        ("sarathi:a=4//8", "empty or a repeated"),
        ("sarathi:a=4/4", "empty or a repeated"),
        ("sarathi:a=1..1000000+1", "more than 64 settings"),
    ],
)
def test_sweeps_that_make_no_sense(sweep: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(sweep)


@given(st.integers(1, 1000), st.integers(0, 5000))
def test_doubling_ranges_hold_their_ends_and_double(low: int, more: int) -> None:
    values = [int(s.value) for s in settings(f"p:x={low}..{low + more}")]
    assert values[0] == low
    assert values[-1] == low + more
    assert all(b == 2 * a for a, b in itertools.pairwise(values[:-1]))
    assert values == sorted(set(values))


POINTS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda p: (float(p[0]), float(p[1]))), min_size=1, max_size=12
)


@given(POINTS)
def test_pareto_by_definition(points: list[tuple[float, float]]) -> None:
    marks = pareto(points)
    assert any(marks)
    for i, (a, b) in enumerate(points):
        others = [p for j, p in enumerate(points) if j != i]
        dominated = any((x < a and y <= b) or (x <= a and y < b) for x, y in others)
        assert marks[i] == (not dominated)


def test_unknown_figures_are_never_on_the_frontier() -> None:
    assert pareto([(float("nan"), 1.0), (2.0, 2.0)]) == [False, True]
