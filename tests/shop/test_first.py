"""First schedules are schedules, and their values are those that the checker and the oracle work out."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from rota.contracts.shop import Budget, Event, Lag, Mode, Objective, Problem, Resource, Task, Use
from rota.errors import UnsupportedPolicy
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.evaluate import stage_values
from rota.policies.solvers.first import first_schedule
from rota.policies.solvers.insertion import Insertion
from rota.policies.solvers.profile import Profile, earliest
from rota.policies.solvers.serial import Serial
from rota.workload.shop.build import BLOCKING, flexible_job_shop, job_shop
from tests.shop.brute import feasible, value
from tests.shop.random_problems import random_problem, random_schedule
from tests.shop.test_cpsat import FT06


def test_whatever_they_make_is_a_schedule() -> None:
    found: Counter[str] = Counter()
    for k in range(4000):
        problem = random_problem(random.Random(k))
        for solver in (Serial(), Insertion()):
            if not problem.features <= solver.capabilities():
                with pytest.raises(UnsupportedPolicy, match="cannot handle"):
                    solver.solve(problem, Budget())
                continue
            try:
                outcome = solver.solve(problem, Budget())
            except UnsupportedPolicy:
                assert solver.name == "insertion"
                continue
            if outcome.schedule is not None:
                report = check(problem, outcome.schedule, objective=outcome.objective)
                assert report.ok, (problem, outcome, report.violations)
                found[solver.name] += 1
    assert found["serial"] > 500
    assert found["insertion"] > 100


@pytest.mark.parametrize("blocking", BLOCKING)
def test_random_shops_of_every_blocking(blocking: str) -> None:
    for k in range(150):
        rng = random.Random(k)
        machines = rng.randint(2, 5)
        # jobs may come back to a machine, stay on it, and have operations that take no time
        jobs = [
            [[(rng.randrange(machines), rng.randint(0, 5)) for _ in range(rng.randint(1, 2))] for _ in range(rng.randint(1, 6))]
            for _ in range(rng.randint(1, 7))
        ]
        jobs = [[list({machine: (machine, ticks) for machine, ticks in ways}.values()) for ways in job] for job in jobs]
        problem = flexible_job_shop(jobs, machines, blocking=blocking)
        schedule = first_schedule(problem)
        assert schedule is not None
        assert check(problem, schedule).ok, (problem, schedule, check(problem, schedule).violations)


def test_values_are_those_of_the_oracle() -> None:
    rng = random.Random(4)
    compared = 0
    while compared < 500:
        problem = random_problem(rng)
        schedule = random_schedule(rng, problem, 12)
        if problem.objective is not None and feasible(problem, schedule):
            assert stage_values(problem, schedule) == value(problem, schedule)
            compared += 1


def test_one_machine_by_due_dates_and_one_project_by_its_critical_path() -> None:
    tasks = tuple(Task(name, (Mode(ticks, (Use("r"),)),)) for name, ticks in (("a", 1), ("b", 4), ("c", 4)))
    follows = (Lag(Event("a", "end"), Event("b", "start")),)
    outcome = Serial().solve(Problem(tasks, (Resource("r", 1),), follows), Budget())
    assert outcome.schedule is not None
    assert outcome.schedule.start == {"a": 0, "b": 1, "c": 5}
    assert outcome.objective == (9,)


def test_what_cannot_be_is_not_made() -> None:
    tasks = tuple(Task(name, (Mode(3, (Use("m"),)),), latest_end=5) for name in "ab")
    outcome = Serial().solve(Problem(tasks, (Resource("m"),)), Budget())
    assert (outcome.status, outcome.schedule) == ("unknown", None)


def test_insertion_wants_chains() -> None:
    tasks = tuple(Task(name, (Mode(1),)) for name in "abc")
    lags = tuple(Lag(Event("a", "end"), Event(name, "start"), 0, 0) for name in "bc")
    with pytest.raises(UnsupportedPolicy, match="needs jobs that are chains"):
        Insertion().solve(Problem(tasks, (), lags), Budget())
    assert first_schedule(job_shop(FT06, 6, blocking="no-wait")) is not None


def test_profiles_against_counting() -> None:
    rng = random.Random(9)
    for _ in range(300):
        resource = Resource("r", 3, calendar=tuple((at, rng.randint(0, 3)) for at in sorted(rng.sample(range(12), 2))))
        profile, free = Profile(resource), [3] * 60
        for at, units in resource.calendar:
            free[at:] = [units or 3] * (60 - at)
        for _ in range(4):
            ticks, amount, begin = rng.randint(0, 4), rng.randint(1, 2), rng.randint(0, 6)
            shut = [(3, 5)] if rng.random() < 0.5 else []
            plain = [all(free[t] >= amount and not (shut and 3 <= t < 5) for t in range(s, s + ticks)) for s in range(50)]
            expected = next((s for s in range(begin, 50) if plain[s]), None)
            found = earliest(begin, ticks, [(profile, amount)], shut)
            assert found == expected
            if found is not None:
                profile.take(found, found + ticks, amount)
                for t in range(found, found + ticks):
                    free[t] -= amount


def test_due_dates_come_first_where_they_count() -> None:
    from rota.workload.shop.build import due_jobs, single_machine

    problem = single_machine(due_jobs([9, 3, 6]), [3, 3, 3])
    outcome = Serial().solve(problem, Budget())
    assert outcome.objective == (0,)
    assert problem.objective == Objective.of("total_tardiness")
