"""The portfolio on every kind of problem, and the solvers of single machines: checked, and equal to what CP-SAT proves."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from rota.contracts.shop import Budget, Job, Problem, Progress, Schedule
from rota.errors import UnsupportedPolicy
from rota.mechanisms.shop.checker import check
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.job_shop import TabuSearch
from rota.policies.solvers.lns import NeighbourhoodSearch
from rota.policies.solvers.portfolio import Line, Portfolio
from rota.policies.solvers.registry import make_solver
from rota.policies.solvers.single_machine import SEQUENCES, Decomposition
from rota.workload.shop.build import due_jobs, job_shop, project, single_machine
from tests.shop.random_problems import random_problem
from tests.shop.test_cpsat import FT06


def jobs(seed: int, n: int = 6) -> Problem:
    rng = random.Random(seed)
    durations = [rng.randint(0, 9) for _ in range(n)]
    problem = single_machine(due_jobs([rng.randint(-3, 30) for _ in durations]), durations)
    return replace(problem, tasks=tuple(rng.sample(problem.tasks, n)))


@pytest.mark.parametrize("seed", range(10))
def test_tardiness_by_rules_and_exactly(seed: int) -> None:
    problem = jobs(seed)
    optimum = CpSat().solve(problem, Budget(120, 1)).objective
    assert optimum is not None
    for name in ["decomposition", *(rule.lower() for rule in SEQUENCES)]:
        outcome = make_solver(name).solve(problem, Budget(5, 1))
        assert outcome.schedule is not None and outcome.objective is not None and outcome.bound is not None
        assert check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound).ok
        assert outcome.objective[0] >= optimum[0] >= (outcome.bound[0] or 0)
        if name == "decomposition":
            assert (outcome.status, outcome.objective) == ("optimal", optimum)


def test_jobs_without_a_due_date_are_never_late() -> None:
    problem = single_machine([Job("a", ("a",), due_date=2), Job("b", ("b",))], [5, 3])
    outcome = Decomposition().solve(problem, Budget(5, 1))
    assert outcome.objective == (3,) and outcome.schedule is not None
    assert outcome.schedule.start == {"a": 0, "b": 5}


@pytest.mark.parametrize("change", [{"weight": 2}, {"release_date": 3}])
def test_other_single_machines_are_refused(change: dict[str, int]) -> None:
    problem = jobs(1)
    with pytest.raises(UnsupportedPolicy, match="decomposition"):
        Decomposition().solve(replace(problem, jobs=tuple(replace(job, **change) for job in problem.jobs)), Budget(1, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("problem", "value", "first"),
    [
        (job_shop(FT06, 6), 55, "tabu"),
        (job_shop(FT06, 6, blocking="swap"), 63, "iterated-greedy"),
        (job_shop(FT06, 6, blocking="no-swap"), 69, "cp-sat"),
        (job_shop(FT06, 6, blocking="no-wait"), 73, "cp-sat"),
        (project([[(3, [2])], [(4, [1])], [(2, [2])]], [2], [], [(0, 2)], first=0), 9, "sampling"),
        (jobs(3, 8), None, "decomposition"),
    ],
)
def test_each_kind_goes_to_its_solvers(problem: Problem, value: int | None, first: str) -> None:
    seen: list[tuple[Progress, Schedule | None]] = []
    outcome = Portfolio().solve(problem, Budget(20, 2, seed=1), on_progress=lambda point, schedule: seen.append((point, schedule)))
    assert outcome.status == "optimal" and outcome.schedule is not None
    assert check(problem, outcome.schedule, objective=outcome.objective, bound=outcome.bound).ok
    assert value is None or outcome.objective == (value,)
    assert outcome.solver.startswith(f"portfolio of {first}")
    assert [point for point, _ in seen] == list(outcome.trace)
    for (a, _), (b, _) in pairwise(seen):
        assert a.wall_s <= b.wall_s and (a.objective is None or (b.objective is not None and b.objective <= a.objective))


@pytest.mark.parametrize("seed", range(40))
def test_any_problem_as_cp_sat_alone(seed: int) -> None:
    problem = random_problem(random.Random(seed))
    alone, outcome = CpSat().solve(problem, Budget(20, 1)), Portfolio().solve(problem, Budget(20, 1))
    assert (outcome.status, outcome.objective) == (alone.status, alone.objective)


def test_lines_of_ones_own() -> None:
    """Large-neighbourhood search takes up the tabu search's schedule; what only the last line can do goes there."""
    lines: tuple[tuple[int, Line], ...] = ((36, ((TabuSearch(), 0.01), (NeighbourhoodSearch(opening=0), 0.99))), (10**9, ((CpSat(), 1.0),)))
    outcome = Portfolio("mine", lines).solve(job_shop(FT06[::-1], 6), Budget(20, 1))
    assert outcome.objective == (55,) and outcome.solver.startswith("mine of tabu")
    rng = random.Random(1)
    larger = job_shop([[(m, rng.randint(1, 9)) for m in rng.sample(range(5), 5)] for _ in range(8)], 5)
    assert Portfolio("mine", lines).solve(larger, Budget(2, 1)).solver.startswith("mine of cp-sat")


def test_a_stop_in_the_first_solver_stops_all() -> None:
    def stop(point: Progress, schedule: Schedule | None) -> None:
        raise KeyboardInterrupt

    outcome = Portfolio().solve(job_shop(FT06, 6), Budget(60, 1), on_progress=stop)
    assert outcome.interrupted and outcome.schedule is not None


def test_every_kernel_is_compiled_at_install() -> None:
    from rota.policies.solvers import blocking, generation, project, tabu, tardiness
    from rota.policies.solvers.registry import solver_names
    from rota.warmup import warm_up_shops

    assert warm_up_shops() == len(solver_names())
    for kernel in (blocking.iterate, generation.active, generation.nondelay, project.parallel, project.serial, tabu.tabu_search, tardiness._unfold):
        assert kernel.signatures
