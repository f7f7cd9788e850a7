"""Job-shop search: moves against a plain longest-path computation, crossing, and known optima."""

import csv
import json
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.policies.solvers.disjunctive import (
    estimate_after,
    estimate_before,
    graph,
    job_shop,
    makespan,
    may_follow,
    may_precede,
    move_after,
    move_before,
)
from rota.policies.solvers.evolve import between, evolve, random_line
from rota.policies.solvers.tabu import tabu_search


@st.composite
def shops(draw):
    """Up to five jobs on up to four machines; jobs may skip machines, return to one, and have operations without duration."""
    machines = draw(st.integers(1, 4))
    operation = st.tuples(st.integers(0, machines - 1), st.integers(0, 9))
    return draw(st.lists(st.lists(operation, min_size=1, max_size=5), min_size=1, max_size=5))


def longest_paths(ops, orders):
    """Heads and tails by memoised recursion over the successors of each (job, position); a cycle ends in RecursionError."""
    after, before = {}, {}
    for job, steps in enumerate(ops):
        for k in range(len(steps)):
            after.setdefault((job, k), [])
            before.setdefault((job, k), [])
    edges = [((j, k), (j, k + 1)) for j, steps in enumerate(ops) for k in range(len(steps) - 1)]
    edges += [pair for order in orders for pair in pairwise(order)]
    for a, b in edges:
        after[a].append(b)
        before[b].append(a)

    def duration(op):
        return ops[op[0]][op[1]][1]

    @lru_cache(None)
    def head(op):
        return max((head(b) + duration(b) for b in before[op]), default=0)

    @lru_cache(None)
    def tail(op):
        return duration(op) + max((tail(b) for b in after[op]), default=0)

    return head, tail


def check(ops, shop, g):
    """The graph is consistent: its machine orders give its heads and tails, and its line respects them and the jobs."""
    names = [(j, k) for j, steps in enumerate(ops) for k in range(len(steps))]
    n = len(names)
    orders = []
    for op in range(n):
        if g.prev[op] == n:
            order = [op]
            while g.next[order[-1]] < n:
                assert g.prev[g.next[order[-1]]] == order[-1]
                order.append(g.next[order[-1]])
            orders.append([names[i] for i in order])
    assert sorted(i for order in orders for i in order) == names
    head, tail = longest_paths(ops, orders)
    assert g.head[:n].tolist() == [head(i) for i in names]
    assert g.tail[:n].tolist() == [tail(i) for i in names]
    assert makespan(g) == max(head(i) + tail(i) for i in names)
    assert g.line[g.place[:n]].tolist() == list(range(n))
    for op in range(n):
        assert g.prev[op] == n or g.place[g.prev[op]] < g.place[op]
        assert shop.before[op] == n or g.place[shop.before[op]] < g.place[op]


@given(shops(), st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), max_size=12))
def test_heads_tails_and_line_after_random_moves(ops, seed, moves):
    shop = job_shop(ops)
    g = graph(shop, random_line(shop, np.random.default_rng(seed)))
    check(ops, shop, g)
    n = len(g.line)
    scratch = np.empty(n, np.int64)
    for number, later in moves:
        pairs = [(u, v) for u in range(n) for v in range(n) if shop.machine[u] == shop.machine[v] and g.place[u] < g.place[v]]
        allowed = [(u, v) for u, v in pairs if (may_follow(shop, g, u, v) if later else may_precede(shop, g, v, u))]
        if not allowed:
            continue
        u, v = allowed[number % len(allowed)]
        if later:
            move_after(shop, g, u, v, scratch)
        else:
            move_before(shop, g, v, u, scratch)
        check(ops, shop, g)


@given(shops(), st.integers(0, 2**32))
def test_the_estimate_of_a_swap_is_at_most_the_new_makespan(ops, seed):
    shop = job_shop(ops)
    g = graph(shop, random_line(shop, np.random.default_rng(seed)))
    n = len(g.line)
    scratch = np.empty(n, np.int64)
    for u in range(n):
        v = int(g.next[u])
        if v < n and may_follow(shop, g, u, v):
            swapped = graph(shop, g.line)
            estimate = estimate_after(shop, g, u, v, scratch)
            assert estimate == estimate_before(shop, g, v, u, scratch)
            move_after(shop, swapped, u, v, scratch)
            assert estimate == max(swapped.head[i] + swapped.tail[i] for i in (u, v))


@given(shops(), st.integers(0, 2**32), st.floats(0, 1))
def test_between_two_solutions_lies_one_that_keeps_what_they_share(ops, seed, weight):
    shop = job_shop(ops)
    rng = np.random.default_rng(seed)
    a, b = (graph(shop, random_line(shop, rng)) for _ in range(2))
    child = graph(shop, between(a, b, weight))
    check(ops, shop, child)
    n = len(a.line)
    for u in range(n):
        for v in range(n):
            if shop.machine[u] == shop.machine[v] and shop.duration[u] and shop.duration[v] and a.head[u] < a.head[v] and b.head[u] < b.head[v]:
                assert child.head[u] < child.head[v]


@given(shops(), st.integers(1, 2**32))
def test_search_returns_what_it_claims_and_the_same_for_the_same_seed(ops, seed):
    shop = job_shop(ops)
    start = random_line(shop, np.random.default_rng(seed))
    line, value, _ = tabu_search(shop, start, 50, 1000, 0, np.array([seed]))
    again = tabu_search(shop, start, 50, 1000, 0, np.array([seed]))
    assert (line.tolist(), value) == (again[0].tolist(), again[1])
    g = graph(shop, line)
    check(ops, shop, g)
    assert makespan(g) == value <= makespan(graph(shop, start))


@pytest.fixture(scope="module")
def library(shared):
    folder = shared / "data" / "shop" / "jobshop"
    with (folder / "bounds_makespan.csv").open() as file:
        bounds = {row["name"]: int(row["lb"]) for row in csv.DictReader(file)}
    with (folder / "classic.jsonl").open() as file:
        return {case["name"]: (case["ops"], bounds[case["name"]]) for case in map(json.loads, file)}


@pytest.mark.parametrize("workers", [1, 2])
def test_fisher_and_thompson(library, workers):
    for name in ("ft06", "ft10", "ft20"):
        ops, optimum = library[name]
        line, value = evolve(job_shop(ops), 60, workers, seed=1, target=optimum)
        assert value == optimum == makespan(graph(job_shop(ops), line))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 21))
def test_lawrence(library, number):
    ops, optimum = library[f"la{number:02}"]
    assert evolve(job_shop(ops), 30, seed=1, target=optimum)[1] == optimum


def test_nothing_is_found_below_a_bound(library):
    for name in ("orb07", "abz7", "swv01"):  # orb07 has an operation without duration
        ops, bound = library[name]
        assert evolve(job_shop(ops), 1, seed=1)[1] >= bound
