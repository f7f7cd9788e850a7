"""Which tasks of a schedule are to be planned anew together: close in time, on the same resources, of the same jobs.

A neighbourhood is a function of the schedule's times that names about as many tasks as it is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rota.contracts.shop import Event, Problem


class Layout(NamedTuple):
    """What neighbourhoods look at, by number of task.

    Attributes
    ----------
    names : list of str
    jobs : list of lists
        Tasks of each job.
    users : list of lists
        Tasks with a mode that uses the resource, for each that has any.
    near : list of lists
        Tasks that a lag ties to this one.
    """

    names: list[str]
    jobs: list[list[int]]
    users: list[list[int]]
    near: list[list[int]]


#: Middle of each task in time, shape (tasks,).
Middles = NDArray[np.float64]
Neighbourhood = Callable[[Layout, Middles, int, np.random.Generator], set[int]]


def layout(problem: Problem) -> Layout:
    """The layout of a problem; tasks without a job are each their own."""
    number = {task.id: i for i, task in enumerate(problem.tasks)}
    users: dict[str, set[int]] = defaultdict(set)
    for i, task in enumerate(problem.tasks):
        for mode in task.modes:
            for use in mode.uses:
                users[use.resource].add(i)
    near: list[set[int]] = [set() for _ in problem.tasks]
    for lag in problem.lags:
        a, b = number[lag.a[0]], number[lag.b[0]]
        if a != b:
            near[a].add(b)
            near[b].add(a)
    jobs = [[number[name] for name in job.tasks] for job in problem.jobs]
    inside = {i for job in jobs for i in job}
    jobs += [[i] for i in range(len(problem.tasks)) if i not in inside]
    return Layout(list(number), jobs, [sorted(found) for found in users.values()], [sorted(found) for found in near])


def middles(problem: Problem, times: Mapping[Event, int]) -> Middles:
    """The middle of each task in time, shape (tasks,)."""
    return np.array([(times[Event(task.id, "start")] + times[Event(task.id, "end")]) / 2 for task in problem.tasks])


def window(layout: Layout, middle: Middles, size: int, rng: np.random.Generator) -> set[int]:
    """Everything around one instant."""
    return _nearest(range(len(middle)), middle, _instant(middle, rng), size, rng)


def resources(layout: Layout, middle: Middles, size: int, rng: np.random.Generator) -> set[int]:
    """All users of a few resources; of the last of them, those around one instant."""
    return _groups(layout.users, middle, size, rng)


def jobs(layout: Layout, middle: Middles, size: int, rng: np.random.Generator) -> set[int]:
    """All tasks of a few jobs; of the last of them, those around one instant."""
    return _groups(layout.jobs, middle, size, rng)


def block(layout: Layout, middle: Middles, size: int, rng: np.random.Generator) -> set[int]:
    """The users of half of the resources around one instant: longer than a window of as many tasks."""
    chosen = rng.permutation(len(layout.users))[: (len(layout.users) + 1) // 2]
    users = {task for number in chosen for task in layout.users[number]}
    return _nearest(sorted(users), middle, _instant(middle, rng), size, rng)


def related(layout: Layout, middle: Middles, size: int, rng: np.random.Generator) -> set[int]:
    """A task, those that lags tie to it, those that lags tie to these, and so on."""
    found: set[int] = set()
    for root in rng.permutation(len(middle)).tolist():
        todo = [root] if root not in found else []
        found.update(todo)
        for task in todo:
            for other in rng.permutation(np.array(layout.near[task], np.int64)).tolist():
                if len(found) >= size:
                    return found
                if other not in found:
                    found.add(other)
                    todo.append(other)
        if len(found) >= size:
            break
    return found


NEIGHBOURHOODS: dict[str, Neighbourhood] = {
    "window": window, "resources": resources, "jobs": jobs, "block": block, "related": related,
}  # fmt: skip


def _instant(middle: Middles, rng: np.random.Generator) -> float:
    return float(middle[rng.integers(len(middle))])


def _nearest(tasks: Iterable[int], middle: Middles, instant: float, size: int, rng: np.random.Generator) -> set[int]:
    """Of these tasks, `size` around an instant; among those that are as near, any."""
    own = np.fromiter(tasks, np.int64)
    return set(own[np.lexsort((rng.random(len(own)), np.abs(middle[own] - instant)))[:size]].tolist())


def _groups(groups: list[list[int]], middle: Middles, size: int, rng: np.random.Generator) -> set[int]:
    found: set[int] = set()
    instant = _instant(middle, rng)
    for number in rng.permutation(len(groups)).tolist():
        new = [task for task in groups[number] if task not in found]
        found |= _nearest(new, middle, instant, size - len(found), rng)
        if len(found) >= size:
            break
    return found
