"""Problems and schedules as JSON, and back; docs/shop.md describes the form.

What is left out has its default. A task of one mode may give `duration` and `uses` itself; a use may be just the resource's name; and
``"precedence": [[a, b], ...]`` is short for lags from the end of a to the start of b.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rota.errors import InputError
from rota.workload.shop.problem import Event, Job, Lag, Mode, Objective, Problem, Resource, Task, Use

_T = TypeVar("_T")
_KEYS = {
    "problem": ("name", "tasks", "resources", "lags", "precedence", "jobs", "objective", "exclusive", "swap"),
    "task": ("id", "modes", "duration", "uses", "earliest_start", "latest_end", "family", "allow_breaks"),
    "mode": ("duration", "uses"),
    "use": ("resource", "amount", "until"),
    "resource": ("id", "capacity", "kind", "calendar", "setup"),
    "lag": ("from", "to", "min", "max", "by_modes"),
    "job": ("id", "tasks", "release_date", "deadline", "due_date", "weight"),
}


def problem_from(data: object, where: str = "problem") -> Problem:
    """A problem out of parsed JSON.

    Raises
    ------
    InputError
        If a key is unknown or missing, or a value is of the wrong kind; names the part.
    """
    given = _object(data, "problem", where)
    lags = [_lag(item, f"{where}: lags[{i}]") for i, item in enumerate(_list(given, "lags", where))]
    for i, pair in enumerate(_list(given, "precedence", where)):
        a, b = _tuple(pair, 2, f"{where}: precedence[{i}]")
        lags.append(Lag(Event(a, "end"), Event(b, "start")))
    objective: Objective | None = Objective.of("makespan")
    if "objective" in given:
        stages = given["objective"]
        if stages is not None and not (isinstance(stages, list) and all(isinstance(stage, dict) for stage in stages)):
            raise InputError(f'{where}: objective is a list of stages such as [{{"makespan": 1}}], or null')
        objective = None if stages is None else Objective(tuple(stages))
    return _made(
        where, Problem,
        tasks=tuple(_task(item, f"{where}: tasks[{i}]") for i, item in enumerate(_list(given, "tasks", where))),
        resources=tuple(_resource(item, f"{where}: resources[{i}]") for i, item in enumerate(_list(given, "resources", where))),
        lags=tuple(lags),
        jobs=tuple(_job(item, f"{where}: jobs[{i}]") for i, item in enumerate(_list(given, "jobs", where))),
        objective=objective,
        exclusive=tuple(frozenset(_names(item, f"{where}: exclusive")) for item in _list(given, "exclusive", where)),
        swap=bool(given.get("swap", True)), name=str(given.get("name", where)),
    )  # fmt: skip


def _made(where: str, make: Callable[..., _T], **values: Any) -> _T:
    try:
        return make(**values)
    except (TypeError, AttributeError) as error:
        raise InputError(f"{where}: {error}; see docs/shop.md for the form") from None


def _object(data: object, kind: str, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"{where}: a {kind} is an object, not {data!r:.40}")
    for key in data:
        if key not in _KEYS[kind]:
            raise InputError(f"{where}: a {kind} has no {key!r}; it may have {', '.join(_KEYS[kind])}")
    return data


def _list(given: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = given.get(key, [])
    if not isinstance(value, list):
        raise InputError(f"{where}: {key} is a list, not {value!r:.40}")
    return value


def _tuple(value: object, size: int, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or len(value) != size:
        raise InputError(f"{where}: {value!r:.60} should be a list of {size}")
    return tuple(value)


def _names(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{where}: {value!r:.60} should be a list of names")
    return value


def _need(given: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in given:
        raise InputError(f"{where}: {key} is missing")
    return given[key]


def _rest(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _event(value: object, where: str) -> Event:
    task, edge = _tuple(value, 2, where)
    return Event(task, edge)


def _task(data: object, where: str) -> Task:
    given = _object(data, "task", where)
    if "modes" in given and "duration" in given:
        raise InputError(f"{where}: give modes or a duration, not both")
    modes = _list(given, "modes", where) if "modes" in given else [_rest(given, "duration", "uses")]
    return _made(
        where, Task, id=_need(given, "id", where), modes=tuple(_mode(mode, where) for mode in modes),
        **_rest(given, "earliest_start", "latest_end", "family", "allow_breaks"),
    )  # fmt: skip


def _mode(data: object, where: str) -> Mode:
    given = _object(data, "mode", where)
    return Mode(_need(given, "duration", where), tuple(_use(use, where) for use in _list(given, "uses", where)))


def _use(data: object, where: str) -> Use:
    if isinstance(data, str):
        return Use(data)
    given = _object(data, "use", where)
    until = given.get("until")
    return Use(
        _need(given, "resource", where), given.get("amount", 1), None if until is None else _event(until, f"{where}: until")
    )


def _resource(data: object, where: str) -> Resource:
    if isinstance(data, str):
        return Resource(data)
    given = _object(data, "resource", where)
    calendar = tuple(_tuple(step, 2, f"{where}: calendar") for step in _list(given, "calendar", where))
    setup = {(a, b): ticks for a, b, ticks in (_tuple(row, 3, f"{where}: setup") for row in _list(given, "setup", where))}
    return _made(
        where, Resource, id=_need(given, "id", where), calendar=calendar, setup=setup or None, **_rest(given, "capacity", "kind")
    )


def _lag(data: object, where: str) -> Lag:
    given = _object(data, "lag", where)
    rows = (_tuple(row, 3, f"{where}: by_modes") for row in _list(given, "by_modes", where))
    by_modes = {(i, j): ticks for i, j, ticks in rows}
    a, b = (_event(_need(given, key, where), f"{where}: {key}") for key in ("from", "to"))
    return _made(where, Lag, a=a, b=b, by_modes=by_modes or None, **_rest(given, "min", "max"))


def _job(data: object, where: str) -> Job:
    given = _object(data, "job", where)
    return _made(
        where, Job, id=_need(given, "id", where), tasks=tuple(_names(_need(given, "tasks", where), where)),
        **_rest(given, "release_date", "deadline", "due_date", "weight"),
    )  # fmt: skip


def problem_to(problem: Problem) -> dict[str, Any]:
    """The JSON form of a problem; `problem_from` gives an equal one back."""
    return {
        "name": problem.name,
        "tasks": [_of_task(task) for task in problem.tasks],
        "resources": [_of_resource(resource) for resource in problem.resources],
        "lags": [_of_lag(lag) for lag in problem.lags],
        "jobs": [_fields(job, id=job.id, tasks=list(job.tasks)) for job in problem.jobs],
        "objective": None if problem.objective is None else [dict(stage) for stage in problem.objective.stages],
        "exclusive": [sorted(group) for group in problem.exclusive],
        "swap": problem.swap,
    }


def _fields(part: Task | Resource | Job, **always: Any) -> dict[str, Any]:
    """What differs from the defaults, after `always`."""
    plain = {"earliest_start": 0, "latest_end": None, "family": "", "allow_breaks": False, "capacity": 1, "kind": "renewable"}
    plain |= {"release_date": 0, "deadline": None, "due_date": None, "weight": 1}
    found = {name: getattr(part, name) for name, default in plain.items() if getattr(part, name, default) != default}
    return {**always, **found}


def _of_task(task: Task) -> dict[str, Any]:
    modes = [{"duration": mode.duration, "uses": [_of_use(use) for use in mode.uses]} for mode in task.modes]
    return _fields(task, id=task.id, **(modes[0] if len(modes) == 1 else {"modes": modes}))


def _of_use(use: Use) -> object:
    if use == Use(use.resource):
        return use.resource
    until = {} if use.until is None else {"until": list(use.until)}
    return {"resource": use.resource, "amount": use.amount, **until}


def _of_resource(resource: Resource) -> dict[str, Any]:
    found = _fields(resource, id=resource.id)
    if resource.calendar:
        found["calendar"] = [list(step) for step in resource.calendar]
    if resource.setup:
        found["setup"] = [[a, b, ticks] for (a, b), ticks in resource.setup.items()]
    return found


def _of_lag(lag: Lag) -> dict[str, Any]:
    found: dict[str, Any] = {"from": list(lag.a), "to": list(lag.b), "min": lag.min, "max": lag.max}
    if lag.by_modes:
        found["by_modes"] = [[i, j, ticks] for (i, j), ticks in lag.by_modes.items()]
    return found


def objective_from(text: str) -> Objective:
    """An objective as options name it: stages by commas, each a sum: ``makespan``, ``total-tardiness,makespan``, ``3*makespan+total-setup``.

    Raises
    ------
    InputError
        If a weight is no whole number; what the terms are is checked with the problem.
    """
    stages: list[Mapping[str, int]] = []
    for part in text.split(","):
        stage: dict[str, int] = {}
        for term in part.split("+"):
            weight, star, name = term.rpartition("*")
            if (star and not weight.strip().isdigit()) or not name.strip():
                raise InputError(f"objective {text!r}: write terms as makespan or 3*makespan, sums with +, stages by commas")
            stage[name.strip().replace("-", "_") if ":" not in name else name.strip()] = int(weight) if star else 1
        stages.append(stage)
    return Objective(tuple(stages))


def objective_to(stages: Sequence[Mapping[str, int]]) -> str:
    """The text of `objective_from`."""
    return ",".join(
        "+".join(
            (f"{weight}*" if weight != 1 else "") + (name if ":" in name else name.replace("_", "-"))
            for name, weight in stage.items()
        )
        for stage in stages
    )
