"""A shop in simulated time: work ends, machines break down, jobs arrive, and at each such event a dispatch rule says what starts.

A task is done when its work is; until the event named by its use it still holds the resource (blocking). A move frees what the job held
and takes what it needs at one instant. Jobs that block each other in a ring change places at once, without being asked; with `swap` off no
move is allowed after which the jobs inside might not get out. A resource that is down neither takes nor gives, and suspends work, or undoes it.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from copy import deepcopy
from dataclasses import dataclass, field

from rota.contracts.dispatch import DispatchRule, Order, Start, WaitUntilNextEvent
from rota.contracts.shop import Problem, Schedule
from rota.errors import UnsupportedPolicy
from rota.mechanisms.shop.moves import ring
from rota.mechanisms.shop.plant import Plant, Use, plant
from rota.mechanisms.shop.safety import way_out
from rota.mechanisms.shop.view import ShopView
from rota.workload.shop.realization import Realization

#: Kinds of events, in the order in which those of an instant happen.
END, ARRIVAL, CHANGE, WAKE = range(4)


@dataclass(frozen=True, slots=True)
class Run:
    """What came out: the realised schedule, actual ends, how often the rule was asked, and how many rings of jobs changed places."""

    schedule: Schedule
    end: dict[str, int]
    decisions: int
    rotations: int

    @property
    def makespan(self) -> int:
        """When the last task ended."""
        return max(self.end.values(), default=0)


@dataclass(slots=True)
class State:
    """All that changes, by number; a task that has not started has start and mode -1."""

    now: int
    events: list[tuple[int, int, int]]
    start: list[int]
    mode: list[int]
    end: list[int]
    done: list[bool]
    missing: list[int]
    """Predecessors that are not done; one more until the job arrives."""
    since: list[int]
    ready_at: list[list[int]]
    """Per task that is ready and mode, from when on the lags let it start."""
    ready: list[int]
    """Tasks that wait for resources, or for a lag, ascending."""
    free: list[int]
    holders: list[dict[int, int]]
    """Per resource, units by task."""
    gives: list[list[tuple[int, int, int]]]
    """Per task, (resource, units, holder) given back when it starts."""
    gives_at_end: list[list[tuple[int, int, int]]]
    is_down: list[bool]
    work_left: list[int]
    """Per job, expected ticks of its tasks that have not started."""
    tasks_left: list[int]
    out: list[tuple[int, int]] = field(default_factory=list)
    """Without swaps, moves that would bring out everybody who is inside."""
    running: set[int] = field(default_factory=set)
    unfinished: int = 0
    decisions: int = 0
    rotations: int = 0


class Simulator:
    """Runs one realization of a problem; `snapshot` and `restore` go back to any instant between two decisions.

    Raises
    ------
    UnsupportedPolicy
        If the problem has features that cannot be run online.
    """

    def __init__(self, problem: Problem, realization: Realization | None = None) -> None:
        self.plant: Plant = plant(problem, realization or Realization())
        self.state = _beginning(self.plant)
        self._view = ShopView(self.plant, self.state)

    def snapshot(self) -> State:
        """The state, apart from what goes on here."""
        return deepcopy(self.state)

    def restore(self, state: State) -> None:
        """Go back to (a copy of) a state of this simulator."""
        self.state = deepcopy(state)
        self._view = ShopView(self.plant, self.state)

    def run(self, rule: DispatchRule, until: int | None = None) -> Run | None:
        """Go on until everything is done, or until the first event after `until` (then None).

        Raises
        ------
        UnsupportedPolicy
            If the rule starts what cannot start, or waits when nothing will happen any more.
        """
        state = self.state
        while state.unfinished:
            if not state.events:
                raise UnsupportedPolicy(
                    f"{rule.name} leaves {state.unfinished} tasks of {self.plant.problem.name} waiting at {state.now} and nothing will happen"
                )
            if until is not None and state.events[0][0] > until:
                return None
            self._happen()
            self._decide(rule)
        return self._result()

    def _happen(self) -> None:
        """Move to the next event and let all of that instant happen."""
        state = self.state
        state.now = state.events[0][0]
        while state.events and state.events[0][0] == state.now:
            _, kind, which = heapq.heappop(state.events)
            if kind == END:
                self._finish(which)
            elif kind == ARRIVAL:
                for task in self.plant.job_tasks[which]:
                    state.since[task] = max(state.since[task], state.now)
                    self._one_less(task)
            elif kind == CHANGE:
                self._change(which)

    def _finish(self, task: int) -> None:
        state = self.state
        state.done[task] = True
        state.running.discard(task)
        state.unfinished -= 1
        for use in self._uses(task):
            if use.until < 0:
                self._release(use.resource, use.amount, task)
        for held in state.gives_at_end[task]:
            self._release(*held)
        for later in self.plant.after[task]:
            state.since[later] = max(state.since[later], state.now)
            self._one_less(later)

    def _one_less(self, task: int) -> None:
        state = self.state
        state.missing[task] -= 1
        if state.missing[task]:
            return
        state.ready.insert(bisect_right(state.ready, task), task)
        state.ready_at[task] = [self._ready_at(task, mode) for mode in range(len(self.plant.ways[task]))]
        for at in state.ready_at[task]:
            if at > state.now:
                heapq.heappush(state.events, (at, WAKE, task))

    def _ready_at(self, task: int, mode: int) -> int:
        """From when on the lags let it start; its predecessors have ended."""
        state = self.state
        return max(
            (state.end[p.task] + p.lag + p.by_modes.get((state.mode[p.task], mode), 0) for p in self.plant.before[task]), default=0
        )

    def _change(self, resource: int) -> None:
        """The resource goes down or comes up; the next time it does so becomes an event."""
        state, down = self.state, self.plant.down[resource]
        at = bisect_right(down, (state.now, 1 << 62)) - 1
        state.is_down[resource] = at >= 0 and state.now < down[at][1]
        if state.is_down[resource]:
            heapq.heappush(state.events, (down[at][1], CHANGE, resource))
        elif at + 1 < len(down):
            heapq.heappush(state.events, (down[at + 1][0], CHANGE, resource))

    def _uses(self, task: int) -> tuple[Use, ...]:
        return self.plant.ways[task][self.state.mode[task]].uses

    def _release(self, resource: int, amount: int, holder: int) -> None:
        self.state.free[resource] += amount
        del self.state.holders[resource][holder]

    def lacking(self, task: int, mode: int) -> list[tuple[int, int]] | None:
        """Resources, and units of each, that the task would need besides what is free and what it gives back; None if it cannot move anyway."""
        state = self.state
        given = state.gives[task]
        if state.ready_at[task][mode] > state.now or (given and any(state.is_down[resource] for resource, _, _ in given)):
            return None
        lack = []
        for resource, amount, _, _ in self.plant.ways[task][mode].uses:
            if state.is_down[resource]:
                return None
            short = amount - state.free[resource]
            if short > 0 and given:
                short -= sum(units for r, units, _ in given if r == resource)
            if short > 0:
                lack.append((resource, short))
        return lack

    def can_start(self, task: int, mode: int) -> bool:
        """Whether a rule may start it now."""
        state = self.state
        if state.missing[task] or state.start[task] >= 0 or self.lacking(task, mode) != []:
            return False
        return not self._may_get_stuck or self._next_out(task, mode) or way_out(self, task, mode) is not None

    @property
    def _may_get_stuck(self) -> bool:
        return not self.plant.problem.swap and "until" in self.plant.problem.features

    def _next_out(self, task: int, mode: int) -> bool:
        """Whether the move is the next one on the way out."""
        return bool(self.state.out) and self.state.out[0] == (task, mode)

    def startable(self) -> list[tuple[int, int]]:
        """Tasks and modes that a rule may start now."""
        ways = self.plant.ways
        return [(t, m) for t in self.state.ready for m in range(len(ways[t])) if self.can_start(t, m)]

    def _decide(self, rule: DispatchRule) -> None:
        """Ask until the rule waits or nothing can start; then let a ring change places, if there is one, and ask again."""
        index = self.plant.index
        state = self.state
        while True:
            startable = self.startable()
            waits = not startable
            if startable:
                state.decisions += 1
                answer = rule.choose(self._view.at(startable))
                if isinstance(answer, Start):
                    chosen = (index.get(answer.task, -1), answer.mode)
                    if chosen not in startable:
                        raise UnsupportedPolicy(f"{rule.name} starts {answer.task} in mode {answer.mode} at {state.now}, which cannot start")
                    self._move(chosen)
                elif isinstance(answer, Order):
                    for name, mode in answer.starts:
                        task = index.get(name, -1)
                        if task >= 0 and mode in range(len(self.plant.ways[task])) and self.can_start(task, mode):
                            self._move((task, mode))
                    waits = True
                else:
                    self._wake(answer)
                    waits = True
            if not waits:
                continue
            turning = ring(self) if self.plant.problem.swap else []
            if not turning:
                return
            state.rotations += 1
            self._start(turning)

    def _move(self, move: tuple[int, int]) -> None:
        """Start one task, and remember the way out that made it allowed."""
        if self._may_get_stuck:
            if self._next_out(*move):
                self.state.out.pop(0)
            else:
                self.state.out = [step for step in way_out(self, *move) or () if step[0] >= 0]
        self._start([move])

    def _wake(self, answer: WaitUntilNextEvent) -> None:
        if answer.at is not None and answer.at > self.state.now:
            heapq.heappush(self.state.events, (answer.at, WAKE, -1))

    def _start(self, moves: list[tuple[int, int]]) -> None:
        """Start all of them at once: everything is given back before anything is taken."""
        state = self.state
        for task, _ in moves:
            for held in state.gives[task]:
                self._release(*held)
        for task, mode in moves:
            way = self.plant.ways[task][mode]
            state.ready.remove(task)
            state.running.add(task)
            state.start[task], state.mode[task] = state.now, mode
            for use in way.uses:
                state.free[use.resource] -= use.amount
                state.holders[use.resource][task] = use.amount
                if use.until >= 0:
                    to = state.gives_at_end if use.at_end else state.gives
                    to[use.until].append((use.resource, use.amount, task))
            job = self.plant.job[task]
            state.tasks_left[job] -= 1
            state.work_left[job] -= min(each.expected for each in self.plant.ways[task])
            state.end[task] = self._end(way.actual, way.uses)
            heapq.heappush(state.events, (state.end[task], END, task))

    def _end(self, work: int, uses: tuple[Use, ...]) -> int:
        """When work that starts now will be done, breakdowns of whatever it uses included."""
        end = self.state.now + work
        stretches = sorted({stretch for use in uses for stretch in self.plant.down[use.resource] if stretch[1] > self.state.now})
        reached = self.state.now
        for begin, until in stretches:
            if not work or begin >= end:
                break
            end = max(end, until + work) if self.plant.restarts else end + max(0, until - max(begin, reached))
            reached = max(reached, until)
        return end

    def _result(self) -> Run:
        state, names = self.state, list(self.plant.index)
        schedule = Schedule(dict(zip(names, state.start, strict=True)), dict(zip(names, state.mode, strict=True)))
        return Run(schedule, dict(zip(names, state.end, strict=True)), state.decisions, state.rotations)


def _beginning(plant: Plant) -> State:
    tasks, resources = range(len(plant.ways)), range(len(plant.capacity))
    events = [(at, ARRIVAL, job) for job, at in enumerate(plant.arrival)]
    events += [(down[0][0], CHANGE, r) for r, down in enumerate(plant.down) if down]
    heapq.heapify(events)
    return State(
        now=0, events=events, start=[-1 for _ in tasks], mode=[-1 for _ in tasks], end=[-1 for _ in tasks], done=[False for _ in tasks],
        missing=[len(before) + 1 for before in plant.before], since=[0 for _ in tasks],
        ready_at=[[] for _ in tasks], ready=[], free=list(plant.capacity),
        holders=[{} for _ in resources], gives=[[] for _ in tasks], gives_at_end=[[] for _ in tasks], is_down=[False for _ in resources],
        work_left=[sum(min(way.expected for way in plant.ways[t]) for t in group) for group in plant.job_tasks],
        tasks_left=[len(group) for group in plant.job_tasks], unfinished=len(plant.ways),
    )  # fmt: skip


def simulate(problem: Problem, rule: DispatchRule, realization: Realization | None = None) -> Run:
    """One run of `rule` from the beginning to the end."""
    run = Simulator(problem, realization).run(rule)
    assert run is not None
    return run
