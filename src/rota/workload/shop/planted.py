"""Project problems that are known to have a schedule, because one was planted first and every constraint was placed around it.

Problems come as a ramp: each level adds one precedence that the earlier ones do not imply and that makes none of them superfluous, so
level k has exactly k of them and every schedule of a level is one of all lower levels. Beside precedence and capacities there are three
axes (R-ConstraintBench, 2025): downtime of resources, time windows, and pairs that must not overlap. There is no objective.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from rota.errors import InputError
from rota.workload.shop.build import precedence
from rota.workload.shop.problem import Mode, Problem, Resource, Task, Use

AXES = ("downtime", "windows", "pairs")
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Words:
    """What tasks and resources are called; numbers are put behind the tasks' word."""

    task: str
    resources: tuple[str, ...]


#: Plain names, and those of a data-centre migration.
VOCABULARIES = {
    "plain": Words("T", ("R1", "R2", "R3")),
    "migration": Words("rack", ("network-team", "forklift", "lift-equipment")),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How large and how tight.

    Parameters
    ----------
    tasks, layers : int
        Tasks are dealt out to layers in turn; precedence goes from a layer to a later one.
    longest : int
        Durations are uniform in 1 to `longest` ticks.
    capacity : int
        Of each resource; a task takes 0 to half of it, and something of at least one resource.
    slack : int
        A window is up to so many ticks wider than the task on either side.
    share : float
        Of resources that have a downtime, of tasks that have a window, and pairs per task.
    vocabulary : str
        One of `VOCABULARIES`; says how many resources there are, too.
    """

    tasks: int = 20
    layers: int = 5
    longest: int = 8
    capacity: int = 6
    slack: int = 4
    share: float = 0.75
    vocabulary: str = "plain"

    def __post_init__(self) -> None:
        if self.vocabulary not in VOCABULARIES:
            raise InputError(f"vocabulary must be one of {', '.join(VOCABULARIES)}, not {self.vocabulary!r}")
        if not 2 <= self.layers <= self.tasks:
            raise InputError(
                f"there must be at least 2 layers and a task for each, not {self.layers} layers and {self.tasks} tasks"
            )
        if self.longest < 1 or self.capacity < 1 or self.slack < 0 or not 0 <= self.share <= 1:
            raise InputError("durations and capacity must be at least 1, slack at least 0, and the share within 0 and 1")


@dataclass(frozen=True, slots=True)
class Planted:
    """A problem and the planted schedule: the start of every task, in ticks."""

    problem: Problem
    certificate: Mapping[str, int]
    level: int


def ramp(shape: Shape, axes: Sequence[str], levels: Sequence[int], seed: int) -> list[Planted]:
    """Problems of ascending level that differ in nothing but their precedence.

    Parameters
    ----------
    shape : Shape
    axes : sequence of str
        Of `AXES`. The same seed gives the same tasks, precedence and planted schedule whatever the axes, so that axes can be compared.
    levels : sequence of int
        Numbers of precedences. The planted schedule keeps those of the highest level.
    seed : int

    Raises
    ------
    InputError
        If an axis is unknown, or there are no so many precedences of which none implies another.
    """
    for axis in axes:
        if axis not in AXES:
            raise InputError(f"there is no axis {axis!r}; choose from {', '.join(AXES)}")
    if not levels or min(levels) < 0:
        raise InputError("levels are numbers of precedences, at least 0; give one or more")
    rng = random.Random(f"planted {seed}")
    words = VOCABULARIES[shape.vocabulary]
    durations = [rng.randint(1, shape.longest) for _ in range(shape.tasks)]
    demands = [_demand(rng, shape.capacity, len(words.resources)) for _ in range(shape.tasks)]
    edges = independent_edges(rng, [i * shape.layers // shape.tasks for i in range(shape.tasks)], max(levels))
    down = _downtimes(rng, durations, len(words.resources), shape.share)
    start = _plant(rng, durations, demands, shape.capacity, edges, down)
    windows = _windows(rng, start, durations, shape)
    pairs = _pairs(rng, start, durations, edges, round(shape.share * shape.tasks))
    names = [f"{words.task}{i + 1}" for i in range(shape.tasks)]
    resources = tuple(
        Resource(name, shape.capacity, calendar=((begin, 0), (end, shape.capacity)) if "downtime" in axes and end else ())
        for name, (begin, end) in zip(words.resources, down, strict=True)
    )
    tasks = []
    for i, name in enumerate(names):
        uses = tuple(Use(words.resources[r], amount) for r, amount in enumerate(demands[i]) if amount)
        window = windows[i] if "windows" in axes else (0, None)
        tasks.append(Task(name, (Mode(durations[i], uses),), *window))
    exclusive = tuple(frozenset((names[i], names[j])) for i, j in pairs) if "pairs" in axes else ()
    certificate = dict(zip(names, start, strict=True))
    found = []
    for level in sorted(levels):
        lags = tuple(precedence(names[i], names[j]) for i, j in edges[:level])
        title = f"planted {seed}, level {level}, {'+'.join(axes) or 'precedence only'}"
        found.append(Planted(Problem(tuple(tasks), resources, lags, (), None, exclusive, name=title), certificate, level))
    return found


def independent_edges(rng: random.Random, layer: Sequence[int], count: int) -> list[Pair]:
    """Pairs (i, j) from a layer to a later one in random order, none implied by the others before or after it.

    Raises
    ------
    InputError
        If fewer than `count` were found.
    """
    candidates = [(i, j) for i in range(len(layer)) for j in range(len(layer)) if layer[i] < layer[j]]
    rng.shuffle(candidates)
    below = [{i} for i in range(len(layer))]  # what can be reached, itself included
    above = [{i} for i in range(len(layer))]
    chosen: list[Pair] = []
    for i, j in candidates:
        if len(chosen) == count:
            break
        if j in below[i] or any(a in above[i] and b in below[j] for a, b in chosen):
            continue
        chosen.append((i, j))
        for a in above[i]:
            below[a] |= below[j]
        for b in below[j]:
            above[b] |= above[i]
    if len(chosen) < count:
        raise InputError(
            f"no more than {len(chosen)} precedences that do not imply each other were found, not {count}; use more tasks or a lower level"
        )
    return chosen


def _demand(rng: random.Random, capacity: int, resources: int) -> list[int]:
    most = max(1, capacity // 2)
    demand = [rng.randint(0, most) for _ in range(resources)]
    if not any(demand):
        demand[rng.randrange(resources)] = rng.randint(1, most)
    return demand


def _downtimes(rng: random.Random, durations: Sequence[int], resources: int, share: float) -> list[tuple[int, int]]:
    """(from, to) for each resource, within the time that the work takes; (0, 0) for those that have none."""
    about = max(2, sum(durations) // 3)
    found = []
    for _ in range(resources):
        begin, ticks, has = rng.randrange(1, about), rng.randint(1, max(durations)), rng.random() < share
        found.append((begin, begin + ticks) if has else (0, 0))
    return found


def _plant(
    rng: random.Random, durations: Sequence[int], demands: Sequence[Sequence[int]], capacity: int, edges: Sequence[Pair],
    down: Sequence[tuple[int, int]],
) -> list[int]:  # fmt: skip
    """Starts: task after task in a random order that keeps the edges, each as early as it fits and touching no downtime."""
    horizon = sum(durations) + sum(end for _, end in down) + len(durations) * max(durations)
    free = [[0 if begin <= t < end else capacity for t in range(horizon)] for begin, end in down]
    start: dict[int, int] = {}
    for i in _random_order(rng, len(durations), edges):
        at = max((start[a] + durations[a] for a, b in edges if b == i), default=0)
        while not all(min(free[r][at : at + durations[i]]) >= amount for r, amount in enumerate(demands[i]) if amount):
            at += 1
        for r, amount in enumerate(demands[i]):
            for t in range(at, at + durations[i]):
                free[r][t] -= amount
        start[i] = at
    return [start[i] for i in range(len(durations))]


def _random_order(rng: random.Random, tasks: int, edges: Sequence[Pair]) -> Iterator[int]:
    waits = [sum(b == i for _, b in edges) for i in range(tasks)]
    ready = [i for i in range(tasks) if not waits[i]]
    while ready:
        i = ready.pop(rng.randrange(len(ready)))
        yield i
        for a, b in edges:
            if a == i:
                waits[b] -= 1
                if not waits[b]:
                    ready.append(b)


def _windows(rng: random.Random, start: Sequence[int], durations: Sequence[int], shape: Shape) -> list[tuple[int, int | None]]:
    found: list[tuple[int, int | None]] = []
    for at, ticks in zip(start, durations, strict=True):
        before, after, has = rng.randint(0, shape.slack), rng.randint(0, shape.slack), rng.random() < shape.share
        found.append((max(0, at - before), at + ticks + after) if has else (0, None))
    return found


def _pairs(rng: random.Random, start: Sequence[int], durations: Sequence[int], edges: Sequence[Pair], count: int) -> list[Pair]:
    """Tasks that do not overlap in the planted schedule, with no precedence between them."""
    apart = [
        (i, j)
        for i, j in combinations(range(len(start)), 2)
        if (start[i] + durations[i] <= start[j] or start[j] + durations[j] <= start[i]) and (i, j) not in edges
    ]
    return sorted(rng.sample(apart, min(count, len(apart))))
