"""Rules on job shops: published makespans of non-delay rules, and active schedules against their definition."""

import csv
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.policies.dispatch.priorities import PRIORITIES, priorities, remaining
from rota.policies.solvers.disjunctive import Shop, graph, job_shop, makespan
from rota.policies.solvers.generation import active, line_of, nondelay
from rota.policies.solvers.rollouts import best_of
from tests.policies.test_tabu import shops


def run(generate, shop, rule):
    start = generate(shop, priorities(rule, shop.duration[:-1], shop.job[:-1]), rule == "FIFO")
    return start, int((start + shop.duration[:-1]).max())


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data" / "shop" / "jobshop"


@pytest.fixture(scope="module")
def library(folder):
    with (folder / "classic.jsonl").open() as file:
        return {case["name"]: case["ops"] for case in map(json.loads, file)}


def test_nondelay_rules_to_the_unit(folder, library):
    with (folder / "reference_nondelay_dispatch.csv").open() as file:
        for row in csv.DictReader(file):
            shop = job_shop(library[row.pop("name")])
            assert {rule: run(nondelay, shop, rule)[1] for rule in row} == {rule: int(value) for rule, value in row.items()}


@given(shops(), st.sampled_from(list(PRIORITIES)), st.sampled_from([nondelay, active]))
def test_no_operation_can_start_earlier_without_delaying_another(ops, rule, generate):
    shop = job_shop([[(m, d + 1) for m, d in job] for job in ops])
    start, length = run(generate, shop, rule)
    end = start + shop.duration[:-1]
    for op in range(len(start)):
        ready = end[shop.before[op]] if shop.before[op] < len(start) else 0
        assert ready <= start[op]
        others = [i for i in range(len(start)) if i != op and shop.machine[i] == shop.machine[op]]
        assert all(end[i] <= start[op] or end[op] <= start[i] for i in others)
        for t in range(ready, start[op]):
            assert any(start[i] < t + shop.duration[op] and t < end[i] for i in others)
            if generate is nondelay:
                assert any(start[i] <= t < end[i] for i in others)
    assert makespan(graph(shop, line_of(shop, start))) == length


@given(shops(), st.sampled_from([nondelay, active]))
def test_empty_operations_are_scheduled_too(ops, generate):
    shop = job_shop(ops)
    start, length = run(generate, shop, "MWKR")
    assert sorted(line_of(shop, start).tolist()) == list(range(len(start)))
    assert makespan(graph(shop, line_of(shop, start))) <= length


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=5))
def test_what_remains_of_a_job(jobs):
    flat = np.array([d for job in jobs for d in job])
    of = np.array([j for j, job in enumerate(jobs) for _ in job])
    assert remaining(flat, of).tolist() == [sum(job[k:]) for job in jobs for k in range(len(job))]


def test_rollouts_begin_with_the_rule_and_improve(library):
    shop = job_shop(library["la21"])
    for rule in PRIORITIES:
        plain = min(run(nondelay, shop, rule)[1], run(active, shop, rule)[1])
        assert best_of(shop, rule, 2)[1] == plain
        start, length = best_of(shop, rule, 300, seed=1)
        assert length < plain
        assert length == best_of(shop, rule, 300, seed=1)[1]
        assert makespan(graph(shop, line_of(shop, start))) <= length


@pytest.mark.parametrize("generate", [nondelay, active])
def test_a_million_operations_take_less_than_two_seconds(generate):
    jobs = 1000
    rng = np.random.default_rng(0)
    n = jobs * jobs
    machine = np.concatenate([rng.permutation(jobs) for _ in range(jobs)])
    before, after = np.arange(n) - 1, np.arange(n) + 1
    before[::jobs] = after[jobs - 1 :: jobs] = n
    columns = (rng.integers(1, 100, n), machine, np.repeat(np.arange(jobs), jobs), before, after)
    shop = Shop(*(np.append(column, end) for column, end in zip(columns, (0, -1, -1, n, n), strict=True)))
    run(generate, job_shop([[(0, 1)]]), "MWKR")  # compiles
    began = time.process_time()
    run(generate, shop, "MWKR")
    assert time.process_time() - began < 2


def test_an_unknown_rule_is_named():
    with pytest.raises(InputError, match="unknown dispatch rule 'EDF'; choose from FIFO, SPT"):
        priorities("EDF", np.array([1]), np.array([0]))
