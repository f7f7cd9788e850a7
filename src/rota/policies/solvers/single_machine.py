"""Solvers for total tardiness on one machine: rules, and the exact decomposition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from rota.contracts.shop import Budget, Feature, OnProgress, Outcome, Problem, Schedule, require
from rota.policies.dispatch.augmented import augmented
from rota.policies.dispatch.edd import edd
from rota.policies.dispatch.eddc import eddc
from rota.policies.dispatch.mdd import mdd
from rota.policies.dispatch.mddc import mddc
from rota.policies.dispatch.psk import psk
from rota.policies.dispatch.sequencing import Ints, sequence, total_tardiness
from rota.policies.solvers.incumbent import Incumbent
from rota.policies.solvers.recognise import NamedJobs, as_single_machine
from rota.policies.solvers.tardiness import minimise_tardiness, relaxed_tardiness

_FEATURES: frozenset[Feature] = frozenset({"total_tardiness"})
#: By name: the order in which a rule runs jobs, from durations and due dates.
SEQUENCES: dict[str, Callable[[Ints, Ints], Ints]] = {
    "EDD": partial(sequence, edd),
    "MDD": partial(sequence, mdd),
    "MDDC": partial(sequence, mddc),
    "EDDC": eddc,
    "PSK": partial(sequence, psk),
    "Aug-MDD": partial(augmented, mdd),
    "Aug-MDDC": partial(augmented, mddc),
}


@dataclass(frozen=True, slots=True)
class SequenceRule:
    """One rule of `SEQUENCES`."""

    rule: str

    @property
    def name(self) -> str:
        """As on the command line."""
        return self.rule.lower()

    def capabilities(self) -> frozenset[Feature]:
        """Total tardiness, unweighted, on one machine."""
        return _FEATURES

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The rule's schedule."""
        require(self, problem)
        jobs = as_single_machine(problem, self.name)
        incumbent = Incumbent(problem, budget, on_progress)
        incumbent.raise_bound(relaxed_tardiness(jobs.p, jobs.d))
        order = SEQUENCES[self.rule](jobs.p, jobs.d)
        incumbent.offer(total_tardiness(order, jobs.p, jobs.d), lambda: _schedule(jobs, order))
        return incumbent.outcome(self.name)


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The exact method; out of time, the best rule's schedule."""

    name: str = "decomposition"

    def capabilities(self) -> frozenset[Feature]:
        """Total tardiness, unweighted, on one machine."""
        return _FEATURES

    def prepare(self) -> None:
        """Compile, which is not to count as time of the search."""
        _compile()

    def solve(self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None) -> Outcome:
        """The optimum, if there is time."""
        require(self, problem)
        jobs = as_single_machine(problem, self.name)
        self.prepare()
        incumbent = Incumbent(problem, budget, on_progress)
        rule = sequence(mdd, jobs.p, jobs.d)
        incumbent.raise_bound(relaxed_tardiness(jobs.p, jobs.d))
        incumbent.offer(total_tardiness(rule, jobs.p, jobs.d), lambda: _schedule(jobs, rule))
        try:
            if not incumbent.done:
                found = minimise_tardiness(jobs.p, jobs.d, wall_s=max(0.0, incumbent.left))
                incumbent.raise_bound(found.bound)
                incumbent.offer(found.value, lambda: _schedule(jobs, found.order))
        except KeyboardInterrupt:
            incumbent.interrupted = True
        return incumbent.outcome(self.name)


@cache
def _compile() -> None:
    minimise_tardiness(np.array([2, 1, 3]), np.array([1, 1, 1]))


def _schedule(jobs: NamedJobs, order: Ints) -> Schedule:
    ends = np.cumsum(jobs.p[order])
    start = dict(zip([jobs.tasks[i] for i in order], (ends - jobs.p[order]).tolist(), strict=True))
    return Schedule(start, dict.fromkeys(start, 0))
