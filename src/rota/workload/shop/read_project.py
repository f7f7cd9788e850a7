"""Readers of projects: PSPLIB's single-mode (.sm) and multi-mode (.mm) text, and ProGen/max with minimum and maximum time lags."""

from __future__ import annotations

from collections.abc import Sequence

from rota.errors import InputError
from rota.workload.shop.build import project
from rota.workload.shop.lines import Line, natural, number_lines, numbered, whole
from rota.workload.shop.problem import Objective, Problem


def read_psplib(text: str, where: str, *, objective: Objective | None, name: str) -> Problem:
    """A project in PSPLIB's form."""
    precedence, requests, capacities = _sections(text, where)
    kinds = [word for word in capacities[0][1].split() if word in ("R", "N", "D")]
    if "D" in kinds:
        raise InputError(f"{where}:{capacities[0][0]}: doubly constrained resources are not supported")
    units = list(number_lines(capacities[1:], where))
    if not units or len(units[0].values) < len(kinds):
        raise InputError(f"{where}:{capacities[-1][0]}: the resource availabilities are missing; is the file cut off?")
    activities = list(number_lines(precedence[1:], where))
    rows = list(number_lines([line for line in requests[1:] if not line[1].strip().startswith("-")], where))
    modes = _modes(activities, rows, len(kinds), where)
    follows = []
    for i, line in enumerate(activities):
        if len(line.values) < 3:
            raise InputError(f"{where}:{line.number}: expected the activity's number, its modes and its successors; is the file cut off?")
        successors = [value for value in line.values[3:] if value]
        if len(successors) < line.values[2]:
            raise InputError(f"{where}:{line.number}: expected {line.values[2]} successors, found {len(successors)}")
        follows += [(i, _activity(value - 1, len(activities), where, line.number, 1)) for value in successors]
    order = [k for k, kind in enumerate(kinds) if kind == "R"] + [k for k, kind in enumerate(kinds) if kind == "N"]
    capacity = [natural(value, "capacity", where, units[0].number) for value in units[0].values]
    renewable = [capacity[k] for k in order if kinds[k] == "R"]
    consumable = [capacity[k] for k in order if kinds[k] == "N"]
    sorted_modes = [[(duration, [demand[k] for k in order]) for duration, demand in ways] for ways in modes]
    return project(sorted_modes, renewable, consumable, follows, objective=objective, name=name)


def _sections(text: str, where: str) -> list[list[tuple[int, str]]]:
    """The lines after each of the three headings that matter, up to the line of stars that ends it."""
    lines = numbered(text)
    found = []
    for heading in ("PRECEDENCE RELATIONS", "REQUESTS/DURATIONS", "AVAILABILITIES"):
        begin = next((i for i, (_, line) in enumerate(lines) if heading in line.upper()), None)
        if begin is None:
            raise InputError(f"{where}:{len(lines)}: there is no section {heading}; is the file cut off?")
        end = next((i for i in range(begin + 1, len(lines)) if lines[i][1].startswith("***")), len(lines))
        if end - begin < 3:
            raise InputError(f"{where}:{lines[end - 1][0]}: the section {heading} has no rows; is the file cut off?")
        found.append(lines[begin + 1 : end])
    return found


def _modes(activities: Sequence[Line], rows: Sequence[Line], resources: int, where: str) -> list[list[tuple[int, list[int]]]]:
    modes: list[list[tuple[int, list[int]]]] = []
    at = 0
    for line in activities:
        ways = []
        for _ in range(line.values[1] if len(line.values) > 1 else 0):
            if at == len(rows):
                raise InputError(
                    f"{where}:{line.number}: activity {line.values[0]} has no row under REQUESTS/DURATIONS for one of its modes; "
                    "is the file cut off?"
                )
            values = rows[at].values
            # rows of further modes leave out the number of the activity, so count from the right
            if not resources + 2 <= len(values) <= resources + 3:
                raise InputError(
                    f"{where}:{rows[at].number}: {len(values)} numbers; expected mode, duration and {resources} demands"
                )
            ways.append(_mode(values[-resources - 1], values[len(values) - resources :], where, rows[at].number))
            at += 1
        modes.append(ways)
    if at < len(rows):
        raise InputError(f"{where}:{rows[at].number}: there are more modes than PRECEDENCE RELATIONS names")
    return modes


def _mode(duration: int, demands: Sequence[int], where: str, line: int) -> tuple[int, list[int]]:
    return natural(duration, "duration", where, line), [natural(value, "demand", where, line) for value in demands]


def _activity(index: int, count: int, where: str, line: int, first: int) -> int:
    if not 0 <= index < count:
        raise InputError(f"{where}:{line}: activity {index + first} does not exist; there are {first} to {count - 1 + first}")
    return index


def read_progen_max(text: str, where: str, *, objective: Objective | None, name: str) -> Problem:
    """A project with time lags between starts, in the form of ProGen/max: lags in brackets, activities from 0."""
    lines = [(number, line.split()) for number, line in numbered(text) if line.split()]
    number, words = lines[0]
    if len(words) < 2:
        raise InputError(f"{where}:{number}: expected the numbers of activities and of resources")
    count, resources = whole(words[0], where, number) + 2, whole(words[1], where, number)
    if count < 2 or resources < 0:
        raise InputError(f"{where}:{number}: {count - 2} activities and {resources} resources; neither may be negative")
    if len(lines) < 2 * count + 2:
        raise InputError(
            f"{where}:{lines[-1][0]}: expected {2 * count + 2} lines for {count - 2} activities (with start and end), found {len(lines)}; "
            "is the file cut off?"
        )
    lags = []
    for i in range(count):
        number, words = lines[1 + i]
        values = [whole(word.strip("[]"), where, number) for word in words]
        successors = values[2] if len(values) > 2 else -1
        if len(values) != 3 + 2 * successors:
            raise InputError(f"{where}:{number}: expected {successors} successors and as many lags in brackets")
        for to, ticks in zip(values[3 : 3 + successors], values[3 + successors :], strict=True):
            lags.append((i, _activity(to, count, where, number, 0), ticks))
    modes = []
    for i in range(count):
        number, words = lines[1 + count + i]
        values = [whole(word, where, number) for word in words]
        if len(values) != 3 + resources:
            raise InputError(
                f"{where}:{number}: {len(values)} numbers; expected activity, mode, duration and {resources} demands"
            )
        modes.append([_mode(values[2], values[3:], where, number)])
    number, words = lines[1 + 2 * count]
    capacity = [natural(whole(word, where, number), "capacity", where, number) for word in words]
    if len(capacity) < resources:
        raise InputError(f"{where}:{number}: {len(capacity)} capacities; expected {resources}")
    return project(modes, capacity[:resources], [], (), lags, first=0, objective=objective, name=name)
