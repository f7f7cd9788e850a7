"""Sets of instances as JSON lines, one instance per line, told by their keys; and the bounds published for them.

Job shops have ``ops[j][k] = [machine, duration]``, flexible ones a list of such pairs there; open shops ``durations[j][m]``; projects
``capacity``, ``duration``, ``demand`` and ``successors`` or ``start_start_min_lags``; multi-mode ones ``renewable``, ``nonrenewable``,
``modes`` and ``successors``; single machines ``p``, ``d`` and perhaps ``w``. Everything counts from 0.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rota.errors import InputError
from rota.workload.shop.build import due_jobs, flexible_job_shop, job_shop, open_shop, project, single_machine
from rota.workload.shop.lines import numbered, whole
from rota.workload.shop.problem import Objective, Problem


class Bounds(NamedTuple):
    """What is published about an instance; None where nothing is. `status` is optimal, open, infeasible or best known."""

    lb: int | None
    ub: int | None
    status: str


def instance_names(path: str | Path) -> list[str]:
    """Names of the instances in a set, in its order; one without a name has the number of its line.

    Raises
    ------
    InputError
        If a line is not JSON; names file and line.
    """
    return [str(_record(line, str(path), number).get("name", number)) for number, line in _lines(Path(path).read_text(encoding="utf-8"))]


def read_set(text: str, where: str, which: str | None, *, blocking: str = "none", objective: Objective | None = None) -> Problem:
    """The instance named `which` of a set; it may be left out where there is only one.

    Raises
    ------
    InputError
        If there is no such instance, or a line is not one.
    """
    lines = _lines(text)
    for number, line in lines:
        if which is not None and json.dumps(which) not in line:
            continue
        data = _record(line, where, number)
        name = str(data.get("name", number))
        if name == which or len(lines) == 1:
            try:
                return of_record(data, name, blocking=blocking, objective=objective)
            except InputError as error:
                raise type(error)(f"{where}:{number}: {error}") from None
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise InputError(f"{where}:{number}: is not an instance of a known kind ({error!r})") from None
    names = [str(_record(line, where, number).get("name", number)) for number, line in lines]
    what = f"has no instance {which}" if which else "holds several instances"
    raise InputError(
        f"{where}: {what}; name one of its {len(names)}, as in {Path(where).name}#{names[0]} ({', '.join(names[:3])}, ...)"
    )


def _lines(text: str) -> list[tuple[int, str]]:
    return [(number, line) for number, line in numbered(text) if line.strip()]


def _record(line: str, where: str, number: int) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}:{number}: is not JSON ({error.msg}); is the file cut off?") from None
    if not isinstance(data, dict):
        raise InputError(f"{where}:{number}: an instance is an object, not {data!r:.40}")
    return data


def of_record(data: Mapping[str, Any], name: str, *, blocking: str = "none", objective: Objective | None = None) -> Problem:
    """The problem that one line of a set is."""
    if "ops" in data:
        machines = data["machines"]
        if isinstance(data["ops"][0][0][0], list):
            flexible = [[[(m, d) for m, d in ways] for ways in job] for job in data["ops"]]
            return flexible_job_shop(flexible, machines, blocking=blocking, objective=objective, name=name)
        jobs = [[(m, d) for m, d in job] for job in data["ops"]]
        return job_shop(jobs, machines, blocking=blocking, objective=objective, name=name)
    if blocking != "none":
        raise InputError(f"{name}: blocking is for job shops")
    if "durations" in data:
        return open_shop(data["durations"], objective=objective, name=name)
    follows = [(i, j) for i, successors in enumerate(data.get("successors", ())) for j in successors]
    if "modes" in data:
        modes = [[(mode[0], mode[1:]) for mode in ways] for ways in data["modes"]]
        return project(modes, data["renewable"], data["nonrenewable"], follows, first=0, objective=objective, name=name)
    if "demand" in data:
        single = [[(d, demand)] for d, demand in zip(data["duration"], data["demand"], strict=True)]
        lags = [(i, j, ticks) for i, j, ticks in data.get("start_start_min_lags", ())]
        return project(single, data["capacity"], [], follows, lags, first=0, objective=objective, name=name)
    if "p" in data:
        return single_machine(due_jobs(data["d"], data.get("w")), data["p"], objective=objective, name=name)
    raise InputError(f"{name}: is not an instance of a known kind; it has {', '.join(data)}")


def read_bounds(path: str | Path) -> dict[str, Bounds]:
    """Published bounds by instance, from a table with name, lb (or trivial_lb), ub (or best) and status.

    Raises
    ------
    InputError
        If a column or a value is missing, or no number; names file and line.
    """
    with open(path, encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines)
        missing = {"name", "status"} - set(table.fieldnames or ())
        if missing:
            raise InputError(f"{path}:1: a table of bounds needs the columns name and status; {' and '.join(sorted(missing))} is missing")
        return {row["name"]: _bounds(row, str(path), table.line_num) for row in table}


def _bounds(row: Mapping[str, str | None], where: str, line: int) -> Bounds:
    if row["status"] is None:
        raise InputError(f"{where}:{line}: the row ends before its status; is the file cut off?")
    lb, ub = (row.get(first) or row.get(second) or "" for first, second in (("lb", "trivial_lb"), ("ub", "best")))
    return Bounds(whole(lb, where, line) if lb else None, whole(ub, where, line) if ub else None, row["status"])
