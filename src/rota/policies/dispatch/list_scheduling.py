"""List scheduling of task graphs that arrive online: tasks in an order, each mapped to a processor, into the gaps that earlier ones leave.

Rules differ in the order, in what the mapping looks at, and in whether they plan ahead. Those that do not take tasks when they become
ready and map each once, as run-time schedulers of chips do. HEFT (Topcuoglu, Hariri and Wu 2002) plans all tasks of the jobs inside at every
event; for one job without noise that is its static schedule, since what has started stays where it was planned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from rota.contracts.dispatch import Decision, Order, Start, View, WaitUntilNextEvent
from rota.policies.dispatch.graphs import Graphs, Node, delay
from rota.policies.solvers.heft import gap


class Way(NamedTuple):
    """How a rule goes about it.

    Attributes
    ----------
    order : {"arrival", "shortest", "longest", "rank"}
        When tasks became ready, mean work, or upward rank, the highest first.
    mapping : {"end", "blind", "work"}
        The processor where the task ends first, where it would end first if its data were there, or where its work is shortest.
    ahead : bool
        Plan tasks that are not ready too.
    """

    order: str
    mapping: str
    ahead: bool = False


#: EFT, STF and MET: earliest finish time, shortest task first, minimum execution time. HEFT-BLIND is what is left of HEFT when it is given
#: the ready tasks without their edges: ranks are mean work, and data count for nothing.
WAYS = {
    "EFT": Way("arrival", "end"), "STF": Way("shortest", "end"), "MET": Way("arrival", "work"), "EFT-BLIND": Way("arrival", "blind"),
    "HEFT": Way("rank", "end", ahead=True), "HEFT-READY": Way("rank", "end"), "HEFT-BLIND": Way("longest", "blind"),
}  # fmt: skip


class Taken(NamedTuple):
    """Where a task is or will be."""

    mode: int
    end: int


@dataclass(slots=True)
class ListScheduling:
    """One of `WAYS`, for one run; ties go to the job, task and mode that come first."""

    name: str
    most_inside: int = 0
    _graphs: Graphs = field(default_factory=Graphs, init=False, repr=False)
    _mapped: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    """Modes of tasks that were mapped, in that order, and have not started."""

    def choose(self, view: View) -> Decision:
        """Start what the plan starts now."""
        way, graphs = WAYS[self.name], self._graphs
        graphs.update(view.known)
        committed = view.committed
        taken = {name: Taken(one.mode, one.end) for name, one in committed.items()}
        done = {name for name, one in committed.items() if one.done}
        busy: dict[str, list[tuple[int, int]]] = {}
        for name, state in view.resources.items():
            # a processor that is down is back at the next tick, as far as anybody knows
            until = max([0 if state.up else view.now + 1, *(taken[holder].end for holder in state.holders)])
            busy[name] = [(view.now, until)] if until > view.now else []
        self._mapped = {name: mode for name, mode in self._mapped.items() if name not in taken}
        startable = {(one.task, one.mode) for one in view.startable}
        starts = []
        for name in [*self._mapped, *self._next(view, way, taken, done)]:
            at, mode = self._place(graphs.nodes[name], self._mapped.get(name), way, view.now, taken, busy)
            processor, end = graphs.nodes[name].where[mode], at + graphs.nodes[name].work[mode]
            busy[processor] = sorted([*busy[processor], (at, end)])
            taken[name] = Taken(mode, end)
            if not way.ahead:
                self._mapped[name] = mode
            if at == view.now and (name, mode) in startable:
                starts.append(Start(name, mode))
        return Order(tuple(starts)) if starts else WaitUntilNextEvent()

    def _next(self, view: View, way: Way, taken: dict[str, Taken], done: set[str]) -> list[str]:
        """The tasks to map, in order."""
        graphs = self._graphs
        there = [
            name
            for job in graphs.let_in(view, self.most_inside)
            for name in graphs.jobs[job]
            if name not in taken and name not in self._mapped and (way.ahead or all(lag.a.task in done for lag in graphs.nodes[name].before))
        ]
        if way.order == "rank":
            # equal ranks stay in topological order: a task never comes before its predecessor, whose rank is at least as high
            return sorted(there, key=lambda name: -graphs.nodes[name].rank)
        if way.order == "arrival":
            ended = {name: max((taken[lag.a.task].end for lag in graphs.nodes[name].before), default=-1) for name in there}
            return sorted(there, key=ended.__getitem__)
        sign = 1 if way.order == "shortest" else -1
        return sorted(there, key=lambda name: sign * graphs.nodes[name].mean)

    @staticmethod
    def _place(
        node: Node, mapped: int | None, way: Way, now: int, taken: dict[str, Taken], busy: dict[str, list[tuple[int, int]]]
    ) -> tuple[int, int]:
        """Start and mode."""
        best: tuple[float, int, int] | None = None
        for mode, (work, processor) in enumerate(zip(node.work, node.where, strict=True)):
            if mapped not in (None, mode):
                continue
            data = max((taken[lag.a.task].end + delay(lag, taken[lag.a.task].mode, mode) for lag in node.before), default=now)
            at = gap(busy[processor], max(now, data), work)
            value = work if way.mapping == "work" else work + (gap(busy[processor], now, work) if way.mapping == "blind" else at)
            if best is None or value < best[0]:
                best = (value, at, mode)
        assert best is not None
        return best[1], best[2]
