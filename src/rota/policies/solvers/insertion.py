"""Job insertion for shops whose jobs hold machines beyond their operations: job after job, each into the gaps that the others leave.

A job's operations are pushed back one after the other until each finds its machine free for as long as the job must stay on it, and no wait is
longer than its maximum lag. At the latest behind all that is placed, everything fits, so a schedule is always found.
"""

from __future__ import annotations

from dataclasses import dataclass

from rota.contracts.shop import (
    DUE_TERMS,
    Budget,
    Event,
    Feature,
    Mode,
    OnProgress,
    Outcome,
    Problem,
    Progress,
    Schedule,
    Task,
    require,
)
from rota.errors import UnsupportedPolicy
from rota.policies.solvers.evaluate import stage_values
from rota.policies.solvers.profile import Profile, earliest

_CAN: frozenset[Feature] = frozenset(
    {"modes", "cumulative", "until", "no_swap", "lags", "max_lags", "release", "makespan", "total_completion", "total_flow_time",
     "total_tardiness", "max_lateness", "tardy_jobs", "lexicographic"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Insertion:
    """One schedule, at once, for jobs that are chains: lags go from the end of an operation to the start of the next, and from nowhere else."""

    name: str = "insertion"

    def capabilities(self) -> frozenset[Feature]:
        """What job shops with blocking, limited waits and flexible machines need."""
        return _CAN

    def solve(
        self, problem: Problem, budget: Budget, hint: Schedule | None = None, on_progress: OnProgress | None = None
    ) -> Outcome:
        """The schedule; budget and hint are not looked at.

        Raises
        ------
        UnsupportedPolicy
            If the jobs are no chains.
        """
        require(self, problem)
        chains = _chains(problem)
        if chains is None:
            raise UnsupportedPolicy(f"{self.name} needs jobs that are chains of operations; those of {problem.name} are not")
        schedule = _insert_all(problem, chains)
        values = stage_values(problem, schedule)
        point = Progress(0.0, values[0] if values else None, None)
        if on_progress is not None:
            on_progress(point, schedule)
        if problem.objective is None:
            return Outcome("optimal", schedule, None, None, (point,), self.name)
        return Outcome("feasible", schedule, values, (None,) * len(values), (point,), self.name)


@dataclass(slots=True)
class _Operation:
    """One operation of a chain, and the wait to the next: at least `wait`, at most `longest_wait` if that is given."""

    task: Task
    wait: int = 0
    longest_wait: int | None = None


def _chains(problem: Problem) -> list[list[_Operation]] | None:
    """The jobs as chains; None if lags branch, do not go from end to start, or a hold ends elsewhere than at the next operation's start."""
    following: dict[str, str] = {}
    operations = {task.id: _Operation(task) for task in problem.tasks}
    for lag in problem.lags:
        a, b = lag.a[0], lag.b[0]
        if (lag.a[1], lag.b[1]) != ("end", "start") or lag.min is None or lag.min < 0 or following.setdefault(a, b) != b:
            return None
        operation = operations[a]
        operation.wait = max(operation.wait, lag.min)
        if lag.max is not None:
            operation.longest_wait = lag.max if operation.longest_wait is None else min(lag.max, operation.longest_wait)
    if len(set(following.values())) < len(following):
        return None
    for task in problem.tasks:
        ends = {Event(task.id, "end"), Event(following[task.id], "start")} if task.id in following else {Event(task.id, "end")}
        if any(use.until is not None and use.until not in ends for mode in task.modes for use in mode.uses):
            return None
    chains = []
    for first in operations.keys() - set(following.values()):
        chain = [operations[first]]
        while chain[-1].task.id in following:
            chain.append(operations[following[chain[-1].task.id]])
        chains.append(chain)
    return chains


def _insert_all(problem: Problem, chains: list[list[_Operation]]) -> Schedule:
    """Chains by due date, where that counts, then the one with most work first."""
    stages = problem.objective.stages if problem.objective else ()
    counts = bool(stages) and any(term in DUE_TERMS for term in stages[0])
    due = {name: job.due_date for job in problem.jobs for name in job.tasks if counts and job.due_date is not None}
    release = {name: job.release_date for job in problem.jobs for name in job.tasks}
    number = {task.id: i for i, task in enumerate(problem.tasks)}

    def urgency(chain: list[_Operation]) -> tuple[int, int, int]:
        work = sum(min(mode.duration for mode in operation.task.modes) for operation in chain)
        return due.get(chain[-1].task.id, problem.horizon), -work, number[chain[0].task.id]

    free = {resource.id: Profile(resource) for resource in problem.resources}
    load = dict.fromkeys(free, 0)
    start: dict[str, int] = {}
    picked: dict[str, int] = {}
    for chain in sorted(chains, key=urgency):
        modes = [_least_loaded(operation.task, load, problem) for operation in chain]
        chosen = [operation.task.modes[m] for operation, m in zip(chain, modes, strict=True)]
        starts = _insert(chain, chosen, [release.get(operation.task.id, 0) for operation in chain], free)
        for k, operation in enumerate(chain):
            start[operation.task.id], picked[operation.task.id] = starts[k], modes[k]
            for use in chosen[k].uses:
                waits = use.until is not None and use.until[0] != operation.task.id
                end = starts[k + 1] if waits else starts[k] + chosen[k].duration
                load[use.resource] += chosen[k].duration
                if end > starts[k]:
                    # where rings are forbidden, a tick between a job and those that come later leaves no hand-over for one
                    free[use.resource].take(starts[k], end if problem.swap else end + 1, use.amount)
    return Schedule(start, picked)


def _least_loaded(task: Task, load: dict[str, int], problem: Problem) -> int:
    capacity = {resource.id: resource.capacity for resource in problem.resources}
    fitting = [m for m, mode in enumerate(task.modes) if all(use.amount <= capacity[use.resource] for use in mode.uses)]
    return min(fitting, key=lambda m: task.modes[m].duration + max((load[use.resource] for use in task.modes[m].uses), default=0))


def _insert(chain: list[_Operation], modes: list[Mode], least: list[int], free: dict[str, Profile]) -> list[int]:
    """Starts of the operations of one job; `least` rises until all fit."""
    starts = [0] * len(chain)
    k = 0
    while k < len(chain):
        begin = least[k] if k == 0 else max(least[k], starts[k - 1] + modes[k - 1].duration + chain[k - 1].wait)
        found = earliest(begin, modes[k].duration, [(free[use.resource], use.amount) for use in modes[k].uses], [])
        assert found is not None, "behind all that is placed, everything fits"
        starts[k] = found
        later = None if k == 0 else _push_back(chain[k - 1], modes[k - 1], starts[k - 1], found, free)
        if later is None:
            k += 1
        else:
            k -= 1
            least[k] = later
    return starts


def _push_back(operation: _Operation, mode: Mode, start: int, following: int, free: dict[str, Profile]) -> int | None:
    """Until when an operation must be put off so that it can wait, where it is, for the next one to start; None if it can."""
    for use in mode.uses:
        if use.until is not None and use.until[0] != operation.task.id:
            until = free[use.resource].fits_until(start, use.amount)
            if until is not None and until < following:
                return free[use.resource].free_from(until, use.amount)
    if operation.longest_wait is not None and following > start + mode.duration + operation.longest_wait:
        return following - operation.longest_wait - mode.duration
    return None
