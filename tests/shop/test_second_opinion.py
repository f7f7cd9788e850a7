"""The same problems built in PyJobShop, where it can express them: the same optimum, and our schedules pass there with all starts fixed."""

from __future__ import annotations

import random
from dataclasses import replace

import pyjobshop

from rota.contracts.shop import Budget, Objective, Problem, Schedule
from rota.policies.solvers.cpsat import CpSat
from tests.shop.random_problems import random_problem

CAN = frozenset({"modes", "cumulative", "consumable", "lags", "max_lags", "windows", "release", "deadline", "makespan"})


def build(problem: Problem, fixed: Schedule | None = None) -> pyjobshop.Model:
    """The problem in PyJobShop's words; with the starts and modes of `fixed` only, if that is given."""
    model = pyjobshop.Model()
    resources = {
        r.id: model.add_renewable(r.capacity) if r.kind == "renewable" else model.add_consumable(r.capacity)
        for r in problem.resources
    }
    job_of = {name: job for job in problem.jobs for name in job.tasks}
    jobs = {
        job.id: model.add_job(release_date=job.release_date, **({} if job.deadline is None else {"deadline": job.deadline}))
        for job in problem.jobs
    }
    tasks = {}
    for task in problem.tasks:
        limits = {} if task.latest_end is None else {"latest_end": task.latest_end}
        if fixed is not None:
            limits["latest_start"] = fixed.start[task.id]
        earliest = task.earliest_start if fixed is None else fixed.start[task.id]
        job = jobs[job_of[task.id].id] if task.id in job_of else None
        tasks[task.id] = model.add_task(job, earliest_start=earliest, **limits)
        for m, mode in enumerate(task.modes):
            if fixed is None or fixed.mode[task.id] == m:
                model.add_mode(
                    tasks[task.id],
                    [resources[use.resource] for use in mode.uses],
                    mode.duration,
                    [use.amount for use in mode.uses],
                )
    for lag in problem.lags:
        for (first, a), (second, b), ticks in ((lag.a, lag.b, lag.min), (lag.b, lag.a, None if lag.max is None else -lag.max)):
            if ticks is not None:
                add = getattr(model, f"add_{a}_before_{b}")
                add(tasks[first], tasks[second], delay=ticks)
    model.set_objective(weight_makespan=1)
    return model


def test_both_find_the_same_optimum() -> None:
    compared = infeasible = 0
    for k in range(800):
        problem = replace(random_problem(random.Random(k)), objective=Objective.of("makespan"))
        if not problem.features <= CAN:
            continue
        mine = CpSat().solve(problem, Budget(20, 1))
        theirs = build(problem).solve(time_limit=20, display=False, num_workers=1)
        if mine.schedule is None:
            assert theirs.status.value.lower() == "infeasible"
            infeasible += 1
            continue
        assert mine.objective == (round(theirs.objective),), problem
        replayed = build(problem, mine.schedule).solve(time_limit=20, display=False, num_workers=1)
        assert round(replayed.objective) == mine.objective[0]
        compared += 1
    assert compared > 60
    assert infeasible > 2
