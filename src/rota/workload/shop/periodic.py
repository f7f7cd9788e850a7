"""Periodic work as a problem: every instance within its own period, unrolled over the hyperperiod.

A protocol's operations are tasks that lags tie together at fixed distances, and a stored half of a pair holds its qubit until the operation
that uses it up ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rota.workload.shop.entanglement import STORAGE, Protocol
from rota.workload.shop.problem import Event, Lag, Mode, Problem, Resource, Task, Use


@dataclass(frozen=True, slots=True)
class Periodic:
    """A protocol that is to run once in every period, in ticks."""

    protocol: Protocol
    period: int


def hyperperiod(work: Sequence[Periodic]) -> int:
    """The least common multiple of the periods, in ticks."""
    return math.lcm(*(one.period for one in work))


def capacities(work: Sequence[Periodic]) -> dict[str, int]:
    """Units of every qubit kind that is used: a communication qubit per node, and some storage."""
    return {name: 1 if name[0] == "c" else STORAGE for one in work for name in one.protocol.profile()}


def unroll(work: Sequence[Periodic], name: str = "periodic") -> Problem:
    """The problem of one hyperperiod. Operation i of instance k of task j is ``j.k.i``; there is no objective."""
    tasks: list[Task] = []
    lags: list[Lag] = []
    for j, one in enumerate(work):
        protocol = one.protocol
        for k in range(hyperperiod(work) // one.period):
            first = min(range(len(protocol.start)), key=lambda i: protocol.start[i])
            for i, at in enumerate(protocol.start):
                own = f"{j}.{k}.{i}"
                uses = [Use(f"c{node}") for node in protocol.ends[i]] if protocol.kinds[i] == "link" else []
                for hold in protocol.holds:
                    if hold.by == i:
                        uses.append(Use(f"s{hold.node}", 1, Event(f"{j}.{k}.{hold.until}", "end")))
                tasks.append(Task(own, (Mode(protocol.ticks[i], tuple(uses)),), k * one.period, (k + 1) * one.period))
                if i != first:
                    lags.append(Lag(Event(f"{j}.{k}.{first}", "start"), Event(own, "start"), at, at))
    resources = tuple(Resource(qubit, units) for qubit, units in capacities(work).items())
    return Problem(tuple(tasks), resources, tuple(lags), (), None, name=name)


def starts_of(work: Sequence[Periodic], starts: Sequence[Sequence[int]]) -> dict[str, int]:
    """Starts of the tasks of `unroll`, out of those of each task's instances."""
    return {
        f"{j}.{k}.{i}": at + offset
        for j, one in enumerate(work)
        for k, at in enumerate(starts[j])
        for i, offset in enumerate(one.protocol.start)
    }
