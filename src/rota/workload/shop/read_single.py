"""Readers of single machines: a CSV with one job per row, and the OR-Library's weighted tardiness files."""

from __future__ import annotations

import csv
import io

from rota.errors import InputError
from rota.workload.shop.build import due_jobs, single_machine
from rota.workload.shop.lines import natural, number_lines, numbered, whole
from rota.workload.shop.problem import Job, Objective, Problem

#: Accepted names of columns.
COLUMNS = {
    "job": ("job", "id", "name"),
    "duration": ("duration", "processing_time", "p", "time"),
    "due_date": ("due_date", "due", "d"),
    "weight": ("weight", "w"),
    "release_date": ("release_date", "release", "r"),
    "deadline": ("deadline",),
}
#: Instances in an OR-Library file, of n durations, n weights and n due dates each.
WT_INSTANCES = 125


def csv_columns(header: str) -> dict[str, int]:
    """Which column says what; empty if this is no header of a table of jobs."""
    names = [word.strip().strip('"').lower().replace(" ", "_") for word in header.split(",")]
    found = {what: names.index(name) for what, known in COLUMNS.items() for name in known if name in names}
    return found if "duration" in found else {}


def read_csv(text: str, where: str, *, objective: Objective | None, name: str) -> Problem:
    """One job per row; columns job (optional), duration, due_date, weight, release_date, deadline."""
    rows = list(csv.reader(io.StringIO(text)))
    columns = csv_columns(",".join(rows[0])) if rows else {}
    if not columns:
        wanted = ", ".join(what for what in COLUMNS if what != "duration")
        raise InputError(f"{where}:1: a table of jobs needs a column duration (or {', '.join(COLUMNS['duration'][1:])}), and may have {wanted}")
    jobs: list[Job] = []
    durations: list[int] = []
    lines: dict[str, int] = {}
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        cell = {what: row[at].strip() if at < len(row) else "" for what, at in columns.items()}
        if not cell["duration"]:
            raise InputError(f"{where}:{line}: the duration is missing")
        number = {what: whole(value, where, line) for what, value in cell.items() if what != "job" and value}
        for what, value in number.items():
            if what != "due_date":
                natural(value, what.replace("_", " "), where, line)
        durations.append(number.pop("duration"))
        label = cell.get("job") or str(len(jobs))
        if label in lines:
            raise InputError(f"{where}:{line}: job {label} is defined in line {lines[label]} too; names must differ")
        lines[label] = line
        jobs.append(
            Job(
                label,
                (label,),
                number.get("release_date", 0),
                number.get("deadline"),
                number.get("due_date"),
                number.get("weight", 1),
            )
        )
    if not jobs:
        raise InputError(f"{where}:{max(1, len(rows))}: there is no job below the header; is the file cut off?")
    return single_machine(jobs, durations, objective=objective, name=name)


def is_weighted_tardiness(values: int) -> bool:
    """Whether so many numbers can be an OR-Library file."""
    return values > 0 and values % (3 * WT_INSTANCES) == 0


def read_weighted_tardiness(text: str, where: str, which: str | None, *, objective: Objective | None, name: str) -> Problem:
    """Instance `which` (1 to 125) of an OR-Library file wt40, wt50 or wt100."""
    lines = list(number_lines(numbered(text), where))
    values = [(value, line.number) for line in lines for value in line.values]
    if not is_weighted_tardiness(len(values)):
        raise InputError(
            f"{where}:{lines[-1].number if lines else 1}: {len(values)} numbers are not {WT_INSTANCES} instances; is it cut off?"
        )
    n = len(values) // (3 * WT_INSTANCES)
    if which is None or not which.isdigit() or not 1 <= int(which) <= WT_INSTANCES:
        raise InputError(f"{where}: holds {WT_INSTANCES} instances of {n} jobs; name one, as in {where}#1")
    at = 3 * n * (int(which) - 1)
    p = [natural(value, "duration", where, line) for value, line in values[at : at + n]]
    w = [natural(value, "weight", where, line) for value, line in values[at + n : at + 2 * n]]
    d = [value for value, _ in values[at + 2 * n : at + 3 * n]]
    return single_machine(due_jobs(d, w), p, objective=objective or Objective.of("total_tardiness"), name=name)
