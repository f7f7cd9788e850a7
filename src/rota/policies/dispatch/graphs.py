"""Task graphs that arrive online, as rules for them see the shop: tasks by processor, data still to come, ranks, and the jobs let in."""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from operator import itemgetter

import numpy as np

from rota.contracts.dispatch import View
from rota.contracts.shop import Lag, Problem
from rota.errors import UnsupportedPolicy
from rota.policies.dispatch.sequencing import Ints
from rota.policies.solvers.heft import upward_ranks


@dataclass(frozen=True, slots=True)
class Node:
    """A task of a graph.

    Parameters
    ----------
    work, where : per mode, expected ticks and the processor
    before : lags from its predecessors
    rank : float
        Upward rank of HEFT: mean work and transfers along the longest way to the end of the job, in ticks.
    level : float
        The same without transfers (static level).
    """

    work: tuple[int, ...]
    where: tuple[str, ...]
    before: tuple[Lag, ...]
    rank: float
    level: float

    @property
    def mean(self) -> float:
        """Mean ticks over its modes."""
        return sum(self.work) / len(self.work)


@dataclass(slots=True)
class Graphs:
    """The task graphs that have arrived, each worked out once, tasks in a topological order; of one run."""

    nodes: dict[str, Node] = field(default_factory=dict)
    jobs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _known: Problem | None = None

    def update(self, problem: Problem) -> None:
        """Take in the jobs that are new.

        Raises
        ------
        UnsupportedPolicy
            If a task does not hold just one processor, or a job is tied to another one.
        """
        if problem is self._known:
            return
        self._known = problem
        grouped = {name for job in problem.jobs for name in job.tasks}
        members = {job.id: job.tasks for job in problem.jobs} | {task.id: (task.id,) for task in problem.tasks if task.id not in grouped}
        tasks = {task.id: task for task in problem.tasks}
        before: dict[str, list[Lag]] = {name: [] for name in tasks}
        for lag in problem.lags:
            before[lag.b.task].append(lag)
        for job, names in members.items():
            if job in self.jobs:
                continue
            for name in names:
                if any(len(mode.uses) != 1 or mode.uses[0].amount != 1 or mode.uses[0].until for mode in tasks[name].modes):
                    raise UnsupportedPolicy(
                        f"rules for task graphs need tasks that hold one processor until they end; {name} of {problem.name} does not"
                    )
                if any(lag.a.task not in names for lag in before[name]):
                    raise UnsupportedPolicy(f"rules for task graphs need jobs that are not tied; {name} of {problem.name} waits for another job")
            order = list(TopologicalSorter({name: [lag.a.task for lag in before[name]] for name in names}).static_order())
            self.jobs[job] = tuple(order)
            place = {name: i for i, name in enumerate(order)}
            index = {resource.id: r for r, resource in enumerate(problem.resources)}
            work = [np.array([mode.duration for mode in tasks[name].modes], np.int64) for name in order]
            where = [np.array([index[mode.uses[0].resource] for mode in tasks[name].modes], np.int64) for name in order]
            transfers: dict[tuple[int, int], Ints] = {}
            for name in names:
                for lag in before[name]:
                    i, j = place[lag.a.task], place[name]
                    table = np.array([[delay(lag, a, b) for b in range(len(work[j]))] for a in range(len(work[i]))], np.int64)
                    transfers[i, j] = np.maximum(transfers.get((i, j), 0), table)
            ranks = upward_ranks(work, where, transfers)
            levels = upward_ranks(work, where, {edge: 0 * table for edge, table in transfers.items()})
            for name, rank, level in zip(order, ranks.tolist(), levels.tolist(), strict=True):
                modes = tasks[name].modes
                self.nodes[name] = Node(
                    tuple(mode.duration for mode in modes), tuple(mode.uses[0].resource for mode in modes), tuple(before[name]), rank, level
                )  # fmt: skip

    def let_in(self, view: View, most_inside: int) -> list[str]:
        """The jobs that are not done, no more than so many (0: all): those inside, then in the problem's order."""
        unfinished = [(not state.inside, job) for job, state in view.jobs.items() if state.inside or state.remaining_tasks]
        return [job for _, job in sorted(unfinished, key=itemgetter(0))[: most_inside or None]]


def delay(lag: Lag, before: int, mode: int) -> int:
    """Ticks from the end of the predecessor, in mode `before`, until a task in mode `mode` has its data."""
    return (lag.min or 0) + (lag.by_modes or {}).get((before, mode), 0)
