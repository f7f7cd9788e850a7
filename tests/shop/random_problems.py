"""Small random problems with every mix of features, and random schedules for them."""

from __future__ import annotations

import random

from rota.contracts.shop import Event, Job, Lag, Mode, Objective, Problem, Resource, Schedule, Task, Use
from rota.errors import InfeasibleProblem, InputError

FAMILIES = ("a", "b", "c")


def random_problem(rng: random.Random, *, n: int | None = None, limit: int | None = None, name: str = "random") -> Problem:
    """A problem that is not refused, of `n` tasks (default: 1 to 6), all of which must end by `limit` if that is given."""
    while True:
        try:
            return _problem(rng, n or rng.randint(1, 6), limit, name)
        except InfeasibleProblem:
            continue
        except InputError as error:
            # holds whose end no lag secures are drawn now and then; anything else would be a mistake here
            if "no lag keeps" not in str(error):
                raise


def _problem(rng: random.Random, n: int, limit: int | None, name: str) -> Problem:
    on = {feature: rng.random() < share for feature, share in _SHARES.items()}
    names = [f"t{i}" for i in range(n)]
    resources = _resources(rng, on)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if rng.random() < 0.35]
    follows = {a: [b for x, b in pairs if x == a] for a in names}
    tasks = tuple(_task(rng, on, task, follows[task], resources, limit) for task in names)
    lags = [
        Lag(Event(a, "end"), Event(b, "start"), max=rng.randint(0, 3) if on["max_lags"] and rng.random() < 0.3 else None)
        for a, b in pairs
    ]
    if on["lags"] and n > 1:
        lags += [_lag(rng, on, tasks) for _ in range(rng.randint(1, 2))]
    exclusive = (frozenset(rng.sample(names, rng.randint(2, n))),) if on["exclusive"] and n > 1 else ()
    jobs = _jobs(rng, on, names)
    return Problem(
        tasks, resources, tuple(lags), jobs, _objective(rng, resources, jobs), exclusive, swap=not on["no_swap"], name=name
    )  # fmt: skip


_SHARES = {
    "modes": 0.4, "calendar": 0.4, "breaks": 0.5, "setups": 0.3, "until": 0.5, "lags": 0.4, "max_lags": 0.3, "mode_lags": 0.7,
    "windows": 0.3, "release": 0.3, "deadline": 0.2, "exclusive": 0.25, "consumable": 0.3, "no_swap": 0.5, "zero": 0.4, "cumulative": 0.6,
}  # fmt: skip


def _resources(rng: random.Random, on: dict[str, bool]) -> tuple[Resource, ...]:
    found = []
    for r in range(rng.randint(1, 3)):
        capacity = rng.randint(1, 3) if on["cumulative"] else 1
        calendar = []
        if on["calendar"] and rng.random() < 0.7:
            at = rng.randint(0, 3)
            for _ in range(rng.randint(1, 2)):
                calendar.append((at, rng.choice([0, rng.randint(0, capacity)])))
                at += rng.randint(1, 3)
            calendar.append((at, capacity))
        setup = None
        if on["setups"] and capacity == 1 and rng.random() < 0.7:
            setup = {(a, b): rng.randint(0, 2) for a in ("", *FAMILIES) for b in FAMILIES if rng.random() < 0.7} or None
        found.append(Resource(f"r{r}", capacity, calendar=tuple(calendar), setup=setup))
    if on["consumable"]:
        found.append(Resource("fuel", rng.randint(3, 8), "consumable"))
    return tuple(found)


def _task(
    rng: random.Random, on: dict[str, bool], name: str, follows: list[str], resources: tuple[Resource, ...], limit: int | None
) -> Task:
    modes = []
    for _ in range(rng.randint(1, 2) if on["modes"] else 1):
        uses = []
        chosen = rng.sample(resources, rng.randint(0 if rng.random() < 0.1 else 1, min(2, len(resources))))
        for resource in chosen:
            until = None
            if on["until"] and resource.kind == "renewable" and follows and rng.random() < 0.7:
                until = Event(rng.choice(follows), rng.choice(["start", "start", "end"]))
            # now and then more than there is, for which another mode must make up
            uses.append(Use(resource.id, rng.randint(1, max(1, min(2, resource.capacity))) + (rng.random() < 0.05), until))
        least = 1 if any(resource.setup for resource in chosen) or not on["zero"] else 0
        modes.append(Mode(rng.randint(least, 3), tuple(uses)))
    earliest = rng.randint(0, 3) if on["windows"] and rng.random() < 0.5 else 0
    latest = limit if limit is None or not on["windows"] or rng.random() < 0.5 else rng.randint(limit // 2, limit)
    return Task(name, tuple(modes), earliest, latest, rng.choice(FAMILIES), on["breaks"] and rng.random() < 0.6)


def _lag(rng: random.Random, on: dict[str, bool], tasks: tuple[Task, ...]) -> Lag:
    a, b = rng.sample(tasks, 2)
    ends = [Event(task.id, rng.choice(["start", "end"])) for task in (a, b)]
    least, most = rng.choice(
        [(rng.randint(-3, 3), None), (0, None), (0, 0), (None, rng.randint(0, 4)), (rng.randint(-4, 0), rng.randint(0, 4))]
    )
    by_modes = None
    if on["mode_lags"] and least is not None:
        by_modes = {
            (i, j): rng.randint(-1, 3) for i in range(len(a.modes)) for j in range(len(b.modes)) if rng.random() < 0.6
        } or None
    return Lag(*ends, least, most, by_modes)


def _jobs(rng: random.Random, on: dict[str, bool], names: list[str]) -> tuple[Job, ...]:
    if rng.random() < 0.2:
        return ()
    groups: list[list[str]] = [[] for _ in range(rng.randint(1, 3))]
    for name in names:
        rng.choice(groups).append(name)
    return tuple(
        Job(
            f"j{g}", tuple(group),
            rng.randint(0, 3) if on["release"] else 0,
            rng.randint(5, 12) if on["deadline"] and rng.random() < 0.5 else None,
            rng.randint(-1, 7) if rng.random() < 0.8 else None,
            rng.randint(0, 3),
        )
        for g, group in enumerate(groups)
        if group
    )  # fmt: skip


def _objective(rng: random.Random, resources: tuple[Resource, ...], jobs: tuple[Job, ...]) -> Objective | None:
    terms = ["makespan", "makespan", "total_setup"]
    terms += ["consumable:fuel"] if resources[-1].id == "fuel" else []
    terms += ["total_completion", "total_flow_time"] if jobs else []
    terms += ["total_tardiness", "max_lateness", "tardy_jobs"] if any(job.due_date is not None for job in jobs) else []
    stages = rng.choice([0, 1, 1, 1, 2])
    drawn = tuple({term: rng.randint(1, 3) for term in rng.sample(terms, rng.randint(1, 2))} for _ in range(stages))
    return Objective(drawn) if stages else None


def random_schedule(rng: random.Random, problem: Problem, until: int) -> Schedule:
    """Starts and modes at random, most of them before `until`; rarely feasible unless the problem is easy."""
    start = {task.id: rng.randint(task.earliest_start, max(task.earliest_start, until)) for task in problem.tasks}
    return Schedule(start, {task.id: rng.randrange(len(task.modes)) for task in problem.tasks})
