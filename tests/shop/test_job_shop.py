"""Solvers for job shops: what they return passes the checker, their bounds hold, and what is not theirs is refused by name."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from rota.contracts.shop import Budget, Event, Lag, Objective, Problem, Progress, Schedule
from rota.errors import UnsupportedPolicy
from rota.mechanisms.shop.checker import check
from rota.policies.dispatch.priorities import PRIORITIES
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.job_shop import DispatchRule, TabuSearch
from rota.policies.solvers.registry import make_solver
from rota.workload.shop.build import job_shop
from rota.workload.shop.sets import read_bounds, read_set
from tests.shop.test_cpsat import FT06

SOLVERS = ["tabu", *(rule.lower() for rule in PRIORITIES), "mwkr-rollouts", "fifo-rollouts"]


def random_shop(seed: int) -> Problem:
    rng = random.Random(seed)
    machines = rng.randint(1, 4)
    jobs = [[(rng.randrange(machines), rng.randint(0, 9)) for _ in range(rng.randint(1, 4))] for _ in range(rng.randint(1, 4))]
    problem = job_shop(jobs, machines)
    tasks = list(problem.tasks)
    rng.shuffle(tasks)  # the order in which tasks are listed says nothing
    return replace(problem, tasks=tuple(tasks))


@pytest.mark.parametrize("name", SOLVERS)
def test_schedules_pass_the_checker_and_bounds_hold(name: str) -> None:
    for seed in range(15):
        problem = random_shop(seed)
        optimum = CpSat().solve(problem, Budget(120, 1)).objective
        assert optimum is not None
        outcome = make_solver(name).solve(problem, Budget(0.2 if name == "tabu" else 0.02, 1))
        assert outcome.schedule is not None and outcome.objective is not None and outcome.bound is not None
        assert check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound).ok
        assert outcome.bound[0] is not None and outcome.bound[0] <= optimum[0] <= outcome.objective[0]
        if outcome.status == "optimal":
            assert outcome.objective == optimum
        if name == "tabu":
            assert outcome.objective == optimum


def test_ft06_and_its_history() -> None:
    problem = job_shop(FT06, 6, objective=Objective(({"makespan": 2},)))
    seen: list[tuple[Progress, Schedule | None]] = []
    outcome = TabuSearch().solve(problem, Budget(20, 2, rel_gap=0.1), on_progress=lambda point, schedule: seen.append((point, schedule)))
    assert outcome.objective is not None and outcome.objective[0] <= 110 / 0.9
    assert [point for point, _ in seen] == list(outcome.trace)
    values = [point.objective for point, schedule in seen if schedule is not None]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    for point, schedule in seen:
        if schedule is not None:
            assert check(problem, schedule, objective=(point.objective,)).ok  # type: ignore[arg-type]


def test_a_hint_is_where_the_search_starts() -> None:
    problem = job_shop(FT06, 6)
    best = CpSat().solve(problem, Budget(120, 1)).schedule
    first: list[int | None] = []

    def stop(point: Progress, schedule: Schedule | None) -> None:
        first.append(point.objective)
        if point.objective == 55:
            raise KeyboardInterrupt

    outcome = TabuSearch().solve(problem, Budget(20, 1, seed=7), best, stop)
    assert outcome.objective == (55,) and outcome.interrupted


@pytest.mark.slow
def test_bounds_of_the_library(shared) -> None:  # type: ignore[no-untyped-def]
    folder = shared / "data" / "shop" / "jobshop"
    bounds = read_bounds(folder / "bounds_makespan.csv")
    with (folder / "classic.jsonl").open() as lines:
        for line in list(lines)[::6]:
            name = json.loads(line)["name"]
            outcome = DispatchRule("MWKR").solve(read_set(line, "set", name), Budget(1, 1))
            assert outcome.bound is not None and outcome.objective is not None and outcome.bound[0] is not None
            assert outcome.bound[0] <= bounds[name].ub <= outcome.objective[0]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"objective": Objective.of("total_tardiness")}, "cannot handle total_tardiness"),
        ({"objective": Objective(({"makespan": 1, "total_completion": 1},))}, "cannot handle total_completion"),
        ({"lags": (Lag(Event("j0.0", "end"), Event("j1.0", "start")), Lag(Event("j0.0", "end"), Event("j0.1", "start")))},
         "tasks have several predecessors or successors"),
        ({"lags": (Lag(Event("j0.0", "end"), Event("j0.1", "start"), 3),)}, "cannot handle lags"),
        ({"objective": None}, "the objective is not the makespan"),
    ],
)  # fmt: skip
def test_what_is_not_a_job_shop_is_refused(change: dict[str, object], why: str) -> None:
    problem = job_shop([[(0, 1), (1, 2)], [(1, 3), (0, 1)]], 2)
    if "total_tardiness" in why:
        problem = replace(problem, jobs=tuple(replace(job, due_date=3) for job in problem.jobs))
    with pytest.raises(UnsupportedPolicy, match=why):
        TabuSearch().solve(replace(problem, **change), Budget(1, 1))  # type: ignore[arg-type]
