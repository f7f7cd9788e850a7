"""A scheduling problem as a text for a planner that reads, and the start times out of whatever text it answers with.

`describe` words every constraint or refuses; `read_answer` takes JSON, tables and sentences, and never repairs: what a planner left out
stays out, for the checker to name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from rota.errors import InputError
from rota.workload.shop.problem import Feature, Lag, Problem, Resource, Task

_WORDED: frozenset[Feature] = frozenset({"cumulative", "calendar", "windows", "exclusive"})
_START_WORDS = ("start", "start_time", "starttime", "begin", "begins", "start time", "s")
_TASK_WORDS = ("task", "id", "name", "task_id", "taskid", "activity", "job")


def describe(problem: Problem) -> str:
    """The problem in English, and how to answer.

    Raises
    ------
    InputError
        If it has something that there are no words for here.
    """
    unknown = problem.features - _WORDED
    if unknown or any(not _is_precedence(lag) for lag in problem.lags):
        raise InputError(f"{problem.name}: there are no words for {', '.join(sorted(unknown)) or 'its lags'}; leave it out")
    lines = [
        f"Schedule {len(problem.tasks)} tasks. Time is in whole units from 0. A task runs without interruption: one that starts at s and "
        "takes d units runs during [s, s + d), and another may start at s + d.",
        "",
        "Resources:",
        *(_resource(resource) for resource in problem.resources),
        "",
        "Tasks:",
        *(_task(task) for task in problem.tasks),
    ]
    if problem.lags:
        lines += ["", "Order:", *(f"- {lag.b.task} may not start before {lag.a.task} has ended." for lag in problem.lags)]
    if problem.exclusive:
        lines += ["", "These must not run at the same time, in whichever order:"]
        lines += [f"- {', '.join(sorted(group))}" for group in problem.exclusive]
    first = problem.tasks[0].id
    lines += [
        "",
        "At no time may the running tasks together need more of a resource than there is. Every constraint above must hold; nothing else "
        "matters, and there is a solution.",
        f'Answer with the start of every task as one JSON object, such as {{"{first}": 0, ...}}, and nothing after it.',
    ]
    return "\n".join(lines) + "\n"


def _is_precedence(lag: Lag) -> bool:
    return lag.a.edge == "end" and lag.b.edge == "start" and lag.min == 0 and lag.max is None and not lag.by_modes


def _resource(resource: Resource) -> str:
    text = f"- {resource.id}: {resource.capacity} units"
    steps = [*resource.calendar, (None, 0)]
    for (at, units), (until, _) in pairwise(steps):
        if units != resource.capacity:
            span = f"from {at} on" if until is None else f"during [{at}, {until})"
            text += f"; out of service {span}: no task that needs it may run then" if not units else f"; {units} units {span}"
    return text + "."


def _task(task: Task) -> str:
    (mode,) = task.modes
    needs = " and ".join(f"{use.amount} of {use.resource}" for use in mode.uses) or "no resource"
    text = f"- {task.id} takes {mode.duration} units and needs {needs}"
    if task.earliest_start:
        text += f"; it may not start before {task.earliest_start}"
    if task.latest_end is not None:
        text += f"; it must have ended by {task.latest_end}"
    return text + "."


def read_answer(text: str, tasks: Sequence[str]) -> dict[str, int]:
    """Start times out of a planner's answer, {} if it has none.

    Thinking in ``<think>`` is passed over. JSON is looked for first, then a table, then sentences, whichever first names a task's start;
    of several JSON values or mentions, the last one that names most tasks counts, as planners correct themselves. Names are compared
    without case; a name that is not among `tasks` is kept out.
    """
    said = text.rpartition("</think>")[2]
    known = {name.casefold(): name for name in tasks}
    found: dict[str, int] = {}
    for value in _json_values(said):
        starts = dict(_starts(value, known))
        if starts and len(starts) >= len(found):
            found = starts
    return found or _from_table(said, known) or _from_sentences(said, known)


def _json_values(text: str) -> Iterator[Any]:
    """All outermost JSON objects and lists, also with trailing commas or single quotes."""
    decoder = json.JSONDecoder()
    at = 0
    while (opening := re.compile(r"[{\[]").search(text, at)) is not None:
        at = opening.start()
        for attempt in (text[at:], _mended(text[at:])):
            try:
                value, length = decoder.raw_decode(attempt)
            except (json.JSONDecodeError, RecursionError):
                continue
            yield value
            # a mended text may be shorter than what was said, but has no more brackets
            at += length
            break
        else:
            at += 1


def _mended(text: str) -> str:
    plain = re.sub(r"(?://|#)[^\n\"]*$", "", text, flags=re.MULTILINE).replace("'", '"')
    return re.sub(r",(\s*[}\]])", r"\1", plain)


def _starts(value: Any, known: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Pairs of task and start, wherever they are in a JSON value: {task: 3}, {task: {start: 3}}, [{task: .., start: 3}], [[task, 3]]."""
    if isinstance(value, list):
        if len(value) >= 2 and isinstance(value[0], str) and value[0].casefold() in known and _whole(value[1]) is not None:
            yield known[value[0].casefold()], _whole(value[1]) or 0
            return
        for item in value:
            yield from _starts(item, known)
    elif isinstance(value, dict):
        fields = {str(key).casefold(): item for key, item in value.items()}
        name = next(
            (str(fields[word]).casefold() for word in _TASK_WORDS if word in fields and str(fields[word]).casefold() in known),
            None,
        )
        start = _start_field(fields)
        if name is not None and start is not None:
            yield known[name], start
            return
        for key, item in fields.items():
            whole = _start_field({k.casefold(): v for k, v in item.items()}) if isinstance(item, dict) else _first_whole(item)
            if key in known and whole is not None:
                yield known[key], whole
            elif isinstance(item, dict | list):
                yield from _starts(item, known)


def _start_field(fields: dict[str, Any]) -> int | None:
    return next((_whole(fields[word]) for word in _START_WORDS if word in fields and _whole(fields[word]) is not None), None)


def _first_whole(item: Any) -> int | None:
    return _whole(item[0]) if isinstance(item, list) and item else _whole(item)


def _whole(value: Any) -> int | None:
    """A whole number, also as 3.0 or "3"; nothing is rounded."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(value).strip()
    match = re.fullmatch(r"(-?\d{1,12})(?:\.0*)?", text)
    return int(match[1]) if match else None


def _from_table(text: str, known: dict[str, str]) -> dict[str, int]:
    """Rows of a Markdown, CSV or tab table below a heading that has a start column."""
    column: int | None = None
    found: dict[str, int] = {}
    for line in text.splitlines():
        cells = [cell.strip(" *`\"'").casefold() for cell in re.split(r"[|,;\t]", line.strip().strip("|"))]
        if len(cells) < 2:
            continue
        heads = [i for i, cell in enumerate(cells) if cell in _START_WORDS or cell.startswith("start")]
        if heads and not any(cell in known for cell in cells):
            column = heads[0]
        elif column is not None and column < len(cells):
            name = next((known[cell] for cell in cells if cell in known), None)
            start = _whole(cells[column])
            if name is not None and start is not None:
                found[name] = start
    return found


def _from_sentences(text: str, known: dict[str, str]) -> dict[str, int]:
    """``T3 starts at 12``, ``T3: 12``, ``T3 = 12``, ``T3 -> [12, 15)``; the last mention counts."""
    if not known:
        return {}
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    verb = (
        r"(?:is\s+|will\s+|can\s+|should\s+)?(?:be\s+)?(?:scheduled\s+(?:to\s+start\s+)?|starts?\s+|begins?\s+|starting\s+)"
        r"(?:at\s+|from\s+)?(?:time\s+|t\s*=\s*)?"
    )
    mark = r"[\])]?\s*(?::|=>|=|->|\N{RIGHTWARDS ARROW}|@)\s*(?:starts?\s*(?:at|=|:)?\s*)?"
    pattern = rf"(?<![\w-])({names})(?![\w-])[*`\"']*\s*(?:{mark}|{verb})[*`\"'\[(]*(-?\d{{1,12}})(?!\d|\.\d*[1-9])"
    return {known[match[1].casefold()]: int(match[2]) for match in re.finditer(pattern, text, re.IGNORECASE)}


def answer_json(starts: Iterable[tuple[str, int]]) -> str:
    """The form that `describe` asks for."""
    return json.dumps(dict(starts))
