"""A schedule, or a solver, as a dispatch rule: follow the plan, and with a solver make a new plan for the rest when the world has moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rota.contracts.dispatch import Committed, Decision, Start, View, WaitUntilNextEvent
from rota.contracts.shop import Budget, Mode, Problem, Schedule, Solver, Task
from rota.errors import UnsupportedPolicy


@dataclass(slots=True)
class Follow:
    """Starts each task in its planned mode, at its planned time or later, and not before those planned earlier on the same resource.

    So without noise the plan comes out as it is, and with noise its order does.
    """

    plan: Schedule
    name: str = "follow"
    _order: dict[str, list[str]] | None = field(default=None, init=False, repr=False)

    def choose(self, view: View) -> Decision:
        """The startable task that is planned first, once its turn and time have come."""
        if self._order is None:
            self._order = _orders(view.known, self.plan)
        committed = view.committed
        heads = {}
        for resource, order in self._order.items():
            while order and order[0] in committed:
                order.pop(0)
            heads[resource] = order[0] if order else None
        later: list[int] = []
        tasks = {task.id: task for task in view.known.tasks}
        for one in sorted(view.startable, key=lambda one: self.plan.start.get(one.task, 1 << 62)):
            planned = self.plan.start.get(one.task)
            if planned is None or one.mode != self.plan.mode.get(one.task, 0):
                continue
            if any(self._before(one.task, heads[use.resource], use.resource) for use in tasks[one.task].modes[one.mode].uses):
                continue
            if planned <= view.now:
                return Start(one.task, one.mode)
            later.append(planned)
        return WaitUntilNextEvent(min(later, default=None))

    def _before(self, task: str, head: str | None, resource: str) -> bool:
        """Whether another task that has not started is planned strictly earlier on the resource."""
        return head is not None and head != task and self.plan.start[head] < self.plan.start[task]


def _orders(problem: Problem, plan: Schedule) -> dict[str, list[str]]:
    orders: dict[str, list[str]] = {resource.id: [] for resource in problem.resources}
    for task in sorted(problem.tasks, key=lambda task: plan.start.get(task.id, 1 << 62)):
        if task.id in plan.start:
            for use in task.modes[plan.mode.get(task.id, 0)].uses:
                orders[use.resource].append(task.id)
    return orders


@dataclass(slots=True)
class Rolling:
    """Solves the rest again whenever a job has arrived, or the shop no longer is as planned, and follows that plan meanwhile.

    Parameters
    ----------
    solver : Solver
        Must handle windows, which hold what is committed where it is.
    budget : Budget
        Of each solve.
    slack : int
        Ticks by which work may end early or late before the plan is made anew.
    """

    solver: Solver
    budget: Budget
    slack: int = 0
    solves: int = field(default=0, init=False)
    _follow: Follow | None = field(default=None, init=False, repr=False)
    _known: Problem | None = field(default=None, init=False, repr=False)
    _promised: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _kept: set[str] = field(default_factory=set, init=False, repr=False)

    @property
    def name(self) -> str:
        """The solver's, and that it rolls."""
        return f"rolling {self.solver.name}"

    def choose(self, view: View) -> Decision:
        """As the plan says, which is made anew first if it has to be."""
        committed = view.committed
        if self._follow is None or view.known is not self._known or self._off(committed):
            self._plan(view, committed)
        assert self._follow is not None
        return self._follow.choose(view)

    def _off(self, committed: Mapping[str, Committed]) -> bool:
        """Whether some work has started or ended, or is expected to end, other than planned."""
        for name, one in committed.items():
            if name in self._kept:
                continue
            if abs(one.end - self._promised.get(name, one.end)) > self.slack:
                return True
            if one.done:
                self._kept.add(name)
        return False

    def _plan(self, view: View, committed: Mapping[str, Committed]) -> None:
        problem = rest(view.known, committed, view.now)
        outcome = self.solver.solve(problem, self.budget)
        self.solves += 1
        if outcome.schedule is None:
            raise UnsupportedPolicy(f"{self.name} found no schedule for the rest of {problem.name} at {view.now}; allow more time")
        plan = outcome.schedule
        self._follow, self._known = Follow(plan), view.known
        modes = {task.id: task.modes for task in view.known.tasks}
        self._promised = {name: start + modes[name][plan.mode.get(name, 0)].duration for name, start in plan.start.items() if name in modes}
        self._promised.update({name: one.end for name, one in committed.items()})
        self._kept = {name for name, one in committed.items() if one.done}


def rest(problem: Problem, committed: Mapping[str, Committed], now: int) -> Problem:
    """The problem with what has started held where it is, until its end or expected end, and everything else from now on."""

    def held(task: Task) -> Task:
        one = committed.get(task.id)
        if one is None:
            return replace(task, earliest_start=max(now, task.earliest_start))
        modes = [Mode(mode.duration, mode.uses) for mode in task.modes]
        modes[one.mode] = replace(modes[one.mode], duration=one.end - one.start)
        # the other modes are too long for the window, so that indices of modes stay as they are
        modes = [mode if m == one.mode else replace(mode, duration=one.end - one.start + 1) for m, mode in enumerate(modes)]
        return replace(task, modes=tuple(modes), earliest_start=one.start, latest_end=one.end)

    return replace(problem, tasks=tuple(map(held, problem.tasks)))
