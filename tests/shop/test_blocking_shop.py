"""Blocking job shops by iterated greedy search: every schedule passes the checker, and small ones are solved as CP-SAT proves."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rota.contracts.shop import Budget, Problem
from rota.errors import UnsupportedPolicy
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.blocking import build, earliest, machine_orders
from rota.policies.solvers.blocking_shop import BlockingSearch
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.job_shop import schedule_of
from rota.policies.solvers.recognise import as_job_shop
from rota.workload.shop.build import job_shop
from tests.shop.test_cpsat import FT06


def random_shop(seed: int) -> Problem:
    rng = random.Random(seed)
    machines = rng.randint(1, 4)
    jobs = [[(rng.randrange(machines), rng.randint(1, 9)) for _ in range(rng.randint(1, 5))] for _ in range(rng.randint(1, 5))]
    return job_shop(jobs, machines, blocking="swap")


@pytest.mark.parametrize("seed", range(60))
def test_jobs_put_in_one_by_one_and_moved_to_their_earliest_times(seed: int) -> None:
    problem = random_shop(seed)
    named = as_job_shop(problem, "test", blocking=True)
    firsts = np.flatnonzero(named.shop.before[:-1] == len(named.tasks))
    start = build(named.shop, np.random.default_rng(seed).permutation(len(firsts)), firsts)
    assert check(problem, schedule_of(named, start)).ok
    again = start.copy()
    earliest(named.shop, again, *machine_orders(named.shop, again), 10**6)
    assert (again == start).all()  # nothing could be earlier in these machine orders


@pytest.mark.parametrize("seed", range(12))
def test_small_ones_as_proven(seed: int) -> None:
    problem = random_shop(100 + seed)
    proven = CpSat().solve(problem, Budget(120, 1))
    assert proven.status == "optimal" and proven.objective is not None
    outcome = BlockingSearch().solve(problem, Budget(1, 1))
    assert outcome.schedule is not None and outcome.objective is not None and outcome.bound is not None
    assert check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound).ok
    assert outcome.objective[0] >= proven.objective[0]
    assert outcome.objective[0] <= 1.1 * proven.objective[0]


def test_ft06() -> None:
    problem = job_shop(FT06, 6, blocking="swap")
    outcome = BlockingSearch().solve(problem, Budget(5, 2))
    assert outcome.objective is not None and outcome.schedule is not None
    assert check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound).ok
    assert 63 <= outcome.objective[0] <= 66


@pytest.mark.parametrize("blocking", ["none", "no-swap", "no-wait"])
def test_other_kinds_are_refused(blocking: str) -> None:
    with pytest.raises(UnsupportedPolicy, match="iterated-greedy"):
        BlockingSearch().solve(job_shop(FT06, 6, blocking=blocking), Budget(1, 1))


def test_operations_without_duration_are_refused() -> None:
    with pytest.raises(UnsupportedPolicy, match=r"task j0\.1 has none"):
        BlockingSearch().solve(job_shop([[(0, 1), (1, 0)]], 2, blocking="swap"), Budget(1, 1))
