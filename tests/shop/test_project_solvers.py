"""Schedule generation for projects and HEFT: golden numbers, the checker, bounds, and sampling that never loses to its rules."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rota.contracts.shop import Budget, Event, Lag, Mode, Objective, Problem, Resource, Task, Use
from rota.errors import UnsupportedPolicy
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.heft import upward_ranks
from rota.policies.solvers.project import PROJECT_RULES, justified, makespan_of, parallel, reversed_project, serial
from rota.policies.solvers.project_solvers import Heft, PriorityRule, ProjectSampling, as_project
from rota.workload.shop.build import job_shop, project
from rota.workload.shop.sets import read_bounds, read_set

RULES = [PriorityRule(rule, scheme) for rule in PROJECT_RULES for scheme in ("serial", "parallel")]


def random_project(seed: int) -> Problem:
    rng = random.Random(seed)
    n, resources = rng.randint(1, 7), rng.randint(1, 2)
    capacity = [rng.randint(1, 4) for _ in range(resources)]
    modes = [[(rng.randint(0, 6), [rng.randint(0, c) for c in capacity])] for _ in range(n)]
    edges = [(i, j) for i in range(n) for j in range(i + 1, n) if rng.random() < 0.25]
    problem = project(modes, capacity, [], edges)
    lags = tuple(replace(lag, min=rng.choice([0, 0, 3])) for lag in problem.lags)
    tasks = list(problem.tasks)
    rng.shuffle(tasks)
    return replace(problem, lags=lags, tasks=tuple(tasks))


@pytest.mark.parametrize("seed", range(25))
def test_schedules_pass_the_checker_and_bounds_hold(seed: int) -> None:
    problem = random_project(seed)
    optimum = CpSat().solve(problem, Budget(120, 1)).objective
    assert optimum is not None
    best = None
    for solver in [*RULES, ProjectSampling()]:
        outcome = solver.solve(problem, Budget(0.05, 1))
        assert outcome.schedule is not None and outcome.objective is not None and outcome.bound is not None and outcome.bound[0] is not None
        assert check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound).ok
        assert outcome.bound[0] <= optimum[0] <= outcome.objective[0]
        best = min(best or outcome.objective, outcome.objective)
    assert outcome.objective == best  # sampling begins with all rules


@pytest.mark.parametrize("seed", range(40))
def test_justification_never_makes_a_schedule_longer(seed: int) -> None:
    columns, _ = as_project(random_project(seed), "test")
    backwards = reversed_project(columns)
    rng = np.random.default_rng(seed)
    for generate in (serial, parallel):
        start = generate(columns, rng.standard_normal(len(columns.duration)))
        assert makespan_of(columns, justified(columns, backwards, start)) <= makespan_of(columns, start)


def test_sampled_projects_of_the_library(shared: Path) -> None:
    folder = shared / "data" / "shop" / "rcpsp"
    bounds = read_bounds(folder / "j60_bounds.csv")
    off = []
    with (folder / "j60.jsonl").open() as lines:
        for line in list(lines)[::60]:
            name = json.loads(line)["name"]
            problem = read_set(line, "set", name)
            outcome = ProjectSampling().solve(problem, Budget(1, 1))
            assert outcome.schedule is not None and outcome.objective is not None
            assert check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound).ok
            lb, ub, _ = bounds[name]
            assert lb is not None and ub is not None and lb <= outcome.objective[0]
            off.append(outcome.objective[0] / ub - 1)
    assert np.mean(off) < 0.03


def task_graph(soc: dict[str, object], job: dict[str, object]) -> Problem:
    """A job of the SoC example: a mode per processor, transfers at bandwidth 1 between processors and none within one."""
    pes = [pe for pe in soc["pes"] if pe["exec_us"]]  # type: ignore[attr-defined]
    names = job["tasks"]
    tasks = tuple(
        Task(name, tuple(Mode(int(pe["exec_us"][name]), (Use(pe["name"]),)) for pe in pes)) for name in names  # type: ignore[attr-defined]
    )
    apart = [(a, b) for a in range(len(pes)) for b in range(len(pes)) if a != b]
    lags = tuple(
        Lag(Event(names[i], "end"), Event(names[j], "start"), 0, by_modes=dict.fromkeys(apart, volume))  # type: ignore[index]
        for i, j, volume in job["edges"]  # type: ignore[attr-defined]
    )
    return Problem(tasks, tuple(Resource(pe["name"]) for pe in pes), lags, name=str(job["name"]))


def test_heft_as_published(shared: Path) -> None:
    folder = shared / "data" / "shop" / "dag"
    soc = json.loads((folder / "soc_top.json").read_text())
    with (folder / "reference_makespans.csv").open() as file:
        reference = {row["job"]: row for row in csv.DictReader(file)}
    for job in soc["jobs"]:
        problem = task_graph(soc, job)
        outcome = Heft().solve(problem, Budget(1, 1))
        assert outcome.schedule is not None
        assert check(problem, outcome.schedule, objective=outcome.objective).ok
        assert outcome.objective == (int(reference[job["name"]]["heft_insertion"]),)
    first = task_graph(soc, soc["jobs"][0])
    proven = CpSat().solve(first, Budget(30, 1))
    assert (proven.status, proven.objective) == ("optimal", (73,))


def test_ranks_of_the_papers_example(shared: Path) -> None:
    soc = json.loads((shared / "data" / "shop" / "dag" / "soc_top.json").read_text())
    problem = task_graph(soc, soc["jobs"][0])
    work = [np.array([mode.duration for mode in task.modes]) for task in problem.tasks]
    where = [np.arange(3) for _ in problem.tasks]
    transfers = {(i, j): volume * (1 - np.eye(3, dtype=np.int64)) for i, j, volume in soc["jobs"][0]["edges"]}
    ranks = upward_ranks(work, where, transfers)
    assert ranks.round(2).tolist() == [108, 77, 80, 80, 69, 63.33, 42.67, 35.67, 44.33, 14.67]


def test_what_is_not_theirs_is_refused() -> None:
    shop = job_shop([[(0, 1), (1, 2)]], 2)
    odd = replace(shop, lags=(Lag(Event("j0.0", "start"), Event("j0.1", "start"), 2),))
    for solver in (RULES[0], ProjectSampling(), Heft()):
        with pytest.raises(UnsupportedPolicy, match=r"between j0\.0 and j0\.1"):
            solver.solve(odd, Budget(1, 1))
        with pytest.raises(UnsupportedPolicy, match="total_completion"):
            solver.solve(replace(shop, objective=Objective.of("total_completion")), Budget(1, 1))
