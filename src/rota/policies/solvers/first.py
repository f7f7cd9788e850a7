"""A first schedule, at once, for searches to start from: by whichever constructive solver can handle the problem."""

from __future__ import annotations

from rota.contracts.shop import Budget, Problem, Schedule
from rota.errors import UnsupportedPolicy
from rota.policies.solvers.insertion import Insertion
from rota.policies.solvers.serial import Serial


def first_schedule(problem: Problem) -> Schedule | None:
    """A feasible schedule, or None where none of them finds one."""
    for solver in (Serial(), Insertion()):
        try:
            schedule = solver.solve(problem, Budget()).schedule
        except UnsupportedPolicy:
            continue
        if schedule is not None:
            return schedule
    return None
