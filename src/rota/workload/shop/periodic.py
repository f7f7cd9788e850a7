"""Periodic work as a problem: every instance within its own period, unrolled over the hyperperiod.

A protocol's operations are tasks that lags tie together at fixed distances, and a stored half of a pair holds its qubit until the operation
that uses it up ends.
"""

from __future__ import annotations

import math
from bisect import bisect_right
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


def unroll(work: Sequence[Periodic], name: str = "periodic", budget: int = 0) -> Problem:
    """The problem of one hyperperiod. Operation i of instance k of task j is ``j.k.i``; there is no objective.

    With a `budget`, an instance may pause where none of its operations is under way, and take so many ticks longer in all.
    """
    tasks: list[Task] = []
    lags: list[Lag] = []
    for j, one in enumerate(work):
        protocol = one.protocol
        pauses = protocol.pauses() if budget else []
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
                    lags.append(Lag(Event(f"{j}.{k}.{first}", "start"), Event(own, "start"), at, at + (budget if part_of(at, pauses) else 0)))
            heads = [next(i for i, at in enumerate(protocol.start) if at == pause) for pause in pauses]
            for i, at in enumerate(protocol.start):
                number = part_of(at, pauses)
                for head in heads[:number]:  # behind the heads of earlier parts, and at a fixed distance from that of its own
                    apart = at - protocol.start[head]
                    if head != i:
                        fixed = apart if head == heads[number - 1] else None
                        lags.append(Lag(Event(f"{j}.{k}.{head}", "start"), Event(f"{j}.{k}.{i}", "start"), apart, fixed))
    resources = tuple(Resource(qubit, units) for qubit, units in capacities(work).items())
    return Problem(tuple(tasks), resources, tuple(lags), (), None, name=name)


#: When an instance starts; the starts of its parts if it pauses.
Start = int | tuple[int, ...]


def part_of(at: int, pauses: Sequence[int]) -> int:
    """The number of the part in which an operation lies that begins `at` ticks from the start."""
    return bisect_right(pauses, at)


def starts_of(work: Sequence[Periodic], starts: Sequence[Sequence[Start]]) -> dict[str, int]:
    """Starts of the tasks of `unroll`, out of those of each task's instances."""
    found = {}
    for j, one in enumerate(work):
        pauses = one.protocol.pauses()
        offsets = [0, *pauses]
        for k, at in enumerate(starts[j]):
            for i, offset in enumerate(one.protocol.start):
                number = part_of(offset, pauses)
                found[f"{j}.{k}.{i}"] = at + offset if isinstance(at, int) else at[number] - offsets[number] + offset
    return found
