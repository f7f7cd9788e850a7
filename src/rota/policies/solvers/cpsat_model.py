"""The whole problem model as a CP-SAT model: interval variables, modes as literals, holds as intervals of variable size.

Every constraint is kept exactly, empty intervals included. Objective terms are equalities, so that their values in any solution are true.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from ortools.sat.python import cp_model

from rota.contracts.shop import CONSUMABLE, Event, Problem, Resource, Schedule, Task
from rota.policies.solvers.breaks import closed, end_pieces, merged
from rota.policies.solvers.cpsat_order import add_ranks, add_setups

#: A linear expression or variable of CP-SAT, or a number.
Expr = Any


class Hold(NamedTuple):
    """A use of a renewable resource as the model sees it: who, from when, until which event, if `lit`, and whether it may be empty."""

    task: int
    start: Expr
    end: Expr
    size: Expr
    amount: int
    release: Event
    lit: Any
    interval: Any
    maybe_empty: bool


class Model:
    """A problem's variables and what has been built on them.

    Parameters
    ----------
    problem : Problem
    horizon : int
        Nothing ends later.

    Attributes
    ----------
    cp : CpModel
    start, end : lists, one entry per task
    lits : list of lists
        Literals per task and mode; of a task with one mode, the constant 1.
    holds : dict of resource to list of Hold
    setups : expression
        Sum of all setups.
    """

    def __init__(self, problem: Problem, horizon: int) -> None:
        self.problem, self.horizon = problem, horizon
        self.cp: Any = cp_model.CpModel()
        self.start: list[Any] = []
        self.end: list[Expr] = []
        self.lits: list[list[Any]] = []
        self.holds: dict[str, list[Hold]] = defaultdict(list)
        self.setups: Expr = 0
        self._index = {task.id: i for i, task in enumerate(problem.tasks)}
        self._resources = {resource.id: resource for resource in problem.resources}
        self._one = self.cp.new_constant(1)
        for task, (earliest, latest) in zip(problem.tasks, self._windows(), strict=True):
            self._add_task(task, earliest, latest)
        self._add_holds()
        for resource in problem.resources:
            self._add_resource(resource)
        self._add_lags()
        self._add_exclusive()
        if not problem.swap:
            add_ranks(self)

    def time(self, event: Event) -> Expr:
        """When an event is."""
        i = self._index[event[0]]
        return self.start[i] if event[1] == "start" else self.end[i]

    def mode_lits(self, task: str) -> list[Any]:
        """Literals of the modes of a task."""
        return self.lits[self._index[task]]

    def _windows(self) -> list[tuple[int, int]]:
        earliest = [task.earliest_start for task in self.problem.tasks]
        latest = [self.horizon if task.latest_end is None else min(task.latest_end, self.horizon) for task in self.problem.tasks]
        for job in self.problem.jobs:
            for name in job.tasks:
                i = self._index[name]
                earliest[i] = max(earliest[i], job.release_date)
                if job.deadline is not None:
                    latest[i] = min(latest[i], job.deadline)
        return list(zip(earliest, latest, strict=True))

    def _add_task(self, task: Task, earliest: int, latest: int) -> None:
        cp, name = self.cp, task.id
        shortest = min(mode.duration for mode in task.modes)
        # a window that is too short is left to the solver to refute
        start = cp.new_int_var(earliest, max(earliest, latest - shortest), f"start {name}")
        lits = [self._one] if len(task.modes) == 1 else [cp.new_bool_var(f"{name} mode {m}") for m in range(len(task.modes))]
        if len(lits) > 1:
            cp.add_exactly_one(lits)
        fixed = len({mode.duration for mode in task.modes}) == 1 and not task.allow_breaks
        end: Expr = (
            start + shortest if fixed else cp.new_int_var(earliest + shortest, max(latest, earliest + shortest), f"end {name}")
        )
        for mode, lit in zip(task.modes, lits, strict=True):
            breaks = merged([stretch for use in mode.uses for stretch in closed(self._resources[use.resource], self.horizon)])
            if task.allow_breaks and breaks and mode.duration:
                self._add_breaks(start, end, mode.duration, breaks, lit, latest)
                continue
            if not fixed:
                cp.add(end == start + mode.duration).only_enforce_if(lit)
            if breaks and mode.duration and not task.allow_breaks:
                away = [(a - mode.duration + 1, b - 1) for a, b in breaks]
                outside = cp_model.Domain.from_intervals([list(stretch) for stretch in away]).complement()
                cp.add_linear_expression_in_domain(start, outside).only_enforce_if(lit)
        cp.add(end <= latest)
        self.start.append(start)
        self.end.append(end)
        self.lits.append(lits)

    def _add_breaks(self, start: Any, end: Any, duration: int, breaks: list[tuple[int, int]], lit: Any, latest: int) -> None:
        """The end as a function of the start, piece by piece: work goes on in every tick that is open."""
        chosen = []
        for piece in end_pieces(duration, breaks, latest):
            here = self.cp.new_bool_var("")
            self.cp.add_linear_constraint(start, piece.first, piece.last).only_enforce_if(here)
            self.cp.add(end == (piece.at if piece.fixed else start + piece.at)).only_enforce_if(here)
            chosen.append(here)
        self.cp.add(sum(chosen) == lit)

    def _add_holds(self) -> None:
        # pairs of events of which the second surely does not come first
        ordered = {(lag.a, lag.b) for lag in self.problem.lags if lag.min is not None and lag.min >= 0 and not lag.by_modes}
        for i, task in enumerate(self.problem.tasks):
            own = Event(task.id, "end")
            for mode, lit in zip(task.modes, self.lits[i], strict=True):
                for use in mode.uses:
                    release = use.until or own
                    if self._resources[use.resource].kind == "consumable" or (release == own and mode.duration == 0):
                        continue
                    fixed = release == own and not task.allow_breaks
                    size: Expr = mode.duration if fixed else self.cp.new_int_var(0, self.horizon, "")
                    end = self.start[i] + mode.duration if fixed else self.time(release)
                    interval = self.cp.new_optional_interval_var(self.start[i], size, end, lit, f"{task.id} on {use.resource}")
                    empty = release != own and not (mode.duration and (own, release) in ordered)
                    self.holds[use.resource].append(Hold(i, self.start[i], end, size, use.amount, release, lit, interval, empty))

    def _add_resource(self, resource: Resource) -> None:
        if resource.kind == "consumable":
            self.cp.add(self.used(resource.id) <= resource.capacity)
            return
        holds = self.holds[resource.id]
        partial = [(at, end, resource.capacity - units) for at, end, units in _steps(resource, self.horizon) if units > 0]
        if resource.capacity == 1 and not any(hold.maybe_empty or hold.amount > 1 for hold in holds):
            self.cp.add_no_overlap([hold.interval for hold in holds])
        elif holds:
            # unlike no-overlap, cumulative lets empty intervals lie within others, and refuses a mode that needs more than there is
            taken = [(self.cp.new_fixed_size_interval_var(at, end - at, ""), units) for at, end, units in partial if units]
            intervals = [hold.interval for hold in holds] + [interval for interval, _ in taken]
            self.cp.add_cumulative(intervals, [hold.amount for hold in holds] + [units for _, units in taken], resource.capacity)
        if resource.setup and holds:
            families = [self.problem.tasks[hold.task].family for hold in holds]
            self.setups += add_setups(self.cp, resource.setup, holds, families, self.horizon)

    def _add_lags(self) -> None:
        for lag in self.problem.lags:
            a, b = self.time(lag.a), self.time(lag.b)
            if lag.max is not None:
                self.cp.add(b - a <= lag.max)
            if lag.min is None:
                continue
            first, second = self.lits[self._index[lag.a[0]]], self.lits[self._index[lag.b[0]]]
            more = {(i, j): (lag.by_modes or {}).get((i, j), 0) for i in range(len(first)) for j in range(len(second))}
            least = min(more.values()) if lag.by_modes else 0
            self.cp.add(b - a >= lag.min + least)
            for (i, j), ticks in more.items():
                if lag.by_modes and ticks > least:
                    self.cp.add(b - a >= lag.min + ticks).only_enforce_if(first[i], second[j])

    def _add_exclusive(self) -> None:
        for group in self.problem.exclusive:
            intervals = []
            for name in sorted(group):
                i = self._index[name]
                task = self.problem.tasks[i]
                for mode, lit in zip(task.modes, self.lits[i], strict=True):
                    if mode.duration:
                        size = self.cp.new_int_var(mode.duration, self.horizon, "") if task.allow_breaks else mode.duration
                        end = self.end[i] if task.allow_breaks else self.start[i] + mode.duration
                        intervals.append(self.cp.new_optional_interval_var(self.start[i], size, end, lit, ""))
            self.cp.add_no_overlap(intervals)

    def used(self, resource: str) -> Expr:
        """Units of a consumable that the chosen modes use up."""
        return sum(
            use.amount * lit
            for task, lits in zip(self.problem.tasks, self.lits, strict=True)
            for mode, lit in zip(task.modes, lits, strict=True)
            for use in mode.uses
            if use.resource == resource
        )

    def stage(self, stage: Mapping[str, int]) -> Expr:
        """The value of one stage of the objective."""
        return sum(weight * self._term(term) for term, weight in stage.items())

    def _term(self, term: str) -> Expr:
        if term == "makespan":
            return self._latest(list(range(len(self.problem.tasks))))
        if term == "total_setup":
            return self.setups
        if term.startswith(CONSUMABLE):
            return self.used(term.removeprefix(CONSUMABLE))
        complete = [(job, self._latest([self._index[name] for name in job.tasks])) for job in self.problem.jobs]
        if term == "total_completion":
            return sum(job.weight * end for job, end in complete)
        if term == "total_flow_time":
            return sum(job.weight * (end - job.release_date) for job, end in complete)
        late = [(job.weight, end, job.due_date) for job, end in complete if job.due_date is not None]
        if term == "max_lateness":
            worst = self.cp.new_int_var(
                -max(0, *(due for _, _, due in late)), self.horizon - min(due for _, _, due in late), term
            )
            self.cp.add_max_equality(worst, [end - due for _, end, due in late])
            return worst
        return sum(
            weight * (self._tardiness(end, due) if term == "total_tardiness" else self._tardy(end, due))
            for weight, end, due in late
        )

    def _latest(self, tasks: list[int]) -> Expr:
        if len(tasks) == 1:
            return self.end[tasks[0]]
        latest = self.cp.new_int_var(0, self.horizon, "")
        self.cp.add_max_equality(latest, [self.end[i] for i in tasks])
        return latest

    def _tardiness(self, end: Expr, due: int) -> Any:
        late = self.cp.new_int_var(0, max(0, self.horizon - due), "")
        self.cp.add_max_equality(late, [end - due, 0])
        return late

    def _tardy(self, end: Expr, due: int) -> Any:
        late = self.cp.new_bool_var("")
        self.cp.add(end >= due + 1).only_enforce_if(late)
        self.cp.add(end <= due).only_enforce_if(~late)
        return late

    def hint(self, schedule: Schedule) -> None:
        """Start the search from a schedule, in place of an earlier hint."""
        self.cp.clear_hints()
        for i, task in enumerate(self.problem.tasks):
            self.cp.add_hint(self.start[i], schedule.start[task.id])
            if len(self.lits[i]) > 1:
                for m, lit in enumerate(self.lits[i]):
                    self.cp.add_hint(lit, m == schedule.mode.get(task.id, 0))

    def schedule(self, found: Any) -> Schedule:
        """A solution of the library, which a solver and a callback give alike."""
        tasks = self.problem.tasks
        start = {task.id: int(found.value(self.start[i])) for i, task in enumerate(tasks)}
        mode = {task.id: next(m for m, lit in enumerate(self.lits[i]) if found.boolean_value(lit)) for i, task in enumerate(tasks)}
        ends = {task.id: int(found.value(self.end[i])) for i, task in enumerate(tasks) if task.allow_breaks}
        return Schedule(start, mode, ends or None)


def _steps(resource: Resource, horizon: int) -> list[tuple[int, int, int]]:
    """The calendar as (from, to, units), as far as the horizon."""
    ends = [*(at for at, _ in resource.calendar[1:]), horizon + 1]
    return [
        (at, min(end, horizon + 1), units) for (at, units), end in zip(resource.calendar, ends, strict=False) if at <= horizon
    ]
