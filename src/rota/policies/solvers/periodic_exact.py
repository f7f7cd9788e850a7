"""The most periodic demands that can be admitted together without preemption, by CP-SAT: what heuristics are measured against.

It needs the extra ``solve`` (``pip install 'rota[solve]'``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rota.contracts.shop import Budget
from rota.errors import UnsupportedPolicy
from rota.policies.solvers.periodic_edf import begin
from rota.workload.shop.periodic import Periodic, Start, capacities, hyperperiod


class Admission(NamedTuple):
    """What was found.

    Parameters
    ----------
    accepted : list of int
        Numbers of the demands.
    starts : list of lists of Start
        Of their instances in their own hyperperiod, in ticks.
    pairs, bound : int
        Instances in a hyperperiod of all demands: of what was accepted, and no more than so many of any set that can be.
    """

    accepted: list[int]
    starts: list[list[Start]]
    pairs: int
    bound: int

    @property
    def proven(self) -> bool:
        """Whether no set has more."""
        return self.pairs == self.bound


def most_admitted(demands: Sequence[Periodic], budget: Budget, hint: tuple[Sequence[int], Sequence[Sequence[Start]]] = ((), ())) -> Admission:
    """A set of demands whose instances all meet their deadlines, with as many instances in a hyperperiod as could be found.

    Parameters
    ----------
    demands : sequence of Periodic
    budget : Budget
    hint : (sequence of int, sequence of sequences of Start)
        What a heuristic admits, and when it starts, none in parts (`rota.policies.solvers.periodic_edf.admit`); the search begins there.

    Raises
    ------
    UnsupportedPolicy
        If OR-Tools is not installed.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise UnsupportedPolicy("the exact bound needs OR-Tools; pip install 'rota[solve]'") from None
    if not demands:
        return Admission([], [], 0, 0)
    model = cp_model.CpModel()
    length = hyperperiod(demands)
    units = capacities(demands)
    uses: dict[str, list[cp_model.IntervalVar]] = {name: [] for name in units}
    taken = [model.new_bool_var(f"{j}") for j in range(len(demands))]
    starts: list[list[cp_model.IntVar]] = []
    for j, one in enumerate(demands):
        profile = one.protocol.profile()
        own = []
        for k in range(length // one.period):
            start = model.new_int_var(k * one.period, (k + 1) * one.period - one.protocol.duration, f"{j}.{k}")
            own.append(start)
            for name, spans in profile.items():
                uses[name] += [
                    model.new_optional_fixed_size_interval_var(start + a, b - a, taken[j], f"{j}.{k}.{name}.{a}") for a, b in spans
                ]  # fmt: skip
        starts.append(own)
        model.add_hint(taken[j], j in hint[0])
    known = hyperperiod([demands[j] for j in hint[0]]) if hint[0] else length
    for j, given in zip(*hint, strict=True):
        for k, start in enumerate(starts[j]):
            again, which = divmod(k, len(given))
            model.add_hint(start, begin(given[which]) + again * known)
    for name, intervals in uses.items():
        if units[name] == 1:
            model.add_no_overlap(intervals)
        else:
            model.add_cumulative(intervals, [1] * len(intervals), units[name])
        # so many slots there are: the relaxation by itself would not see it
        ticks = [sum(b - a for a, b in one.protocol.profile().get(name, ())) * (length // one.period) for one in demands]
        model.add(sum(taken[j] * total for j, total in enumerate(ticks)) <= units[name] * length)
    model.maximize(sum(taken[j] * (length // one.period) for j, one in enumerate(demands)))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = budget.wall_s
    solver.parameters.num_workers = budget.workers
    solver.parameters.random_seed = budget.seed
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Admission([], [], 0, min(round(solver.best_objective_bound), sum(length // one.period for one in demands)))
    accepted = [j for j in range(len(demands)) if solver.value(taken[j])]
    shorter = hyperperiod([demands[j] for j in accepted]) if accepted else length  # its first instances are a schedule by themselves
    found: list[list[Start]] = [[solver.value(start) for start in starts[j][: shorter // demands[j].period]] for j in accepted]
    pairs = sum(length // demands[j].period for j in accepted)
    return Admission(accepted, found, pairs, int(solver.best_objective_bound + 1e-6))
