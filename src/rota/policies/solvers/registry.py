"""Solvers by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from rota.contracts.shop import Solver
from rota.errors import InputError
from rota.policies.dispatch.priorities import PRIORITIES
from rota.policies.solvers.blocking_shop import BlockingSearch
from rota.policies.solvers.cpsat import CpSat
from rota.policies.solvers.insertion import Insertion
from rota.policies.solvers.job_shop import DispatchRule, TabuSearch
from rota.policies.solvers.lns import NeighbourhoodSearch
from rota.policies.solvers.portfolio import Portfolio
from rota.policies.solvers.project import PROJECT_RULES
from rota.policies.solvers.project_solvers import Heft, PriorityRule, ProjectSampling
from rota.policies.solvers.serial import Serial
from rota.policies.solvers.single_machine import SEQUENCES, Decomposition, SequenceRule

_SOLVERS: dict[str, Callable[[], Solver]] = {
    "portfolio": Portfolio, "cp-sat": CpSat, "lns": NeighbourhoodSearch, "serial": Serial, "insertion": Insertion, "tabu": TabuSearch,
    "iterated-greedy": BlockingSearch, "sampling": ProjectSampling, "heft": Heft, "decomposition": Decomposition,
}  # fmt: skip
for _rule in PRIORITIES:
    _SOLVERS[_rule.lower()] = partial(DispatchRule, _rule)
    _SOLVERS[f"{_rule.lower()}-rollouts"] = partial(DispatchRule, _rule, best_of_many=True)
for _rule in SEQUENCES:
    _SOLVERS[_rule.lower()] = partial(SequenceRule, _rule)
for _rule in PROJECT_RULES:
    for _scheme in ("serial", "parallel"):
        _SOLVERS[f"{_rule.lower()}-{_scheme}"] = partial(PriorityRule, _rule, _scheme)
DEFAULT = "portfolio"


def solver_names() -> list[str]:
    """All names that `make_solver` knows."""
    return list(_SOLVERS)


def make_solver(name: str) -> Solver:
    """A new solver of this name.

    Raises
    ------
    InputError
        If there is none; names the nearest.
    """
    if name not in _SOLVERS:
        near = get_close_matches(name, _SOLVERS, 1)
        meant = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(_SOLVERS)}"
        raise InputError(f"there is no solver {name!r}; {meant}")
    return _SOLVERS[name]()
