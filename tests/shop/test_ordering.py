"""Ordering decisions: bounds against propagators run to a fixed point and against all completions, schedules against other programs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.contracts.ordering import OrderingRule
from rota.contracts.shop import Budget
from rota.errors import InputError, UnsupportedPolicy
from rota.mechanisms.shop.checker import check
from rota.mechanisms.shop.propagation import Propagation
from rota.policies.dispatch.online import make_rule
from rota.policies.dispatch.ordering import ByNumber, Lots, Replay, make_ordering, ordering_names, windowed_work
from rota.policies.solvers.disjunctive import job_shop as shop_columns
from rota.policies.solvers.generation import nondelay
from rota.policies.solvers.registry import make_solver
from rota.studies.dispatch import run_rule
from rota.workload.shop.build import job_shop
from tests.shop.test_cpsat import FT06
from tests.shop.test_dispatch import read_instances, read_table

seeds = st.integers(0, 10**6)


def random_ops(rng: random.Random, jobs: int, longest: int, least: int = 0) -> list[list[tuple[int, int]]]:
    """Jobs may come back to a machine, and some operations take no time."""
    return [[(rng.randrange(3), rng.randint(least, 6)) for _ in range(rng.randint(1, longest))] for _ in range(jobs)]


def fixed_point(ops: list[list[tuple[int, int]]], started: list[int], start: list[list[int]], floor: list[int]) -> list[list[int]]:
    """Earliest starts by the propagators as they are defined, pair by pair, until nothing changes.

    `start` says when what has started did, and `floor` from when on each job's next operation may.
    """
    low = [[start[j][k] if k < started[j] else 0 for k in range(len(job))] for j, job in enumerate(ops)]
    for j, job in enumerate(ops):
        if started[j] < len(job):
            low[j][started[j]] = floor[j]
    changed = True
    while changed:
        changed = False
        for j, job in enumerate(ops):
            for k in range(started[j], len(job)):
                at = max(low[j][k], low[j][k - 1] + job[k - 1][1] if k else 0)
                for i, other in enumerate(ops):
                    for h in range(started[i]):
                        begin, end = low[i][h], low[i][h] + other[h][1]
                        if other[h][0] == job[k][0] and begin <= at < end:
                            at = end
                changed |= at > low[j][k]
                low[j][k] = at
    return low


@given(seeds)
def test_bounds_are_the_fixed_point_of_the_propagators(seed: int) -> None:
    rng = random.Random(seed)
    ops = random_ops(rng, rng.randint(1, 5), 4)
    shop, rule = Propagation(job_shop(ops, 3)), Lots(seed)
    first = shop.shop.first
    floor = [0] * len(ops)
    while not shop.done:
        following, waits = shop.view().following.copy(), shop.waits
        shop.step(rule.order(shop.view()))
        bounds = shop.snapshot()[0]
        floor = [at if old == new else 0 for at, old, new in zip(floor, following, bounds.following, strict=True)]
        if shop.waits > waits:
            floor = [max(at, shop.view().now) for at in floor]
        rows = [bounds.start[first[j] : first[j + 1]].tolist() for j in range(len(ops))]
        assert rows == fixed_point(ops, (bounds.following - first[:-1]).tolist(), rows, floor)


def completions(shop: Propagation) -> Iterator[np.ndarray[Any, Any]]:
    """Starts of every schedule that single decisions, waiting included, lead to."""
    if shop.done:
        yield shop.snapshot()[0].start
        return
    kept = shop.snapshot()
    for action in np.flatnonzero(shop.view().legal):
        shop.step(np.array([action]))
        yield from completions(shop)
        shop.restore(kept)


@given(seeds)
def test_no_completion_starts_anything_before_its_bound(seed: int) -> None:
    rng = random.Random(seed)
    shop = Propagation(job_shop(random_ops(rng, 3, 2, least=1), 3))
    rule = Lots(seed)
    for _ in range(rng.randint(0, 3)):
        if not shop.done:
            shop.step(rule.order(shop.view()))
    bounds = shop.snapshot()[0]
    earliest = np.min(list(completions(shop)), axis=0)
    assert (earliest >= bounds.start).all()
    following = [op for op, end in zip(bounds.following, shop.shop.first[1:], strict=True) if op < end]
    assert (earliest[following] == bounds.start[following]).all()


def every_order(ops: list[list[tuple[int, int]]]) -> Iterator[int]:
    """Makespans of all orders of all operations, each started as early as those before it allow."""
    for order in set(permutations([j for j, job in enumerate(ops) for _ in job])):
        at, ready, free = [0] * len(ops), [0] * len(ops), [0] * 3
        for j in order:
            machine, ticks = ops[j][at[j]]
            at[j] += 1
            ready[j] = free[machine] = max(ready[j], free[machine]) + ticks
        yield max(ready)


@given(seeds)
def test_the_optimum_is_among_the_completions(seed: int) -> None:
    ops = random_ops(random.Random(seed), 3, 2)
    shop = Propagation(job_shop(ops, 3))
    assert min(int((start + shop.shop.expected).max()) for start in completions(shop)) == min(every_order(ops))


def test_without_waiting_the_optimum_may_be_out_of_reach() -> None:
    """The machine that a long job needs next is taken by a short one, which could have waited."""
    ops = [[(0, 1), (1, 10), (2, 10)], [(1, 5)]]
    problem = job_shop(ops, 3)
    best = min(Propagation(problem).run(ByNumber("given", np.array(number, float))).makespan for number in permutations(range(4)))
    assert (best, min(every_order(ops))) == (25, 21)


@pytest.mark.parametrize("largest", [225, pytest.param(10**6, marks=pytest.mark.slow)])
def test_non_delay_rules_to_the_unit(shared: Path, largest: int) -> None:
    """Makespans of six rules on published instances, found by two other programs."""
    instances = read_instances(shared)
    wrong = []
    for row in read_table(shared, "reference_nondelay_dispatch.csv"):
        one = instances[row.pop("name")]
        if one["jobs"] * one["machines"] > largest:
            continue
        problem = job_shop(one["ops"], one["machines"])
        for rule, makespan in row.items():
            found = Propagation(problem).run(make_ordering(rule)).makespan
            wrong += [(one["name"], rule, found, makespan)] if found != int(makespan) else []
    assert not wrong


@given(seeds)
def test_numbers_give_the_schedules_of_the_generator_and_of_the_simulator(seed: int) -> None:
    """Noisy priorities included, so that rollouts may be made by whichever is faster."""
    rng = random.Random(seed)
    ops = random_ops(rng, rng.randint(1, 6), 5, least=1)
    problem = job_shop(ops, 3)
    shop = shop_columns(ops)
    number = np.random.default_rng(seed).standard_normal(len(shop.duration) - 1)
    ran = Propagation(problem).run(ByNumber("noise", number))
    assert list(ran.schedule.start.values()) == nondelay(shop, number, False).tolist()
    assert ran.waits == 0
    for name in ("FIFO", "MWKR"):
        assert Propagation(problem).run(make_ordering(name)).schedule == run_rule(problem, make_rule(name)).schedule


@given(seeds, st.sampled_from(ordering_names()))
def test_what_comes_out_passes_the_checker(seed: int, name: str) -> None:
    rng = random.Random(seed)
    problem = job_shop(random_ops(rng, rng.randint(1, 7), 6), 3)
    ran = Propagation(problem).run(make_ordering(name, seed))
    report = check(problem, ran.schedule)
    assert report.ok
    assert report.terms["makespan"] == ran.makespan
    assert ran.decisions <= len(problem.tasks) + ran.waits


@given(seeds)
def test_a_schedule_is_followed_to_the_unit(seed: int) -> None:
    problem = job_shop(random_ops(random.Random(seed), 5, 4, least=1), 3)
    ran = Propagation(problem).run(Lots(seed))
    again = Propagation(problem).run(Replay(np.array(list(ran.schedule.start.values()))))
    assert again.schedule == ran.schedule


def test_an_optimal_schedule_is_followed_to_the_unit() -> None:
    problem = job_shop(FT06, 6)
    found = make_solver("tabu").solve(problem, Budget(2, workers=1)).schedule
    assert found is not None
    ran = Propagation(problem).run(Replay(np.array([found.start[task.id] for task in problem.tasks])))
    assert ran.makespan == 55
    assert ran.schedule.start == found.start


def test_a_snapshot_goes_on_as_the_run_did() -> None:
    problem = job_shop(FT06, 6)
    shop = Propagation(problem)
    for _ in range(4):
        shop.step(make_ordering("SPT").order(shop.view()))
    kept = shop.snapshot()
    rules: list[OrderingRule] = [make_ordering("MWKR"), make_ordering("SPT"), make_ordering("MWKR")]
    results = []
    for rule in rules:
        shop.restore(kept)
        results.append(shop.run(rule))
    assert results[0] == results[2] != results[1] == Propagation(problem).run(make_ordering("SPT"))


def test_work_within_a_window() -> None:
    duration, job = np.array([1, 2, 4, 8, 16, 32, 64, 3]), np.array([0] * 7 + [1])
    assert (-windowed_work(duration, job)).tolist() == [15, 31, 62, 124, 120, 112, 96, 3]


def test_mistakes_of_rules_are_named() -> None:
    shop = Propagation(job_shop([[(0, 2), (1, 1)], [(0, 1)], [(1, 4)]], 2, name="three"))
    with pytest.raises(UnsupportedPolicy, match="the rule waits at 0 in three, which is not possible"):
        shop.step(np.array([3]))
    with pytest.raises(UnsupportedPolicy, match="empty or names a job twice"):
        shop.step(np.array([0, 0]))
    with pytest.raises(UnsupportedPolicy, match="empty"):
        shop.step(np.array([], np.int64))
    shop.step(np.array([0]))
    with pytest.raises(UnsupportedPolicy, match="starts job 1 at 0"):
        shop.step(np.array([1]))
    with pytest.raises(UnsupportedPolicy, match="is not a job shop without blocking"):
        Propagation(job_shop(FT06, 6, blocking="swap"))
    with pytest.raises(InputError, match="unknown ordering rule 'best'"):
        make_ordering("best")
