"""Planted problems: the planted schedule is one, levels nest, and no precedence is implied by others."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.contracts.shop import Problem, Schedule
from rota.errors import InputError
from rota.mechanisms.shop.checker import check
from rota.workload.shop.planted import AXES, Planted, Shape, independent_edges, ramp
from tests.shop.brute import feasible

ALL_AXES = [axes for n in range(4) for axes in combinations(AXES, n)]


def schedule(planted: Planted) -> Schedule:
    return Schedule(planted.certificate, {name: 0 for name in planted.certificate})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), axes=st.sampled_from(ALL_AXES), slack=st.integers(0, 6), share=st.floats(0, 1))
def test_the_planted_schedule_passes_both_checks(seed: int, axes: tuple[str, ...], slack: int, share: float) -> None:
    for planted in ramp(Shape(slack=slack, share=share), axes, (0, 5, 25), seed):
        assert check(planted.problem, schedule(planted)).ok
        assert feasible(planted.problem, schedule(planted))


def without_one(problem: Problem) -> list[Problem]:
    """The problem without one of its constraints, for each of them."""
    fewer = [replace(problem, lags=problem.lags[:i] + problem.lags[i + 1 :]) for i in range(len(problem.lags))]
    fewer += [
        replace(problem, exclusive=problem.exclusive[:i] + problem.exclusive[i + 1 :]) for i in range(len(problem.exclusive))
    ]
    for i, task in enumerate(problem.tasks):
        free = replace(task, earliest_start=0, latest_end=None)
        fewer.append(replace(problem, tasks=(*problem.tasks[:i], free, *problem.tasks[i + 1 :])))
    for i, resource in enumerate(problem.resources):
        up = replace(resource, calendar=())
        fewer.append(replace(problem, resources=(*problem.resources[:i], up, *problem.resources[i + 1 :])))
    return fewer


def test_without_any_one_constraint_it_still_passes() -> None:
    (planted,) = ramp(Shape(), AXES, (15,), 3)
    assert all(check(problem, schedule(planted)).ok for problem in without_one(planted.problem))


def test_levels_nest_and_axes_share_the_plan() -> None:
    low, high = ramp(Shape(), AXES, (25, 5), 1)
    assert (low.level, high.level) == (5, 25)
    assert high.problem.lags[:5] == low.problem.lags
    assert (low.problem.tasks, low.problem.exclusive) == (high.problem.tasks, high.problem.exclusive)
    (plain,) = ramp(Shape(), (), (25,), 1)
    assert plain.certificate == high.certificate
    assert plain.problem.lags == high.problem.lags
    assert not plain.problem.exclusive
    assert plain.problem.features == {"cumulative"} < high.problem.features


def reaches(edges: list[tuple[int, int]], a: int, b: int) -> bool:
    return a == b or any(reaches(edges, j, b) for i, j in edges if i == a)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 12))
def test_no_precedence_is_implied_by_the_others(seed: int, count: int) -> None:
    edges = independent_edges(random.Random(seed), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], count)
    assert len(edges) == count
    for i, (a, b) in enumerate(edges):
        assert not reaches(edges[:i] + edges[i + 1 :], a, b)


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(InputError, match="no more than"):
        ramp(Shape(tasks=4, layers=2), (), (9,), 0)
    with pytest.raises(InputError, match="no axis 'window'"):
        ramp(Shape(), ("window",), (3,), 0)
    with pytest.raises(InputError, match="vocabulary"):
        Shape(vocabulary="ships")
