"""One violation of a kind, put into a problem or a schedule that had none."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from rota.contracts.shop import Event, Lag, Mode, Problem, Resource, Schedule, Task, Use
from rota.errors import InputError
from rota.mechanisms.shop.violations import Kind
from tests.shop.brute import holds_of, times_of, units_at, value

Times = dict[Event, int]
#: Problem, schedule, and what is claimed of it: objective and bound.
Injected = tuple[Problem, Schedule, tuple[int, ...] | None, tuple[int, ...] | None]


def inject(kind: Kind, rng: random.Random, problem: Problem, schedule: Schedule) -> Injected | None:
    """A case with exactly one broken constraint, of this kind; None if this schedule offers no place for it."""
    times = times_of(problem, schedule)
    assert times is not None
    if kind in ("objective", "bound"):
        if problem.objective is None:
            return None
        true = value(problem, schedule)
        off = list(true)
        off[rng.randrange(len(off))] += rng.choice([-2, -1, 1, 2]) if kind == "objective" else rng.randint(1, 3)
        return problem, schedule, *((tuple(off), None) if kind == "objective" else (true, tuple(off)))
    try:
        found = _MAKERS[kind](rng, problem, schedule, times)
    except InputError:
        return None  # the problem itself would contradict this
    return None if found is None else (*found, None, None)


def _task(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule]:
    start = dict(schedule.start)
    if rng.random() < 0.5:
        start["stranger"] = 3
    else:
        start.pop(rng.choice(problem.tasks).id)
    return problem, replace(schedule, start=start)


def _mode(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule]:
    task = rng.choice(problem.tasks)
    return problem, replace(schedule, mode={**schedule.mode, task.id: rng.choice([-1, len(task.modes)])})


def _end(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule]:
    task = rng.choice(problem.tasks).id
    return problem, replace(schedule, end={task: times[Event(task, "end")] + rng.choice([-1, 1])})


def _window(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule] | None:
    task = rng.choice(problem.tasks)
    start, end = times[Event(task.id, "start")], times[Event(task.id, "end")]
    if rng.random() < 0.5:
        changed = replace(task, earliest_start=start + rng.randint(1, 3))
    elif end > 0:
        changed = replace(task, latest_end=end - 1)
    else:
        return None
    return _with_task(problem, changed), schedule


def _with_task(problem: Problem, task: Task) -> Problem:
    return replace(problem, tasks=tuple(task if old.id == task.id else old for old in problem.tasks))


def _release(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule] | None:
    if not problem.jobs:
        return None
    job = rng.choice(problem.jobs)
    late = replace(job, release_date=min(schedule.start[name] for name in job.tasks) + 1)
    return replace(problem, jobs=tuple(late if old is job else old for old in problem.jobs)), schedule


def _deadline(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule] | None:
    if not problem.jobs:
        return None
    job = rng.choice(problem.jobs)
    early = replace(job, deadline=max(times[Event(name, "end")] for name in job.tasks) - 1)
    return replace(problem, jobs=tuple(early if old is job else old for old in problem.jobs)), schedule


def _min_lag(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule]:
    a, b = rng.choice(list(times)), rng.choice(list(times))
    return replace(problem, lags=(*problem.lags, Lag(a, b, times[b] - times[a] + rng.randint(1, 2)))), schedule


def _max_lag(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule]:
    a, b = rng.choice(list(times)), rng.choice(list(times))
    return replace(problem, lags=(*problem.lags, Lag(a, b, None, times[b] - times[a] - rng.randint(1, 2)))), schedule


def _capacity(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule] | None:
    """One more task, on a resource that has too little left for it."""
    plain = [
        resource for resource in problem.resources if resource.kind == "renewable" and not resource.setup and resource.capacity
    ]
    if not plain:
        return None
    resource, tick = rng.choice(plain), rng.randint(0, 8)
    limit = units_at(resource, tick)
    held = sum(h[3] for h in holds_of(problem, schedule, times) if h[0] == resource.id and h[1] <= tick < h[2])
    amount = limit - held + 1
    if not limit or amount > resource.capacity:
        return None
    more = Task("more", (Mode(1, (Use(resource.id, amount),)),))
    return replace(problem, tasks=(*problem.tasks, more)), _also(schedule, more=tick)


def _also(schedule: Schedule, **start: int) -> Schedule:
    return replace(schedule, start={**schedule.start, **start}, mode={**schedule.mode, **dict.fromkeys(start, 0)})


def _using(task: Task, mode: int, use: Use) -> Task:
    changed = replace(task.modes[mode], uses=(*task.modes[mode].uses, use))
    return replace(task, modes=tuple(changed if m == mode else old for m, old in enumerate(task.modes)))


def _break(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule] | None:
    task = rng.choice(problem.tasks)
    start, end = times[Event(task.id, "start")], times[Event(task.id, "end")]
    if task.allow_breaks or end == start:
        return None
    tick = rng.randrange(start, end)
    shut = Resource("shut", calendar=((tick, 0), (tick + 1, 1)))
    changed = _with_task(replace(problem, resources=(*problem.resources, shut)), task)
    return _with_task(changed, _using(task, schedule.mode[task.id], Use("shut"))), schedule


def _consumable(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule] | None:
    if len(problem.tasks) < 2:
        return None
    changed = replace(problem, resources=(*problem.resources, Resource("oil", 1, "consumable")))
    for task in rng.sample(problem.tasks, 2):
        changed = _with_task(changed, _using(task, schedule.mode[task.id], Use("oil")))
    return changed, schedule


def _setup(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule] | None:
    spans = [(times[Event(task.id, "start")], times[Event(task.id, "end")], task) for task in problem.tasks]
    pairs = [(a, b) for a in spans for b in spans if a[0] < a[1] < b[0] < b[1]]
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    machine = Resource("press", setup={(first[2].family, second[2].family): second[0] - first[1] + 1})
    changed = replace(problem, resources=(*problem.resources, machine))
    for _, _, task in (first, second):
        changed = _with_task(changed, _using(task, schedule.mode[task.id], Use("press")))
    return changed, schedule


def _exclusive(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule] | None:
    spans = [(times[Event(task.id, "start")], times[Event(task.id, "end")], task.id) for task in problem.tasks]
    pairs = [(a[2], b[2]) for a in spans for b in spans if a < b and b[0] < a[1] and b[0] < b[1]]
    return (replace(problem, exclusive=(*problem.exclusive, frozenset(rng.choice(pairs)))), schedule) if pairs else None


def _ring(rng: random.Random, problem: Problem, schedule: Schedule, times: Times) -> tuple[Problem, Schedule]:
    """Two or three more jobs that block machines of their own and move round at one instant."""
    size, begin = rng.randint(2, 3), rng.randint(0, 4)
    machines = tuple(Resource(f"ring{k}") for k in range(size))
    tasks, lags, start = [], [], {}
    for k in range(size):
        first, second = f"on{k}", f"off{k}"
        tasks.append(Task(first, (Mode(2, (Use(f"ring{k}", until=Event(second, "start")),)),)))
        tasks.append(Task(second, (Mode(1, (Use(f"ring{(k + 1) % size}"),)),)))
        lags.append(Lag(Event(first, "end"), Event(second, "start")))
        start |= {first: begin, second: begin + 3}
    changed = replace(
        problem, tasks=(*problem.tasks, *tasks), resources=(*problem.resources, *machines), lags=(*problem.lags, *lags), swap=False
    )  # fmt: skip
    return changed, _also(schedule, **start)


_MAKERS: dict[Kind, Callable[[random.Random, Problem, Schedule, Times], tuple[Problem, Schedule] | None]] = {
    "task": _task, "mode": _mode, "end": _end, "window": _window, "release": _release, "deadline": _deadline, "min_lag": _min_lag,
    "max_lag": _max_lag, "capacity": _capacity, "break": _break, "consumable": _consumable, "setup": _setup, "exclusive": _exclusive,
    "ring": _ring,
}  # fmt: skip
