"""Whether the parts of a problem fit together: names, whole numbers, capacities, setups, terms. Times are checked in `feasible`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rota.errors import InfeasibleProblem, InputError
from rota.workload.shop.problem import CONSUMABLE, DUE_TERMS, JOB_TERMS, TERMS

if TYPE_CHECKING:
    from rota.workload.shop.problem import Event, Job, Lag, Objective, Problem, Resource, Task

#: Of any time or amount; sums of many of them still fit 64 bits.
LARGEST = 10**12


def check_parts(problem: Problem) -> None:
    """Raise at the first thing that cannot be meant; the message begins with the problem's name and the part."""
    try:
        _check(problem)
    except InputError as error:
        raise type(error)(f"{problem.name}: {error}") from None


def _check(problem: Problem) -> None:
    if not problem.tasks:
        raise InputError("there are no tasks; give at least one")
    for kind, parts in (("task", problem.tasks), ("resource", problem.resources), ("job", problem.jobs)):
        _unique(kind, [part.id for part in parts])
    resources = {resource.id: resource for resource in problem.resources}
    tasks = {task.id: task for task in problem.tasks}
    for resource in problem.resources:
        _resource(resource)
    for task in problem.tasks:
        _task(task, resources, tasks)
    for lag in problem.lags:
        _lag(lag, tasks)
    for job in problem.jobs:
        _job(job, tasks)
    members = Counter(name for job in problem.jobs for name in job.tasks)
    for name, count in members.items():
        if count > 1:
            raise InputError(f"task {name} is in {count} jobs; a task belongs to at most one")
    for group in problem.exclusive:
        for name in group:
            _known(name, tasks, "an exclusive set")
        if len(group) < 2:
            raise InputError(f"the exclusive set {{{', '.join(group)}}} needs at least two tasks")
    if problem.objective is not None:
        _objective(problem.objective, problem.jobs, resources)


def _unique(kind: str, names: list[str]) -> None:
    for name in names:
        if not isinstance(name, str) or not name:
            raise InputError(f"{kind} id {name!r} must be a text that is not empty")
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{kind} {name} is defined {count} times; ids must differ")


def _whole(value: object, what: str, least: int | None = 0) -> None:
    if type(value) is not int:
        raise InputError(f"{what} is {value!r}; times and amounts are whole numbers, so scale them first")
    if abs(value) > LARGEST:
        raise InputError(f"{what} is {value}; numbers beyond {LARGEST} are too large, so choose a coarser unit")
    if least is not None and value < least:
        raise InputError(f"{what} is {value}; it must be at least {least}")


def _known(name: str, tasks: dict[str, Task], where: str) -> None:
    if name not in tasks:
        raise InputError(f"{where} names task {name}, which does not exist")


def _event(event: Event, tasks: dict[str, Task], where: str) -> None:
    _known(event[0], tasks, where)
    if event[1] not in ("start", "end"):
        raise InputError(f"{where} names the event {event[1]!r} of task {event[0]}; an event is start or end")


def _resource(resource: Resource) -> None:
    where = f"resource {resource.id}"
    _whole(resource.capacity, f"the capacity of {where}")
    if resource.kind not in ("renewable", "consumable"):
        raise InputError(f"{where} is of kind {resource.kind!r}; it must be renewable or consumable")
    if resource.kind == "consumable" and (resource.calendar or resource.setup):
        raise InputError(f"{where} is consumable, and can have neither calendar nor setups")
    last = -1
    for at, units in resource.calendar:
        _whole(at, f"a time in the calendar of {where}")
        _whole(units, f"the capacity of {where} from tick {at} on")
        if at <= last:
            raise InputError(f"the calendar of {where} is not ascending at tick {at}")
        if units > resource.capacity:
            raise InputError(
                f"the calendar of {where} has {units} units from tick {at} on, more than its capacity {resource.capacity}"
            )
        last = at
    if resource.setup and resource.capacity != 1:
        raise InputError(f"{where} has setups and capacity {resource.capacity}; setups need capacity 1")
    for pair, ticks in (resource.setup or {}).items():
        _whole(ticks, f"the setup of {where} from {pair[0]!r} to {pair[1]!r}")


def _task(task: Task, resources: dict[str, Resource], tasks: dict[str, Task]) -> None:
    where = f"task {task.id}"
    _whole(task.earliest_start, f"the earliest start of {where}")
    if task.latest_end is not None:
        _whole(task.latest_end, f"the latest end of {where}")
    if not task.modes:
        raise InputError(f"{where} has no mode; give it a duration")
    for mode in task.modes:
        _whole(mode.duration, f"the duration of {where}")
        _unique_uses(where, [use.resource for use in mode.uses])
        for use in mode.uses:
            if use.resource not in resources:
                raise InputError(f"{where} uses resource {use.resource}, which does not exist")
            _whole(use.amount, f"the amount of {use.resource} that {where} uses", 1)
            resource = resources[use.resource]
            if use.until is not None:
                _event(use.until, tasks, f"the hold of {use.resource} by {where}")
                if resource.kind == "consumable":
                    raise InputError(f"{where} uses {use.resource} up; it cannot hold it until an event")
            if resource.setup and not task.family:
                raise InputError(f"{where} uses {use.resource}, which has setups; give the task a family")
            if resource.setup and mode.duration == 0:
                raise InputError(f"{where} uses {use.resource}, which has setups; its duration must be at least 1")
    misfit = [next((u for u in mode.uses if u.amount > resources[u.resource].capacity), None) for mode in task.modes]
    if all(misfit) and misfit[0] is not None:
        use = misfit[0]
        every = "in every mode" if len(task.modes) > 1 else "always"
        raise InfeasibleProblem(
            f"no resource can hold {where}: it {every} needs more than there is "
            f"({use.amount} of {use.resource}, which has {resources[use.resource].capacity})"
        )


def _unique_uses(where: str, names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise InputError(f"{where} uses {Counter(names).most_common(1)[0][0]} twice in one mode; add the amounts up")


def _lag(lag: Lag, tasks: dict[str, Task]) -> None:
    where = f"the lag from {lag.a[0]} to {lag.b[0]}"
    _event(lag.a, tasks, where)
    _event(lag.b, tasks, where)
    if lag.min is None and lag.max is None:
        raise InputError(f"{where} has neither min nor max; leave it out")
    for value in (lag.min, lag.max):
        if value is not None:
            _whole(value, where, None)
    if lag.min is None and lag.by_modes:
        raise InputError(f"{where} has times by modes but no min to add them to; give min=0")
    for (first, second), ticks in (lag.by_modes or {}).items():
        _whole(ticks, f"{where}, modes {first} and {second},", None)
        if not (0 <= first < len(tasks[lag.a[0]].modes) and 0 <= second < len(tasks[lag.b[0]].modes)):
            raise InputError(f"{where} names the modes {first} and {second}, which do not both exist")


def _job(job: Job, tasks: dict[str, Task]) -> None:
    where = f"job {job.id}"
    if not job.tasks:
        raise InputError(f"{where} has no tasks")
    for name in job.tasks:
        _known(name, tasks, where)
    _whole(job.release_date, f"the release date of {where}")
    _whole(job.weight, f"the weight of {where}")
    if job.deadline is not None:
        _whole(job.deadline, f"the deadline of {where}")
    if job.due_date is not None:
        _whole(job.due_date, f"the due date of {where}", None)


def _objective(objective: Objective, jobs: Iterable[Job], resources: dict[str, Resource]) -> None:
    if not objective.stages or not all(objective.stages):
        raise InputError("the objective has a stage without terms; leave the objective out for feasibility only")
    for term, weight in ((term, weight) for stage in objective.stages for term, weight in stage.items()):
        _whole(weight, f"the weight of {term}")
        if term.startswith(CONSUMABLE):
            resource = resources.get(term.removeprefix(CONSUMABLE))
            if resource is None or resource.kind != "consumable":
                raise InputError(f"the objective names {term}, but there is no such consumable resource")
        elif term not in TERMS:
            raise InputError(f"the objective names {term}; it must be one of {', '.join(TERMS)} or {CONSUMABLE}RESOURCE")
        if term in JOB_TERMS and not jobs:
            raise InputError(f"the objective is {term}, but there are no jobs")
        if term in DUE_TERMS and all(job.due_date is None for job in jobs):
            raise InputError(f"the objective is {term}, but no job has a due date")
