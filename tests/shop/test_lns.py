"""Large-neighbourhood search: what is frozen is true and enough, the objective never rises, and a neighbourhood of everything proves optima."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rota.contracts.shop import Budget, Event, Objective, Outcome, Problem, Progress, Schedule
from rota.errors import InputError
from rota.mechanisms.shop.checker import check
from rota.policies.solvers import lns
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.first import first_schedule
from rota.policies.solvers.freeze import event_times, freeze
from rota.policies.solvers.lns import NeighbourhoodSearch
from rota.policies.solvers.neighbourhoods import NEIGHBOURHOODS, layout, middles, window
from rota.workload.shop.build import job_shop
from rota.workload.shop.load import load_problem
from tests.shop.brute import feasible
from tests.shop.random_problems import random_problem, random_schedule

QUICK = Budget(30, 1)


def any_schedule(problem: Problem, rng: random.Random | None = None) -> Schedule | None:
    """A feasible schedule; with luck, one in which some wait for nothing."""
    problem = replace(problem, objective=None)
    if rng is not None:
        late = tuple(replace(task, earliest_start=task.earliest_start + rng.randint(0, 6)) for task in problem.tasks)
        try:
            found = CpSat().solve(replace(problem, tasks=late), QUICK).schedule
        except InputError:
            found = None
        if found is not None:
            return found
    return CpSat().solve(problem, QUICK).schedule


def random_shop(seed: int, jobs: int, machines: int) -> Problem:
    rng = random.Random(seed)
    return job_shop([[(m, rng.randint(1, 99)) for m in rng.sample(range(machines), machines)] for _ in range(jobs)], machines)


def solved(problem: Problem, hint: Schedule | None, opening: float, budget: Budget = QUICK) -> Outcome:
    """The outcome; every schedule on the way is checked, each better than the one before."""
    seen: list[tuple[int, ...]] = []

    def on_progress(point: Progress, schedule: Schedule | None) -> None:
        if schedule is not None:
            report = check(problem, schedule)
            assert report.ok, (problem, schedule, report.violations)
            seen.append(report.objective or ())

    outcome = NeighbourhoodSearch(opening=opening).solve(problem, budget, hint, on_progress)
    assert all(b < a for a, b in pairwise(seen)), (problem, seen)
    if outcome.schedule is not None:
        assert check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound).ok
        assert not seen or (outcome.objective or ()) == seen[-1]
    return outcome


@pytest.mark.parametrize("first", [2, 30])
def test_its_optimum_is_that_of_cp_sat(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All mixes of features; with neighbourhoods of everything, and with small ones that grow to everything."""
    monkeypatch.setattr(lns, "FIRST", first)
    seen: Counter[str] = Counter()
    for k in range(250):
        rng = random.Random(5000 + k)
        problem = random_problem(rng, n=rng.randint(2, 6), limit=rng.choice([None, 8, 12]))
        hint = any_schedule(problem, rng)
        alone = CpSat().solve(problem, QUICK)
        if hint is None:
            assert solved(problem, None, 0.1).status == alone.status == "infeasible"
            continue
        outcome = solved(problem, hint, 0)
        assert (outcome.status, outcome.objective) == ("optimal", alone.objective), (problem, outcome, alone)
        assert outcome.bound == outcome.objective
        seen.update([*problem.features, "improved" if check(problem, hint).objective != outcome.objective else "as given"])
    assert len(seen) >= 24 and seen["improved"] > 60, seen


def test_what_is_frozen_is_true_of_the_schedule() -> None:
    rng = random.Random(1)
    found = 0
    while found < 400:
        problem = random_problem(rng)
        schedule = random_schedule(rng, problem, rng.randint(4, 14))
        if not feasible(problem, schedule):
            continue
        names = [task.id for task in problem.tasks]
        free = set(rng.sample(names, rng.randint(0, len(names))))
        frozen = freeze(problem, schedule, free)
        times = event_times(problem, schedule)
        assert frozen.mode == {name: schedule.mode[name] for name in names if name not in free}
        # what a frozen task holds may be released by a free one
        assert all(times[a] <= times[b] and b.task not in free for a, b in frozen.order)
        found += len(names) > 1


def test_any_times_in_the_frozen_order_are_feasible() -> None:
    """A partial-order schedule: delays that keep order, durations and lags never break a resource."""
    beyond = {"max_lags", "calendar", "breaks", "windows", "deadline", "setups", "no_swap", "release"}
    rng = random.Random(2)
    held = 0
    while held < 120:
        problem = replace(random_problem(rng), objective=None)
        schedule = random_schedule(rng, problem, rng.randint(4, 14))
        if problem.features & beyond or not feasible(problem, schedule):
            continue
        times = event_times(problem, schedule)
        holds = [(task.id, use) for task in problem.tasks for use in task.modes[schedule.mode[task.id]].uses]
        if any(use.until and times[use.until] == schedule.start[name] for name, use in holds):
            continue  # a hold that is empty here has no place in the order, and may grow
        frozen = freeze(problem, schedule, set())
        edges = [(a, b, 0) for a, b in frozen.order]
        for task in problem.tasks:
            ticks = task.modes[schedule.mode[task.id]].duration
            edges += [(Event(task.id, "start"), Event(task.id, "end"), ticks), (Event(task.id, "end"), Event(task.id, "start"), -ticks)]
        for lag in problem.lags:
            assert lag.min is not None
            pair = (schedule.mode[lag.a.task], schedule.mode[lag.b.task])
            edges.append((lag.a, lag.b, lag.min + (lag.by_modes or {}).get(pair, 0)))
        at = {Event(task.id, edge): rng.randint(0, 4) for task in problem.tasks for edge in ("start", "end")}
        for _ in at:
            for a, b, ticks in edges:
                at[b] = max(at[b], at[a] + ticks)
        later = Schedule({task.id: at[Event(task.id, "start")] for task in problem.tasks}, schedule.mode)
        assert check(problem, later).ok, (problem, schedule, later)
        held += bool(frozen.order)


@pytest.mark.parametrize("kind", NEIGHBOURHOODS)
def test_neighbourhoods_are_as_large_as_asked(kind: str) -> None:
    problem = random_shop(0, 8, 6)
    schedule = first_schedule(problem)
    assert schedule is not None
    middle = middles(problem, event_times(problem, schedule))
    rng = np.random.default_rng(0)
    drawn = set()
    for size in range(1, 49):
        chosen = NEIGHBOURHOODS[kind](layout(problem), middle, size, rng)
        assert chosen <= set(range(48))
        # half of the resources have no more tasks than half
        assert len(chosen) == (min(size, 24) if kind == "block" else size)
        drawn |= chosen
    assert drawn == set(range(48))


def test_what_lies_between_two_of_a_window_is_in_it_too() -> None:
    problem = random_shop(1, 8, 6)
    schedule = first_schedule(problem)
    assert schedule is not None
    middle = middles(problem, event_times(problem, schedule))
    for seed in range(20):
        times = sorted(middle[list(window(layout(problem), middle, 15, np.random.default_rng(seed)))])
        assert ((middle > times[0]) & (middle < times[-1])).sum() <= 15


def test_the_same_seed_finds_the_same() -> None:
    """One worker: effort is counted, not timed, so what is found does not depend on how busy the machine is."""
    problem = random_shop(2, 10, 8)

    def values(seed: int) -> list[int]:
        found: list[int] = []

        def stop(point: Progress, schedule: Schedule | None) -> None:
            assert point.objective is not None
            found.append(point.objective)
            if len(found) == 5:
                raise KeyboardInterrupt

        NeighbourhoodSearch(opening=0).solve(problem, Budget(120, 1, seed), first_schedule(problem), stop)
        return found

    assert values(1) == values(1) != values(2)


@pytest.mark.parametrize("opening", [0, 0.5])
def test_ctrl_c_returns_the_best_so_far(opening: float) -> None:
    """In CP-SAT on the whole problem, and between neighbourhoods."""
    problem = random_shop(3, 30, 15)
    timer = threading.Timer(2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    began = time.perf_counter()
    outcome = NeighbourhoodSearch(opening=opening).solve(problem, Budget(100, 2), first_schedule(problem))
    assert outcome.interrupted and outcome.schedule is not None
    assert time.perf_counter() - began < 40
    assert check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound).ok


def test_an_error_of_the_callback_is_raised() -> None:
    def fail(point: Progress, schedule: Schedule | None) -> None:
        if schedule is not None and point.objective is not None and point.objective < first:
            raise ValueError("mine")

    problem = random_shop(4, 6, 5)
    hint = first_schedule(problem)
    assert hint is not None
    first = max(event_times(problem, hint).values())
    with pytest.raises(ValueError, match="mine"):
        NeighbourhoodSearch(opening=0).solve(problem, QUICK, hint, fail)


@pytest.mark.parametrize("opening", [0, 0.1])
def test_a_problem_without_objective_needs_a_schedule_only(opening: float) -> None:
    problem = replace(random_shop(5, 3, 3), objective=None)
    outcome = NeighbourhoodSearch(opening=opening).solve(problem, QUICK, any_schedule(problem))
    assert (outcome.status, outcome.objective) == ("optimal", None) and outcome.schedule is not None


def test_later_stages_are_improved_once_the_first_is_proven() -> None:
    problem = replace(random_shop(6, 3, 3), objective=Objective.of("makespan", "total_completion"))
    outcome = solved(problem, any_schedule(problem), 0)
    assert outcome.status == "optimal" and outcome.objective == CpSat().solve(problem, QUICK).objective


@pytest.mark.parametrize(
    ("set_and_name", "blocking", "optimum"),
    [
        ("jobshop/classic#la16", "none", 945),
        ("rcpsp/j30#j301_1", "none", 43),
        pytest.param("jobshop/classic#ft10", "none", 930, marks=pytest.mark.slow),
        pytest.param("jobshop/classic#la02", "swap", 793, marks=pytest.mark.slow),
        pytest.param("fjsp/instances#mt10x", "none", 918, marks=pytest.mark.slow),
    ],
)
def test_published_optima(shared: Path, set_and_name: str, blocking: str, optimum: int) -> None:
    """Stopped as soon as it has them. One worker: its effort is counted, so a busy machine takes longer to get there and no other way."""

    def stop(point: Progress, schedule: Schedule | None) -> None:
        if point.objective == optimum:
            raise KeyboardInterrupt

    problem = load_problem(shared / "data" / "shop" / set_and_name.replace("#", ".jsonl#"), blocking=blocking)
    outcome = NeighbourhoodSearch(opening=0).solve(problem, Budget(600, 1, seed=2), first_schedule(problem), stop)
    assert outcome.objective == (optimum,)
