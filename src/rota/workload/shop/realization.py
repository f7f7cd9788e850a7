"""What really happens in a shop: how long work takes, when machines break down, when jobs arrive. All of it is drawn before, from a seed.

Nobody who decides sees it before it happens. The same seed gives the same run of luck to every rule, and each aspect (noise,
interruptions, breakdowns, arrivals) has random numbers of its own, so that switching one on does not change another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rota.errors import InputError
from rota.workload.shop.problem import Problem, Resource, Task

#: Ticks of an interruption, uniform between the two.
INTERRUPTION = (1, 99)


@dataclass(frozen=True, slots=True)
class Realization:
    """What happens, where it is not as the problem says.

    Parameters
    ----------
    work : mapping of (task, mode) to ticks
        What a task really takes; those not named take what their mode says.
    down : mapping of resource to tuple of (from, until)
        Breakdowns, ascending and apart. Work is suspended and goes on afterwards; whoever holds the resource keeps it, and nobody takes it.
    arrival : mapping of job to ticks
        When a job becomes known. It can start no earlier than its release date either.
    restarts : bool
        Work that a breakdown interrupts is lost and begins anew afterwards, instead of going on.

    Raises
    ------
    InputError
        If a number is negative, or breakdowns are empty, overlap or are out of order.
    """

    work: Mapping[tuple[str, int], int] = field(default_factory=dict)
    down: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    arrival: Mapping[str, int] = field(default_factory=dict)
    restarts: bool = False

    def __post_init__(self) -> None:
        if any(ticks < 0 for ticks in (*self.work.values(), *self.arrival.values())):
            raise InputError("actual durations and arrivals must not be negative")
        for name, stretches in self.down.items():
            last = -1
            for begin, until in stretches:
                if not last < begin < until:
                    raise InputError(f"breakdowns of {name} must be ascending, apart and not empty; see ({begin}, {until})")
                last = until


def draw(
    problem: Problem, seed: int, *, noise: float = 0.0, interruptions: float = 0.0, breakdowns: tuple[float, float] | None = None,
    arrivals: float = 0.0, restarts: bool = False,
) -> Realization:  # fmt: skip
    """A realization of `problem`.

    Parameters
    ----------
    seed : int
    noise : float
        Durations times U(1 - noise, 1 + noise), rounded; in [0, 1).
    interruptions : float
        Probability that the machine stops once while a task runs, for U(1, 99) ticks; the task takes so much longer, and with `restarts`
        a share U(0, 1) of its own work more, which is lost.
    breakdowns : (float, float) or None
        Mean ticks between the end of a breakdown and the next one, and mean ticks of repair, both exponential, for every renewable resource.
    arrivals : float
        Mean ticks between two jobs, exponential, in the problem's order; 0: all are there from the start.
    restarts : bool
        Interrupted work begins anew instead of going on.

    Raises
    ------
    InputError
        If a number is out of its range.
    """
    if not 0 <= noise < 1 or not 0 <= interruptions <= 1 or arrivals < 0 or seed < 0:
        raise InputError("noise must be in [0, 1), interruptions a probability, and neither arrivals nor the seed negative")
    if breakdowns is not None and (breakdowns[0] < 1 or breakdowns[1] < 1):
        raise InputError("breakdowns need a mean time between them and a mean repair time of at least 1 tick each")
    work: dict[tuple[str, int], int] = {}
    if noise or interruptions:
        factor, stop, done = (np.random.default_rng([seed, part]) for part in (0, 1, 4))
        for task in problem.tasks:
            stopped = int(stop.random() < interruptions) * int(stop.integers(INTERRUPTION[0], INTERRUPTION[1] + 1))
            stretch, share = factor.uniform(1 - noise, 1 + noise), done.random()
            for mode, way in enumerate(task.modes):
                ticks = round(way.duration * stretch)
                lost = int(ticks * share) if restarts and stopped else 0
                work[task.id, mode] = ticks + lost + (stopped if way.duration else 0)
    down: dict[str, tuple[tuple[int, int], ...]] = {}
    if breakdowns is not None:
        rng = np.random.default_rng([seed, 2])
        until = problem.horizon + sum(work.values()) + round(arrivals * len(problem.jobs))
        until = round(until * (1 + breakdowns[1] / breakdowns[0]))
        for resource in problem.resources:
            if resource.kind == "renewable":
                down[resource.id] = tuple(_breakdowns(rng, *breakdowns, until))
    arrival: dict[str, int] = {}
    if arrivals:
        gaps = np.random.default_rng([seed, 3]).exponential(arrivals, max(len(problem.jobs) - 1, 0))
        times = [0, *np.cumsum(gaps).round().astype(int).tolist()]
        arrival = {job.id: at for job, at in zip(problem.jobs, times, strict=False)}
    return Realization(work, down, arrival, restarts)


def _breakdowns(rng: np.random.Generator, between: float, repair: float, until: int) -> Iterator[tuple[int, int]]:
    at = 0
    while True:
        begin = at + max(1, round(rng.exponential(between)))
        if begin > until:
            return
        at = begin + max(1, round(rng.exponential(repair)))
        yield begin, at


def realized(problem: Problem, realization: Realization, start: Mapping[str, int] | None = None) -> Problem:
    """The problem as it turned out, in which a realised schedule can be checked: actual durations, breakdowns as breaks, arrivals as releases.

    Parameters
    ----------
    start : mapping of task to ticks or None
        The realised starts. Where interrupted work begins anew, they say how much of it was lost, which is part of the durations.
    """

    def actual(task: Task) -> Task:
        modes = []
        for m, way in enumerate(task.modes):
            ticks = realization.work.get((task.id, m), way.duration)
            if realization.restarts and start is not None and task.id in start:
                down = sorted({stretch for use in way.uses for stretch in realization.down.get(use.resource, ())})
                ticks += _lost(start[task.id], ticks, down)
            modes.append(replace(way, duration=ticks))
        return replace(task, modes=tuple(modes), allow_breaks=task.allow_breaks or bool(realization.down))

    def broken(resource: Resource) -> Resource:
        if not realization.down.get(resource.id):
            return resource
        steps = [step for begin, until in realization.down[resource.id] for step in ((begin, 0), (until, resource.capacity))]
        return replace(resource, calendar=tuple(steps))

    jobs = (replace(job, release_date=max(job.release_date, realization.arrival.get(job.id, 0))) for job in problem.jobs)
    return replace(
        problem, tasks=tuple(map(actual, problem.tasks)), resources=tuple(map(broken, problem.resources)), jobs=tuple(jobs)
    )


def _lost(start: int, ticks: int, down: Sequence[tuple[int, int]]) -> int:
    """Ticks worked in vain before the first stretch without a breakdown that is long enough."""
    lost, begin = 0, start
    for broken, until in down:
        if until <= begin:
            continue
        if begin + ticks <= broken:
            break
        lost += max(0, broken - begin)
        begin = until
    return lost
