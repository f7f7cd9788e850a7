"""The checker against the tick-by-tick oracle, and every kind of violation injected into random problems."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

from rota.contracts.shop import Event, Job, Lag, Mode, Objective, Problem, Resource, Schedule, Task, Use
from rota.errors import InputError
from rota.mechanisms.shop.checker import KINDS, check
from tests.shop.brute import feasible, schedules, value
from tests.shop.injections import inject
from tests.shop.random_problems import random_problem, random_schedule


def test_it_agrees_with_the_oracle_on_random_schedules() -> None:
    rng = random.Random(1)
    seen: Counter[bool] = Counter()
    for _ in range(1500):
        problem = random_problem(rng)
        for _ in range(8):
            schedule = random_schedule(rng, problem, rng.randint(2, 14))
            report = check(problem, schedule)
            expected = feasible(problem, schedule)
            assert report.ok == expected, (problem, schedule, report)
            if expected and problem.objective is not None:
                assert report.objective == value(problem, schedule)
            seen[expected] += 1
    assert min(seen[True], seen[False]) > 1000


def test_it_accepts_everything_that_trying_finds_feasible() -> None:
    rng = random.Random(2)
    found = 0
    for _ in range(150):
        problem = random_problem(rng, n=rng.randint(2, 4), limit=rng.randint(4, 6))
        for schedule in schedules(problem, 6):
            report = check(problem, schedule)
            assert report.ok, (problem, schedule, report.violations)
            found += 1
    assert found > 2000


def test_rings_are_those_that_trying_orders_finds() -> None:
    """All schedules of small shops that are feasible with swaps, judged again without: blocking, zero durations, lags that tie events."""
    seen: Counter[bool] = Counter()
    for k in range(1200):
        rng = random.Random(k)
        problem = _ring_prone(rng)
        fixed = replace(problem, swap=False)
        for schedule in islice(schedules(problem, 3), 500):
            expected = feasible(fixed, schedule)
            report = check(fixed, schedule)
            assert report.ok == expected, (fixed, schedule, report.violations)
            assert {violation.kind for violation in report.violations} <= {"ring"}
            seen[expected] += 1
    assert min(seen.values()) > 300, seen


def _ring_prone(rng: random.Random) -> Problem:
    machines = rng.randint(2, 3)
    tasks, lags = [], []
    for j in range(machines):
        # mostly round the machines, so that all may want to move on at once
        route = [j, (j + 1) % machines] if rng.random() < 0.8 else [rng.randrange(machines) for _ in range(2)]
        for o, machine in enumerate(route):
            until = Event(f"j{j}.1", rng.choice(["start", "start", "end"])) if o == 0 and rng.random() < 0.9 else None
            tasks.append(Task(f"j{j}.{o}", (Mode(rng.choice([0, 1, 1, 1]), (Use(f"m{machine}", until=until),)),)))
        least, most = rng.choice([(0, None), (0, None), (0, 0), (0, 1)])
        lags.append(Lag(Event(f"j{j}.0", "end"), Event(f"j{j}.1", "start"), least, most))
    for _ in range(rng.randint(0, 2)):
        a, b = rng.sample(tasks, 2)
        ends = [Event(task.id, rng.choice(["start", "end"])) for task in (a, b)]
        lags.append(Lag(*ends, *rng.choice([(0, None), (0, 0), (None, 0), (-1, 1)])))
    try:
        return Problem(tuple(tasks), tuple(Resource(f"m{i}") for i in range(machines)), tuple(lags), objective=None)
    except InputError:
        return _ring_prone(rng)


def test_one_injected_violation_of_each_kind_is_named_exactly() -> None:
    rng = random.Random(3)
    named: Counter[str] = Counter()
    problems = 0
    while problems < 2000:
        problem = random_problem(rng)
        schedule = random_schedule(rng, problem, rng.randint(4, 14))
        if not feasible(problem, schedule):
            continue
        problems += 1
        for kind in KINDS:
            case = inject(kind, rng, problem, schedule)
            if case is not None:
                report = check(case[0], case[1], objective=case[2], bound=case[3])
                assert {violation.kind for violation in report.violations} == {kind}, (case, report.violations)
                named[kind] += 1
    assert set(named) == set(KINDS)
    assert min(named.values()) > 100, named


def test_an_empty_interval_occupies_nothing() -> None:
    tasks = (Task("long", (Mode(4, (Use("m"),)),)), Task("empty", (Mode(0, (Use("m"),)),)))
    assert check(Problem(tasks, (Resource("m"),)), Schedule({"long": 0, "empty": 2}, {})).ok


def test_who_waits_in_a_break_still_holds() -> None:
    """A job that blocks a machine may stand there through a break, but nobody else may."""
    tasks = (
        Task("a", (Mode(2, (Use("m", until=Event("b", "start")),)),)),
        Task("b", (Mode(1),)),
        Task("c", (Mode(1, (Use("m"),)),), allow_breaks=True),
    )
    problem = Problem(tasks, (Resource("m", calendar=((2, 0), (5, 1))),), (Lag(Event("a", "end"), Event("b", "start")),))
    assert check(problem, Schedule({"a": 0, "b": 5, "c": 5}, {})).ok
    inside = check(problem, Schedule({"a": 0, "b": 5, "c": 3}, {}))
    assert [violation.kind for violation in inside.violations] == ["capacity"]


def test_suspended_work_ends_after_the_break() -> None:
    task = Task("a", (Mode(3, (Use("m"),)),), allow_breaks=True)
    problem = Problem((task,), (Resource("m", calendar=((2, 0), (5, 1))),))
    assert check(problem, Schedule({"a": 1}, {}, {"a": 7})).terms == {"makespan": 7}
    assert check(problem, Schedule({"a": 3}, {}, {"a": 8})).ok


def test_a_job_may_stay_on_its_machine_without_a_swap() -> None:
    """Freed and taken by the same event is no ring."""
    tasks = tuple(Task(f"o{k}", (Mode(1, (Use("m", until=Event(f"o{k + 1}", "start") if k < 2 else None),)),)) for k in range(3))
    lags = tuple(Lag(Event(f"o{k}", "end"), Event(f"o{k + 1}", "start")) for k in range(2))
    assert check(Problem(tasks, (Resource("m"),), lags, swap=False), Schedule({"o0": 0, "o1": 1, "o2": 2}, {})).ok


def test_stages_and_terms_are_recomputed() -> None:
    tasks = tuple(Task(name, (Mode(ticks, (Use("m"),)),)) for name, ticks in (("a", 3), ("b", 2)))
    jobs = (Job("a", ("a",), due_date=2, weight=3), Job("b", ("b",), release_date=1, due_date=9))
    objective = Objective(({"total_tardiness": 2, "makespan": 1}, {"total_flow_time": 1}, {"max_lateness": 1, "tardy_jobs": 1}))
    report = check(Problem(tasks, (Resource("m"),), (), jobs, objective), Schedule({"a": 0, "b": 3}, {}))
    assert report.objective == (2 * 3 * 1 + 5, 3 * 3 + (5 - 1), 1 + 3)


def test_it_shares_no_code() -> None:
    import rota.mechanisms.shop.checker as module

    folder = Path(str(module.__file__)).parent
    imports = [
        line
        for path in (folder / name for name in ("checker.py", "rings.py", "violations.py"))
        for line in path.read_text().splitlines()
        if line.startswith(("from rota", "import rota"))
    ]
    allowed = (
        "from rota.contracts.shop import",
        "from rota.mechanisms.shop.rings import",
        "from rota.mechanisms.shop.violations import",
    )
    assert all(line.startswith(allowed) for line in imports), imports
