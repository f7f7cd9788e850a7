"""Readers of shops: the classic job-shop text (also Da Col and Teppan's), Taillard's, flexible (.fjs), and open shops.

All but Taillard's begin with a line ``jobs machines`` and differ in what a row holds; `read_numbers` tells them apart by that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rota.errors import InputError
from rota.workload.shop.build import Operation, flexible_job_shop, job_shop, open_shop
from rota.workload.shop.lines import Line, matrix, natural, number_lines, numbered
from rota.workload.shop.problem import Objective, Problem

#: Lines of words that may stand before the numbers.
LONGEST_TITLE = 20


def read_numbers(text: str, where: str, kind: str | None, *, blocking: str, objective: Objective | None, name: str) -> Problem:
    """A shop whose file begins with ``jobs machines``.

    Parameters
    ----------
    kind : {"jobshop", "fjsp", "openshop"} or None
        None: told by the rows.
    """
    lines = shop_lines(text, where)
    if not lines or len(lines[0].values) < 2:
        raise InputError(f"{where}:{lines[0].number if lines else 1}: expected a line with the numbers of jobs and machines")
    jobs, machines = lines[0].values[:2]
    if jobs < 1 or machines < 1:
        raise InputError(f"{where}:{lines[0].number}: {jobs} jobs and {machines} machines; both must be at least 1")
    rows, end = lines[1:], lines[-1].number
    kind = kind or _kind(rows, jobs, machines)
    if kind == "jobshop" and rows and len(rows) == 2 * jobs and all(len(row.values) == machines for row in rows):
        times = [row.values for row in rows[:jobs]]
        return _taillard(times, [row.values for row in rows[jobs:]], where, rows[jobs].number, blocking, objective, name)
    if kind == "openshop":
        if blocking != "none":
            raise InputError(f"{where}: an open shop has no order of operations, so there is no blocking in it")
        return open_shop(matrix(rows, jobs, machines, "durations", where, end), objective=objective, name=name)
    if len(rows) < jobs:
        raise InputError(f"{where}:{end}: expected {jobs} rows of operations, one per job, but the file ends after {len(rows)}")
    if len(rows) > jobs:
        raise InputError(f"{where}:{rows[jobs].number}: there are more rows than the {jobs} jobs of the first line")
    if kind == "fjsp":
        flexible = [_flexible(row, machines, where) for row in rows]
        return flexible_job_shop(flexible, machines, blocking=blocking, objective=objective, name=name)
    if len(rows[-1].values) < 2 * machines and all(len(row.values) == 2 * machines for row in rows[:-1]):
        raise InputError(
            f"{where}:{end}: the last job has {len(rows[-1].values)} of {2 * machines} numbers; is the file cut off?"
        )
    return job_shop([_pairs(row, machines, where) for row in rows], machines, blocking=blocking, objective=objective, name=name)


def shop_lines(text: str, where: str) -> list[Line]:
    """The lines of numbers, from the first that begins with one; of the third number of a first line, an average, nothing is taken."""
    lines = [(number, line.partition("#")[0]) for number, line in numbered(text)]
    first = next((i for i, (_, line) in enumerate(lines) if re.match(r"\s*-?\d+(\.\d+)?(\s|$)", line)), None)
    if first is None or first > LONGEST_TITLE:
        return []
    number, head = lines[first]
    words = head.split()
    return list(number_lines([(number, " ".join(words[:2] if len(words) == 3 else words)), *lines[first + 1 :]], where))


def _kind(rows: Sequence[Line], jobs: int, machines: int) -> str:
    widths = {len(row.values) for row in rows}
    if len(rows) == jobs and widths == {2 * machines} and all(sorted(row.values[::2]) == list(range(machines)) for row in rows):
        return "jobshop"
    if len(rows) == jobs and all(_is_flexible(row, machines) for row in rows):
        return "fjsp"
    return "openshop" if widths == {machines} and len(rows) <= jobs else "jobshop"


def _is_flexible(row: Line, machines: int) -> bool:
    try:
        _flexible(row, machines, "")
    except InputError:
        return False
    return True


def _pairs(row: Line, machines: int, where: str) -> list[tuple[int, int]]:
    if len(row.values) % 2:
        raise InputError(
            f"{where}:{row.number}: {len(row.values)} numbers; a job is pairs of machine and duration, so one is missing"
        )
    pairs = list(zip(row.values[::2], row.values[1::2], strict=True))
    for machine, duration in pairs:
        _check(machine, duration, machines, where, row.number)
    return pairs


def _flexible(row: Line, machines: int, where: str) -> list[Operation]:
    values, at = row.values, 1
    operations: list[Operation] = []
    for _ in range(values[0]):
        count = values[at] if at < len(values) else 0
        ways = values[at + 1 : at + 1 + 2 * count]
        if count < 1 or len(ways) < 2 * count:
            raise InputError(
                f"{where}:{row.number}: the row ends within operation {len(operations) + 1} of {values[0]}; is it cut off?"
            )
        pairs = [(machine - 1, duration) for machine, duration in zip(ways[::2], ways[1::2], strict=True)]
        for machine, duration in pairs:
            _check(machine, duration, machines, where, row.number, first=1)
        operations.append(pairs)
        at += 1 + 2 * count
    if at != len(values):
        raise InputError(f"{where}:{row.number}: {len(values) - at} numbers are left over after {values[0]} operations")
    return operations


def _check(machine: int, duration: int, machines: int, where: str, line: int, first: int = 0) -> None:
    if not 0 <= machine < machines:
        raise InputError(f"{where}:{line}: machine {machine + first} does not exist; there are {first} to {machines - 1 + first}")
    natural(duration, "duration", where, line)


def read_taillard(
    text: str, where: str, *, blocking: str, objective: Objective | None, name: str, is_open: bool = False
) -> Problem:
    """Taillard's text: a line of names, a line of sizes, durations, then machines from 1. His open shops have the same form (`is_open`)."""
    lines = numbered(text)
    heads = [i for i, (_, line) in enumerate(lines) if line.split() and line.split()[0][0].isalpha()]
    if len(heads) < 3:
        raise InputError(
            f"{where}:{len(lines)}: a Taillard file has three headings (sizes, times, machines); found {len(heads)}; is it cut off?"
        )
    if len(heads) > 3:
        raise InputError(f"{where}:{lines[heads[3]][0]}: a second instance begins here; put each into a file of its own")
    sizes, times, machines = (
        list(number_lines(lines[a + 1 : b], where)) for a, b in zip(heads, [*heads[1:], len(lines)], strict=True)
    )
    if not sizes or len(sizes[0].values) < 2:
        raise InputError(f"{where}:{lines[heads[0]][0]}: no line with the numbers of jobs and machines after this one")
    jobs, count = sizes[0].values[:2]
    durations = matrix(times, jobs, count, "times", where, lines[heads[2]][0])
    order = matrix(machines, jobs, count, "machines", where, lines[-1][0])
    if not is_open:
        return _taillard(durations, order, where, lines[heads[2]][0] + 1, blocking, objective, name)
    on = [dict(zip(order[j], durations[j], strict=True)) for j in range(jobs)]
    return open_shop([[row[i + 1] for i in range(count)] for row in on], objective=objective, name=name)


def _taillard(
    times: list[list[int]], order: list[list[int]], where: str, line: int, blocking: str, objective: Objective | None, name: str
) -> Problem:
    machines = len(order[0])
    for j, row in enumerate(order):
        for machine, duration in zip(row, times[j], strict=True):
            _check(machine - 1, duration, machines, where, line + j, first=1)
    jobs = [[(m - 1, d) for m, d in zip(row, times[j], strict=True)] for j, row in enumerate(order)]
    return job_shop(jobs, machines, blocking=blocking, objective=objective, name=name)
