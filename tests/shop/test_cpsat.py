"""CP-SAT against trying everything, published values, and the order of problems that only relax each other."""

from __future__ import annotations

import csv
import json
import random
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rota.contracts.shop import (
    Budget,
    Event,
    Lag,
    Mode,
    Objective,
    Outcome,
    Problem,
    Progress,
    Resource,
    Schedule,
    Solver,
    Task,
    Use,
    require,
)
from rota.errors import UnsupportedPolicy
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.breaks import end_pieces, merged
from rota.policies.solvers.cpsat import CpSat
from rota.workload.shop.build import BLOCKING, job_shop, task_graph
from rota.workload.shop.load import load_problem
from tests.shop.brute import end_of, optimum
from tests.shop.random_problems import random_problem

QUICK = Budget(wall_s=30, workers=1)
FT06 = [
    [(2, 1), (0, 3), (1, 6), (3, 7), (5, 3), (4, 6)], [(1, 8), (2, 5), (4, 10), (5, 10), (0, 10), (3, 4)],
    [(2, 5), (3, 4), (5, 8), (0, 9), (1, 1), (4, 7)], [(1, 5), (0, 5), (2, 5), (3, 3), (4, 8), (5, 9)],
    [(2, 9), (1, 3), (4, 5), (5, 4), (0, 3), (3, 1)], [(1, 3), (3, 3), (5, 9), (0, 10), (4, 4), (2, 1)],
]  # fmt: skip


def solved(problem: Problem, budget: Budget = QUICK) -> Outcome:
    """The outcome, its schedule and claims checked."""
    outcome = CpSat().solve(problem, budget)
    if outcome.schedule is not None:
        report = check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound)
        assert report.ok, (problem, outcome, report.violations)
    return outcome


@pytest.mark.parametrize("part", range(5))
def test_its_optimum_is_that_of_trying_everything(part: int) -> None:
    """600 problems over all mixes of features, all of which end within a limit that trying can exhaust."""
    seen: Counter[str] = Counter()
    for k in range(120):
        rng = random.Random(1000 * part + k)
        limit = rng.randint(5, 7)
        problem = random_problem(rng, n=rng.randint(2, 5 if limit < 7 else 4), limit=limit)
        outcome = solved(problem)
        best = optimum(problem, limit)
        assert outcome.status == ("infeasible" if best is None else "optimal"), (problem, outcome)
        assert (outcome.objective or (() if outcome.schedule else None)) == best, (problem, outcome, best)
        assert outcome.bound is None or outcome.bound == outcome.objective
        seen.update([outcome.status, *problem.features])
    assert len(seen) >= 24, seen
    assert min(seen["optimal"], seen["infeasible"]) > 20


def test_without_a_limit_nothing_shorter_exists() -> None:
    """The horizon, the sum of all that can be waited for, cuts off no optimum."""
    shorter = 0
    for k in range(60):
        problem = replace(random_problem(random.Random(k), n=3), objective=Objective.of("makespan"))
        outcome = solved(problem)
        if outcome.objective is not None and outcome.objective[0] <= 10:
            assert optimum(problem, outcome.objective[0] - 1) is None
            shorter += 1
        elif outcome.status == "infeasible":
            assert optimum(problem, 7) is None
    assert shorter > 30


def test_blocking_without_swaps_is_that_of_trying_everything() -> None:
    """Random shops of jobs that block each other: rings are common here, and forbidding them changes optima."""
    changed = 0
    for k in range(40):
        rng = random.Random(k)
        jobs = [[(machine, rng.randint(1, 2)) for machine in rng.sample(range(2), 2)] for _ in range(rng.randint(2, 3))]
        found = {}
        for blocking in BLOCKING:
            problem = job_shop(jobs, 2, blocking=blocking)
            found[blocking] = solved(problem).objective
            assert found[blocking] is not None
            assert optimum(problem, found[blocking][0] - 1) is None
            assert check(problem, _serial(problem)).ok
        # a no-wait schedule may have rings, so it is a blocking schedule only where swaps are allowed
        assert found["none"] <= found["swap"] <= min(found["no-swap"], found["no-wait"])
        changed += found["swap"] < found["no-swap"]
    assert changed >= 3


def _serial(problem: Problem) -> Schedule:
    """One job after the other."""
    now, start = 0, {}
    for task in problem.tasks:
        start[task.id] = now
        now += task.modes[0].duration
    return Schedule(start, {})


@pytest.mark.parametrize(("blocking", "makespan"), list(zip(BLOCKING, (55, 63, 69, 73), strict=True)))
def test_golden_ft06(blocking: str, makespan: int) -> None:
    outcome = solved(job_shop(FT06, 6, blocking=blocking), Budget(60, 2))
    assert (outcome.status, outcome.objective, outcome.bound) == ("optimal", (makespan,), (makespan,))


@pytest.mark.parametrize(
    "set_and_name",
    ["jobshop/classic#la01", "fjsp/instances#mt10x", "openshop/instances#j3-per0-1", "rcpsp/j30#j301_1", "rcpsp/j60#j601_1", "rcpsp_max/j10#j10_psp1",
     "rcpsp_max/j20#j20_psp1", "rcpsp_max/ubo10#ubo10_psp2", "mrcpsp/j10#j102_2"],
)  # fmt: skip
def test_published_optima_of_every_class(shared: Path, set_and_name: str) -> None:
    from rota.workload.shop.sets import read_bounds

    file, name = set_and_name.split("#")
    folder = shared / "data" / "shop"
    table = {
        "jobshop/classic": "jobshop/bounds_makespan",
        "fjsp/instances": "fjsp/bounds",
        "openshop/instances": "openshop/bounds",
    }
    bounds = read_bounds(folder / f"{table.get(file, file + '_bounds')}.csv")[name]
    outcome = solved(load_problem(folder / f"{file}.jsonl#{name}"), Budget(8, 2))
    if bounds.status == "infeasible":
        assert outcome.status == "infeasible"
    else:
        assert outcome.objective is not None
        assert bounds.lb is not None
        assert bounds.lb <= outcome.objective[0]
        assert outcome.status != "optimal" or outcome.objective[0] == bounds.ub


def test_published_optima_of_task_graphs_with_transfers(shared: Path) -> None:
    """The example of the HEFT paper and nine like it, on three processors: 73 where HEFT finds 80."""
    folder = shared / "data" / "shop" / "dag"
    chip = json.loads((folder / "soc_top.json").read_text())
    optimum_of = {
        row["job"]: int(row["optimum"]) for row in csv.DictReader((folder / "reference_makespans.csv").read_text().splitlines())
    }
    for job in chip["jobs"]:
        durations = [[int(pe["exec_us"][task]) for pe in chip["pes"] if pe["exec_us"]] for task in job["tasks"]]
        outcome = solved(task_graph(durations, [tuple(edge) for edge in job["edges"]], name=job["name"]))
        assert (outcome.status, outcome.objective) == ("optimal", (optimum_of[job["name"]],))


def test_scaling_time_scales_the_makespan() -> None:
    for k in (1, 3):
        assert solved(job_shop([[(m, k * d) for m, d in job] for job in FT06[:4]], 6)).objective == (47 * k,)


def test_progress_falls_towards_a_rising_bound() -> None:
    points: list[tuple[Progress, Schedule | None]] = []
    outcome = CpSat().solve(
        job_shop(FT06, 6), Budget(60, 2), on_progress=lambda point, schedule: points.append((point, schedule))
    )
    assert [point for point, _ in points] == list(outcome.trace)
    values = [point.objective for point, _ in points if point.objective is not None]
    bounds = [point.bound for point, _ in points if point.bound is not None]
    assert values == sorted(values, reverse=True)
    assert bounds == sorted(bounds)
    assert values[-1] == bounds[-1] == 55
    assert sum(schedule is not None for _, schedule in points) >= 1


def test_a_hint_is_where_it_starts() -> None:
    problem = job_shop(FT06, 6)
    best = solved(problem).schedule
    outcome = CpSat().solve(problem, QUICK, hint=best)
    assert next(point.objective for point in outcome.trace if point.objective is not None) == 55


def test_stopping_keeps_the_best_so_far() -> None:
    """Ctrl-C, as a callback raises it: the first schedule comes back, and is one."""
    rng = random.Random(0)
    problem = job_shop([[(m, rng.randint(1, 99)) for m in rng.sample(range(15), 15)] for _ in range(30)], 15)

    def stop(point: Progress, schedule: Schedule | None) -> None:
        if schedule is not None:
            raise KeyboardInterrupt

    began = time.perf_counter()
    outcome = CpSat().solve(problem, Budget(60, 2), on_progress=stop)
    assert time.perf_counter() - began < 40
    assert outcome.interrupted
    assert outcome.status == "feasible"
    assert outcome.schedule is not None
    assert check(problem, outcome.schedule, objective=outcome.objective).ok
    assert threading.active_count() < 5


def test_an_error_of_the_callback_is_raised() -> None:
    def fail(point: Progress, schedule: Schedule | None) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        CpSat().solve(job_shop(FT06, 6), QUICK, on_progress=fail)


def test_stages_are_kept_in_order() -> None:
    """Two machines, one dearer: the second stage may choose freely only among the best of the first."""
    tasks = tuple(Task(name, (Mode(2, (Use("fast"), Use("fuel", 2))), Mode(3, (Use("slow"),)))) for name in "ab")
    resources = (Resource("fast"), Resource("slow"), Resource("fuel", 4, "consumable"))
    quick = Problem(tasks, resources, objective=Objective.of("makespan", "consumable:fuel"))
    assert solved(quick).objective == (3, 2)
    frugal = replace(quick, objective=Objective.of("consumable:fuel", "makespan"))
    assert solved(frugal).objective == (0, 6)


def test_without_time_for_later_stages_their_values_are_still_true() -> None:
    rng = random.Random(1)
    problem = job_shop([[(m, rng.randint(1, 99)) for m in rng.sample(range(10), 10)] for _ in range(15)], 10)
    problem = replace(problem, objective=Objective.of("makespan", "total_completion"))
    outcome = solved(problem, Budget(3, 2))
    assert outcome.status == "feasible"
    assert outcome.objective is not None
    assert len(outcome.objective) == 2


def test_ends_around_breaks_are_those_of_working_tick_after_tick() -> None:
    rng = random.Random(5)
    for _ in range(300):
        at, steps = 0, []
        for _ in range(rng.randint(1, 4)):
            at += rng.randint(0 if not steps else 1, 4)
            steps.append((at, 0))
            at += rng.randint(1, 4)
            steps.append((at, 1))
        duration, latest = rng.randint(1, 5), rng.randint(8, 25)
        task = Task("a", (Mode(duration, (Use("m"),)),), allow_breaks=True)
        problem = Problem((task,), (Resource("m", calendar=tuple(steps)),))
        breaks = merged([(a, b) for (a, _), (b, _) in zip(steps[::2], steps[1::2], strict=True)])
        pieces = end_pieces(duration, breaks, latest)
        for start in range(latest + 1):
            ends = {piece.at if piece.fixed else start + piece.at for piece in pieces if piece.first <= start <= piece.last}
            true = end_of(problem, task, 0, start)
            assert ends == ({true} if true is not None and true <= latest else set()) or (true is not None and true > latest), (
                steps,
                duration,
                start,
            )
            assert len(ends) <= 1


def test_what_a_solver_lacks_it_refuses_by_name() -> None:
    class Plain:
        name = "plain"

        def capabilities(self) -> frozenset[str]:
            return frozenset({"makespan"})

        def solve(self, *_: object) -> None: ...

    assert isinstance(CpSat(), Solver)
    problem = Problem(
        tuple(Task(name, (Mode(1, (Use("m"),)),)) for name in "ab"), (Resource("m", 2),), (Lag(Event("a", "start"), Event("b", "start"), max=3),)
    )  # fmt: skip
    with pytest.raises(UnsupportedPolicy, match="plain cannot handle cumulative, lags, max_lags"):
        require(Plain(), problem)  # type: ignore[arg-type]
