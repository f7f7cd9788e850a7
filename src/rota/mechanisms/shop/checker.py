"""An independent check of schedules: it believes nothing, recomputes everything from the problem, and names what is violated.

It shares no code with solvers, simulators or the validation of problems, only the contract's types, so that a mistake there cannot hide
itself here. Ends come from modes and calendars, holds from until-events, and use from sweeps over time; at equal times a release comes
before a take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from rota.contracts.shop import Event, Lag, Problem, Resource, Schedule, Task
from rota.mechanisms.shop.rings import rings
from rota.mechanisms.shop.violations import KINDS, Hold, Report, Violation

__all__ = ["KINDS", "Report", "Violation", "check"]


def check(
    problem: Problem, schedule: Schedule, *, objective: Sequence[int] | None = None, bound: Sequence[int | None] | None = None
) -> Report:
    """Check a schedule, and what is claimed about it.

    Parameters
    ----------
    problem : Problem
    schedule : Schedule
    objective, bound : sequences of int, or None
        A solver's claims, per stage: the value must be the recomputed one, and the bound not above it.
    """
    violations = list(_named(problem, schedule))
    if violations:
        return Report(tuple(violations), None, {})
    modes = {task.id: schedule.mode.get(task.id, 0) for task in problem.tasks}
    resources = {resource.id: resource for resource in problem.resources}
    times: dict[Event, int] = {}
    for task in problem.tasks:
        start = schedule.start[task.id]
        times[Event(task.id, "start")] = start
        times[Event(task.id, "end")] = _end(task, modes[task.id], start, resources)
    holds = _holds(problem, modes, times)
    violations += _stated_ends(schedule, times)
    violations += _windows(problem, times)
    violations += _lags(problem, modes, times)
    violations += _breaks(problem, modes, times, resources)
    for resource in problem.resources:
        if resource.kind == "consumable":
            violations += _consumable(resource, _used(problem, modes, resource))
        else:
            violations += _capacity(resource, holds[resource.id])
            violations += _setups(problem, resource, holds[resource.id])
    violations += _exclusive(problem, times)
    if not problem.swap:
        violations += rings(problem, modes, times, holds)
    terms = _terms(problem, modes, times, holds)
    stages = None
    if problem.objective is not None:
        stages = tuple(sum(weight * terms[term] for term, weight in stage.items()) for stage in problem.objective.stages)
        violations += _claims(stages, objective, bound)
    renewable = {name: held for name, held in holds.items() if resources[name].kind == "renewable"}
    return Report(tuple(violations), stages, terms, times, renewable)


def _named(problem: Problem, schedule: Schedule) -> Iterator[Violation]:
    known = {task.id for task in problem.tasks}
    for name in {*schedule.start, *schedule.mode, *(schedule.end or ())} - known:
        yield Violation("task", name, 0, 1)
    for task in problem.tasks:
        if type(schedule.start.get(task.id)) is not int:
            yield Violation("task", task.id, 0, 1)
        if not 0 <= schedule.mode.get(task.id, 0) < len(task.modes):
            yield Violation("mode", task.id, schedule.start.get(task.id, 0), 1)


def _closed(resource: Resource) -> list[tuple[int, int | None]]:
    """Stretches of capacity 0, as (from, to); the last may have no end."""
    ends = [*(at for at, _ in resource.calendar[1:]), None]
    return [(at, end) for (at, units), end in zip(resource.calendar, ends, strict=False) if units == 0]


def _end(task: Task, mode: int, start: int, resources: dict[str, Resource]) -> int:
    """When the work is done: at once one tick after the other, but for breaks where the task allows them."""
    left = task.modes[mode].duration
    if not task.allow_breaks:
        return start + left
    uses = [resources[use.resource] for use in task.modes[mode].uses if resources[use.resource].kind == "renewable"]
    breaks = sorted(stretch for resource in uses for stretch in _closed(resource))
    now = start
    for begin, end in breaks:
        if left <= max(0, begin - now):
            break
        left -= max(0, begin - now)
        if end is None:
            return 1 << 60  # never: reported as work within a break
        now = max(now, end)
    return now + left


def _stated_ends(schedule: Schedule, times: dict[Event, int]) -> Iterator[Violation]:
    for name, end in (schedule.end or {}).items():
        true = times[Event(name, "end")]
        if end != true:
            yield Violation("end", name, end, abs(end - true))


def _holds(problem: Problem, modes: dict[str, int], times: dict[Event, int]) -> dict[str, list[Hold]]:
    """Who holds what from when to when, without what is empty; a hold that ends before it begins has broken a lag, which is reported."""
    holds: dict[str, list[Hold]] = defaultdict(list)
    for task in problem.tasks:
        start = times[Event(task.id, "start")]
        for use in task.modes[modes[task.id]].uses:
            release = Event(task.id, "end") if use.until is None else Event(*use.until)
            if times[release] > start:
                holds[use.resource].append(Hold(start, times[release], use.amount, task.id, release))
    return holds


def _windows(problem: Problem, times: dict[Event, int]) -> Iterator[Violation]:
    for task in problem.tasks:
        start, end = times[Event(task.id, "start")], times[Event(task.id, "end")]
        if start < task.earliest_start:
            yield Violation("window", task.id, start, task.earliest_start - start)
        if task.latest_end is not None and end > task.latest_end:
            yield Violation("window", task.id, end, end - task.latest_end)
    for job in problem.jobs:
        first = min(times[Event(name, "start")] for name in job.tasks)
        last = max(times[Event(name, "end")] for name in job.tasks)
        if first < job.release_date:
            yield Violation("release", job.id, first, job.release_date - first)
        if job.deadline is not None and last > job.deadline:
            yield Violation("deadline", job.id, last, last - job.deadline)


def _least(lag: Lag, modes: dict[str, int]) -> int | None:
    if lag.min is None:
        return None
    return lag.min + (lag.by_modes or {}).get((modes[lag.a[0]], modes[lag.b[0]]), 0)


def _lags(problem: Problem, modes: dict[str, int], times: dict[Event, int]) -> Iterator[Violation]:
    for lag in problem.lags:
        apart = times[Event(*lag.b)] - times[Event(*lag.a)]
        least = _least(lag, modes)
        subject = f"{lag.a[0]} {lag.a[1]} to {lag.b[0]} {lag.b[1]}"
        if least is not None and apart < least:
            yield Violation("min_lag", subject, times[Event(*lag.b)], least - apart)
        if lag.max is not None and apart > lag.max:
            yield Violation("max_lag", subject, times[Event(*lag.b)], apart - lag.max)


def _breaks(
    problem: Problem, modes: dict[str, int], times: dict[Event, int], resources: dict[str, Resource]
) -> Iterator[Violation]:
    for task in problem.tasks:
        start, end = times[Event(task.id, "start")], times[Event(task.id, "end")]
        for use in task.modes[modes[task.id]].uses:
            for begin, until in _closed(resources[use.resource]):
                inside = min(end, end if until is None else until) - max(start, begin)
                if inside > 0 and (not task.allow_breaks or until is None):
                    yield Violation("break", f"{task.id} on {use.resource}", max(start, begin), inside)


def _used(problem: Problem, modes: dict[str, int], resource: Resource) -> int:
    chosen = (task.modes[modes[task.id]] for task in problem.tasks)
    return sum(use.amount for mode in chosen for use in mode.uses if use.resource == resource.id)


def _consumable(resource: Resource, used: int) -> Iterator[Violation]:
    if used > resource.capacity:
        yield Violation("consumable", resource.id, 0, used - resource.capacity)


def _capacity(resource: Resource, holds: list[Hold]) -> Iterator[Violation]:
    """Sweep over time. Where nobody may work, those who wait still fit the capacity as it is otherwise."""
    changes: dict[int, int] = defaultdict(int)
    for hold in holds:
        changes[hold.start] += hold.amount
        changes[hold.end] -= hold.amount
    limits = {at: units or resource.capacity for at, units in resource.calendar}
    held, limit, over = 0, resource.capacity, False
    for at in sorted({*changes, *limits}):
        held += changes.get(at, 0)
        limit = limits.get(at, limit)
        if held > limit and not over:
            yield Violation("capacity", resource.id, at, held - limit)
        over = held > limit


def _setups(problem: Problem, resource: Resource, holds: list[Hold]) -> Iterator[Violation]:
    for ready, hold, ticks in _changeovers(problem, resource, holds):
        # holders that overlap are a matter of capacity
        if ticks and 0 <= hold.start - ready < ticks:
            yield Violation("setup", f"{hold.task} on {resource.id}", hold.start, ready + ticks - hold.start)


def _changeovers(problem: Problem, resource: Resource, holds: list[Hold]) -> Iterator[tuple[int, Hold, int]]:
    """Each holder in order, with the time from which its setup may run and how long that is."""
    if not resource.setup:
        return
    family = {task.id: task.family for task in problem.tasks}
    before, ready = "", 0
    for hold in sorted(holds):
        yield ready, hold, resource.setup.get((before, family[hold.task]), 0)
        before, ready = family[hold.task], hold.end


def _exclusive(problem: Problem, times: dict[Event, int]) -> Iterator[Violation]:
    for group in problem.exclusive:
        spans = sorted((times[Event(name, "start")], times[Event(name, "end")], name) for name in group)
        busy, holder = 0, ""
        for start, end, name in spans:
            if end == start:
                continue
            if holder and start < busy:
                yield Violation("exclusive", f"{holder} and {name}", start, min(busy, end) - start)
            if end > busy:
                busy, holder = end, name


def _terms(problem: Problem, modes: dict[str, int], times: dict[Event, int], holds: dict[str, list[Hold]]) -> dict[str, int]:
    wanted = {term for stage in (problem.objective.stages if problem.objective else ()) for term in stage}
    terms = {"makespan": max(times[Event(task.id, "end")] for task in problem.tasks)}
    complete = {job.id: max(times[Event(name, "end")] for name in job.tasks) for job in problem.jobs}
    late = [(job.weight, complete[job.id] - job.due_date) for job in problem.jobs if job.due_date is not None]
    terms["total_completion"] = sum(job.weight * complete[job.id] for job in problem.jobs)
    terms["total_flow_time"] = sum(job.weight * (complete[job.id] - job.release_date) for job in problem.jobs)
    terms["total_tardiness"] = sum(weight * max(0, lateness) for weight, lateness in late)
    terms["tardy_jobs"] = sum(weight for weight, lateness in late if lateness > 0)
    terms["max_lateness"] = max((lateness for _, lateness in late), default=0)
    terms["total_setup"] = sum(ticks for r in problem.resources for _, _, ticks in _changeovers(problem, r, holds[r.id]))
    for resource in problem.resources:
        if resource.kind == "consumable":
            terms[f"consumable:{resource.id}"] = _used(problem, modes, resource)
    return {term: value for term, value in terms.items() if term in wanted or term == "makespan"}


def _claims(stages: Iterable[int], objective: Sequence[int] | None, bound: Sequence[int | None] | None) -> Iterator[Violation]:
    true = list(stages)
    if objective is not None and list(objective) != true:
        yield Violation("objective", f"claimed {list(objective)}, is {true}", 0, 1)
    for k, value in enumerate(bound or ()):
        if value is not None and k < len(true) and value > true[k]:
            yield Violation("bound", f"stage {k + 1}", 0, value - true[k])
