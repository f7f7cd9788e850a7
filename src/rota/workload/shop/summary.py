"""What a problem asks of a solver, and by when all of it can be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rota.workload.shop.problem import CONSUMABLE, Feature

if TYPE_CHECKING:
    from rota.workload.shop.problem import Lag, Problem


def features(problem: Problem) -> frozenset[Feature]:
    """What a solver must be able to do for `problem`."""
    uses = [use for task in problem.tasks for mode in task.modes for use in mode.uses]
    lags, jobs, resources = problem.lags, problem.jobs, problem.resources
    renewable = [r for r in resources if r.kind == "renewable"]
    has: dict[Feature, bool] = {
        "modes": any(len(task.modes) > 1 for task in problem.tasks),
        "cumulative": any(r.capacity > 1 for r in renewable),
        "consumable": len(renewable) < len(resources),
        "calendar": any(r.calendar for r in resources),
        "breaks": any(task.allow_breaks for task in problem.tasks),
        "setups": any(r.setup for r in resources),
        "until": any(use.until is not None for use in uses),
        "no_swap": not problem.swap,
        "lags": any(not _precedence(lag) for lag in lags),
        "max_lags": any(lag.max is not None or (lag.min is not None and lag.min < 0) for lag in lags),
        "mode_lags": any(lag.by_modes for lag in lags),
        "windows": any(task.earliest_start > 0 or task.latest_end is not None for task in problem.tasks),
        "release": any(job.release_date > 0 for job in jobs),
        "deadline": any(job.deadline is not None for job in jobs),
        "exclusive": bool(problem.exclusive),
    }
    found = {name for name, is_there in has.items() if is_there}
    if problem.objective is not None:
        terms = {term for stage in problem.objective.stages for term in stage}
        found |= {"consumption" if term.startswith(CONSUMABLE) else cast("Feature", term) for term in terms}
        if len(problem.objective.stages) > 1:
            found.add("lexicographic")
    return frozenset(found)


def _precedence(lag: Lag) -> bool:
    return (lag.a.edge, lag.b.edge, lag.min, lag.max) == ("end", "start", 0, None) and not lag.by_modes


def horizon(problem: Problem) -> int:
    """Everything released and every calendar constant, then all tasks one after the other with all lags and setups between them.

    From such a point on, an instant at which nothing runs and no lag or setup is waited for could be cut out of a schedule.
    """
    release = max((job.release_date for job in problem.jobs), default=0)
    release = max([release, *(task.earliest_start for task in problem.tasks)])
    release = max([release, *(resource.calendar[-1][0] for resource in problem.resources if resource.calendar)])
    work = sum(max(mode.duration for mode in task.modes) for task in problem.tasks)
    setups = sum(max(resource.setup.values()) for resource in problem.resources if resource.setup) * len(problem.tasks)
    return release + work + sum(map(_wait, problem.lags)) + setups


def _wait(lag: Lag) -> int:
    least = 0 if lag.min is None else max(0, lag.min + max([0, *(lag.by_modes or {}).values()]))
    return max(least, -lag.max if lag.max is not None else 0)
