"""Problems and schedules as files: JSON for programs, CSV for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rota.errors import InputError
from rota.files import write_text
from rota.workload.shop.form import problem_to
from rota.workload.shop.problem import Problem

SUFFIXES = (".json", ".csv")


def write_problem(problem: Problem, path: str | Path) -> None:
    """The problem in its JSON form."""
    write_text(path, json.dumps(problem_to(problem), indent=1) + "\n")


def check_suffix(path: str | Path) -> None:
    """Refuse a name that says neither JSON nor CSV, before the work and not after it."""
    if Path(path).suffix not in SUFFIXES:
        raise InputError(f"{path}: a schedule is written as .json or .csv; give the file such a name")


def write_rows(rows: Sequence[Mapping[str, Any]], path: str | Path, more: Mapping[str, Any]) -> None:
    """A schedule's rows (task, job, mode, start, end, resources): as a table, or with all of `more` as JSON."""
    check_suffix(path)
    if Path(path).suffix == ".json":
        write_text(path, json.dumps({**more, "schedule": list(rows)}, indent=1) + "\n")
        return
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(rows[0])
    for row in rows:
        table.writerow([" ".join(value) if isinstance(value, list | tuple) else value for value in row.values()])
    write_text(path, out.getvalue())
