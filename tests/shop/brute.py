"""What a schedule is, tick by tick and by trying: an oracle for the checker and for solvers, slow and plain."""

from __future__ import annotations

from collections.abc import Iterator

from rota.contracts.shop import Event, Lag, Problem, Resource, Schedule, Task


def units_at(resource: Resource, tick: int) -> int:
    """What the calendar says of one tick."""
    found = resource.capacity
    for at, units in resource.calendar:
        if at <= tick:
            found = units
    return found


def end_of(problem: Problem, task: Task, mode: int, start: int, longest: int = 60) -> int | None:
    """The end of a task by working tick after tick; None if it may not work when it would have to, or never ends."""
    named = {use.resource for use in task.modes[mode].uses}
    resources = [r for r in problem.resources if r.id in named and r.kind == "renewable"]
    left, now = task.modes[mode].duration, start
    while left:
        if all(units_at(resource, now) for resource in resources):
            left -= 1
        elif not task.allow_breaks:
            return None
        now += 1
        if now > start + longest:
            return None
    return now


def times_of(problem: Problem, schedule: Schedule) -> dict[Event, int] | None:
    """When every task starts and ends."""
    times = {}
    for task in problem.tasks:
        end = end_of(problem, task, schedule.mode[task.id], schedule.start[task.id])
        if end is None:
            return None
        times[Event(task.id, "start")], times[Event(task.id, "end")] = schedule.start[task.id], end
    return times


def feasible(problem: Problem, schedule: Schedule) -> bool:
    """Whether a schedule keeps everything."""
    times = times_of(problem, schedule)
    if times is None:
        return False
    for task in problem.tasks:
        if times[Event(task.id, "start")] < task.earliest_start:
            return False
        if task.latest_end is not None and times[Event(task.id, "end")] > task.latest_end:
            return False
    for job in problem.jobs:
        for name in job.tasks:
            if times[Event(name, "start")] < job.release_date:
                return False
            if job.deadline is not None and times[Event(name, "end")] > job.deadline:
                return False
    if not all(lag_holds(lag, schedule, times) for lag in problem.lags):
        return False
    return (
        _ticks_fit(problem, schedule, times)
        and _setups_fit(problem, schedule, times)
        and (problem.swap or _in_order(problem, schedule, times))
    )


def lag_holds(lag: Lag, schedule: Schedule, times: dict[Event, int]) -> bool:
    """Whether one lag is kept."""
    apart = times[lag.b] - times[lag.a]
    least = least_of(lag, schedule)
    return (least is None or apart >= least) and (lag.max is None or apart <= lag.max)


def least_of(lag: Lag, schedule: Schedule) -> int | None:
    """The minimum with what the modes add."""
    if lag.min is None:
        return None
    pair = (schedule.mode[lag.a.task], schedule.mode[lag.b.task])
    return lag.min + (lag.by_modes[pair] if lag.by_modes and pair in lag.by_modes else 0)


def holds_of(problem: Problem, schedule: Schedule, times: dict[Event, int]) -> Iterator[tuple[str, int, int, int, str, Event]]:
    """Resource, from, to, amount, task, releasing event; empty ones too."""
    for task in problem.tasks:
        for use in task.modes[schedule.mode[task.id]].uses:
            release = use.until or Event(task.id, "end")
            yield use.resource, times[Event(task.id, "start")], times[release], use.amount, task.id, release


def _ticks_fit(problem: Problem, schedule: Schedule, times: dict[Event, int]) -> bool:
    holds = list(holds_of(problem, schedule, times))
    if any(end < start for _, start, end, *_ in holds):
        return False
    for resource in problem.resources:
        mine = [hold for hold in holds if hold[0] == resource.id]
        if resource.kind == "consumable":
            if sum(hold[3] for hold in mine) > resource.capacity:
                return False
            continue
        for tick in range(max(times.values()) + 1):
            limit = units_at(resource, tick) or resource.capacity
            if sum(hold[3] for hold in mine if hold[1] <= tick < hold[2]) > limit:
                return False
    for group in problem.exclusive:
        for tick in range(max(times.values()) + 1):
            if sum(times[Event(name, "start")] <= tick < times[Event(name, "end")] for name in group) > 1:
                return False
    return True


def changeovers(problem: Problem, schedule: Schedule, times: dict[Event, int]) -> Iterator[tuple[int, int]]:
    """For all machines with setups, the time between two consecutive holders and what the setup takes."""
    family = {task.id: task.family for task in problem.tasks}
    for resource in problem.resources:
        if resource.setup:
            mine = sorted(hold[1:] for hold in holds_of(problem, schedule, times) if hold[0] == resource.id and hold[1] < hold[2])
            last, free = "", 0
            for start, end, _, task, _ in mine:
                yield start - free, resource.setup.get((last, family[task]), 0)
                last, free = family[task], end


def _setups_fit(problem: Problem, schedule: Schedule, times: dict[Event, int]) -> bool:
    return all(apart >= ticks for apart, ticks in changeovers(problem, schedule, times))


def _in_order(problem: Problem, schedule: Schedule, times: dict[Event, int]) -> bool:
    """Try to carry the events of each instant out one after the other, each machine freed before it is taken."""
    tied = _closure(
        {(lag.a, lag.b) for lag in problem.lags if lag.min == 0 and not lag.by_modes}
        | {(lag.b, lag.a) for lag in problem.lags if lag.max == 0}
    )
    units = {resource.id for resource in problem.resources if resource.capacity == 1 and resource.kind == "renewable"}
    holds = [hold for hold in holds_of(problem, schedule, times) if hold[0] in units and hold[1] < hold[2]]
    for now in set(times.values()):
        events = [event for event, time in times.items() if time == now]
        weak = {(lag.a, lag.b) for lag in problem.lags if times[lag.a] == times[lag.b] == now and least_of(lag, schedule) == 0}
        weak |= {(lag.b, lag.a) for lag in problem.lags if times[lag.a] == times[lag.b] == now and lag.max == 0}
        weak |= {(Event(e.task, "start"), e) for e in events if e.edge == "end" and times[Event(e.task, "start")] == now}
        weak = _closure(weak)
        strict = set()
        for name, _, end, _, _, release in holds:
            for other, start, _, _, taker, _ in holds:
                take = Event(taker, "start")
                same = take == release or {(take, release), (release, take)} <= tied
                if name == other and start == end == now and not same:
                    strict.add((release, take))
        if any((b, a) in weak for a, b in strict) or not _orderable(events, weak, strict):
            return False
    return True


def _closure(pairs: set[tuple[Event, Event]]) -> set[tuple[Event, Event]]:
    found = set(pairs)
    while True:
        more = {(a, d) for a, b in found for c, d in found if b == c} - found
        if not more:
            return found
        found |= more


def _orderable(events: list[Event], weak: set[tuple[Event, Event]], strict: set[tuple[Event, Event]]) -> bool:
    """Whether taking away whatever nobody still has to precede leaves nothing."""
    left = set(events)
    while left:

        def first(event: Event, left: set[Event] = left) -> bool:
            together = {event} | {other for other in left if (event, other) in weak and (other, event) in weak}
            before = {a for a, b in weak | strict if b in together and a in left}
            return before <= together and not any(a in together and b in together for a, b in strict)

        free = {event for event in left if first(event)}
        if not free:
            return False
        left -= free
    return True


def value(problem: Problem, schedule: Schedule) -> tuple[int, ...]:
    """The objective's stages, each term by its definition."""
    times = times_of(problem, schedule)
    assert times is not None and problem.objective is not None
    complete = {job.id: max(times[Event(name, "end")] for name in job.tasks) for job in problem.jobs}
    due = [job for job in problem.jobs if job.due_date is not None]

    def term(name: str) -> int:
        match name:
            case "makespan":
                return max(times.values())
            case "total_completion":
                return sum(job.weight * complete[job.id] for job in problem.jobs)
            case "total_flow_time":
                return sum(job.weight * (complete[job.id] - job.release_date) for job in problem.jobs)
            case "total_tardiness":
                return sum(job.weight * max(complete[job.id] - job.due_date, 0) for job in due)
            case "tardy_jobs":
                return sum(job.weight for job in due if complete[job.id] > job.due_date)
            case "max_lateness":
                return max(complete[job.id] - job.due_date for job in due)
            case "total_setup":
                return sum(ticks for _, ticks in changeovers(problem, schedule, times))
        resource = name.removeprefix("consumable:")
        return sum(amount for used, _, _, amount, _, _ in holds_of(problem, schedule, times) if used == resource)

    return tuple(sum(weight * term(name) for name, weight in stage.items()) for stage in problem.objective.stages)


def schedules(problem: Problem, until: int) -> Iterator[Schedule]:
    """All feasible schedules that end by `until`, found by trying; partial ones that break a lag or overfill a tick are dropped early."""
    tasks = problem.tasks
    capacity = {resource.id: resource for resource in problem.resources}

    def extend(
        k: int, start: dict[str, int], mode: dict[str, int], times: dict[Event, int], load: dict[tuple[str, int], int]
    ) -> Iterator[Schedule]:
        if k == len(tasks):
            schedule = Schedule(dict(start), dict(mode))
            if feasible(problem, schedule):
                yield schedule
            return
        task = tasks[k]
        for m in range(len(task.modes)):
            for at in range(task.earliest_start, until + 1):
                end = end_of(problem, task, m, at)
                if end is None or end > until or (task.latest_end is not None and end > task.latest_end):
                    continue
                here = {Event(task.id, "start"): at, Event(task.id, "end"): end}
                start[task.id], mode[task.id] = at, m
                known = {**times, **here}
                so_far = Schedule(start, mode)
                if not all(
                    lag_holds(lag, so_far, known)
                    for lag in problem.lags
                    if lag.a in known and lag.b in known and (lag.a in here or lag.b in here)
                ):
                    continue
                more = dict(load)
                fits = True
                for use in task.modes[m].uses:
                    # to its own end at least, if it is held until something that follows the end
                    if capacity[use.resource].kind == "renewable" and use.until is None:
                        for tick in range(at, end):
                            more[use.resource, tick] = more.get((use.resource, tick), 0) + use.amount
                            fits &= more[use.resource, tick] <= capacity[use.resource].capacity
                if fits:
                    yield from extend(k + 1, start, mode, known, more)
        start.pop(task.id, None)
        mode.pop(task.id, None)

    yield from extend(0, {}, {}, {}, {})


def optimum(problem: Problem, until: int) -> tuple[int, ...] | None:
    """The best objective of all schedules that end by `until` (() without objective), or None if there is none."""
    best: tuple[int, ...] | None = None
    for schedule in schedules(problem, until):
        if problem.objective is None:
            return ()
        found = value(problem, schedule)
        best = found if best is None else min(best, found)
    return best
