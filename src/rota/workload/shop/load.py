"""Instance files of shops, projects and single machines; the format is told by what is in the file, not by its name.

Formats: ``jobshop`` (classic text: OR-Library, JSPLIB, Da Col and Teppan), ``taillard``, ``fjsp``, ``openshop``, ``psplib`` (.sm and .mm),
``progen-max``, ``wt`` (OR-Library weighted tardiness), ``csv`` (one job per row), ``json`` (`rota.workload.shop.form`, or a robot cell,
`rota.workload.shop.cell_form`) and ``jsonl`` (sets of instances, `rota.workload.shop.sets`). One of several instances in a file is named
after a #, as in wt40.txt#3.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from rota.errors import InputError
from rota.workload.shop.cell import Cell
from rota.workload.shop.cell_form import cell_from
from rota.workload.shop.cell_problem import plan_problem
from rota.workload.shop.form import problem_from
from rota.workload.shop.problem import Objective, Problem
from rota.workload.shop.read_project import read_progen_max, read_psplib
from rota.workload.shop.read_shop import read_numbers, read_taillard, shop_lines
from rota.workload.shop.read_single import csv_columns, is_weighted_tardiness, read_csv, read_weighted_tardiness
from rota.workload.shop.sets import read_set

FORMATS = ("jobshop", "taillard", "fjsp", "openshop", "psplib", "progen-max", "wt", "csv", "json", "jsonl")
_SHOPS = ("jobshop", "taillard", "fjsp")


def load_problem(
    path: str | Path, *, format: str | None = None, blocking: str = "none", objective: Objective | None = None
) -> Problem:
    """The problem in a file.

    Parameters
    ----------
    path : str or Path
        ``FILE``, or ``FILE#INSTANCE`` where it holds several.
    format : str or None
        One of `FORMATS`; None: told by the content.
    blocking : {"none", "swap", "no-swap", "no-wait"}
        For job shops, see `rota.workload.shop.build.BLOCKING`.
    objective : Objective or None
        In place of the file's own or the usual one.

    Raises
    ------
    InputError
        If the file cannot be read or is not what it says; names file and line.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    file, which = _split(path)
    text = _text(file)
    where = str(file)
    try:
        return _read(file, text, which, format, blocking, objective)
    except InputError as error:
        # what a problem says of its own parts begins with its name, which need not be the file's
        said = str(error)
        raise type(error)(said if said.startswith(where) else f"{where}: {said.removeprefix(f'{file.stem}: ')}") from None


def load_cell(path: str | Path) -> Cell | None:
    """The robot cell in a JSON file; None if it holds something else.

    Raises
    ------
    InputError
        If the file cannot be read or the cell is not what it should be; names the file and the part.
    """
    file, _ = _split(path)
    text = _text(file)
    try:
        data = json.loads(text) if text.lstrip().startswith("{") else None
    except json.JSONDecodeError:
        return None
    return cell_from(data, str(file)) if _is_cell(data) else None


def _is_cell(data: object) -> bool:
    return isinstance(data, dict) and "stages" in data and "tasks" not in data


def _read(file: Path, text: str, which: str | None, format: str | None, blocking: str, objective: Objective | None) -> Problem:
    where = str(file)
    if not text.strip():
        raise InputError(f"{where}: the file is empty")
    name = f"{file.stem}#{which}" if which else file.stem
    found = format or tell(text, where)
    if blocking != "none" and found not in (*_SHOPS, "jsonl"):
        raise InputError(f"{where}: blocking is for job shops; this file is of format {found}")
    if which and found not in ("wt", "jsonl"):
        raise InputError(f"{where}: is one instance (format {found}); leave out #{which}")
    if found == "json":
        return _json(text, where, objective)
    if found == "jsonl":
        return read_set(text, where, which, blocking=blocking, objective=objective)
    if found == "psplib":
        return read_psplib(text, where, objective=objective, name=name)
    if found == "progen-max":
        return read_progen_max(text, where, objective=objective, name=name)
    if found == "csv":
        return read_csv(text, where, objective=objective, name=name)
    if found == "wt":
        return read_weighted_tardiness(text, where, which, objective=objective, name=name)
    if found == "taillard" or (found == "openshop" and _headed(text)):
        return read_taillard(text, where, blocking=blocking, objective=objective, name=name, is_open=found == "openshop")
    kind = None if format is None and found in ("jobshop", "fjsp", "openshop") else found
    return read_numbers(text, where, kind, blocking=blocking, objective=objective, name=name)


def _split(path: str | Path) -> tuple[Path, str | None]:
    file, hash_, which = str(path).rpartition("#")
    if hash_ and which and not Path(path).exists():
        return Path(file), which
    return Path(path), None


def _text(file: Path) -> str:
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file in it, or compare on all of them with rota solve --rules")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not a text file") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def tell(text: str, where: str) -> str:
    """The format of a file with this text.

    Raises
    ------
    InputError
        If it is none that is known.
    """
    begin = text.lstrip()
    lines = [line for line in begin.splitlines() if line.strip()]
    if begin.startswith("{"):
        return "jsonl" if len(lines) > 1 and lines[0].rstrip().endswith("}") and lines[1].startswith("{") else "json"
    if "PRECEDENCE RELATIONS" in text.upper():
        return "psplib"
    if _headed(begin):
        return "taillard"
    if csv_columns(lines[0]) or re.search(r"[A-Za-z]\s*,|,\s*[A-Za-z]", lines[0]):  # names in a row: `read_csv` says which ones it needs
        return "csv"
    if re.search(r"\[\s*-?\d+\s*\]", text):
        return "progen-max"
    rows = shop_lines(text, where)
    if len(rows) > 1 and len(rows[0].values) > 3 and is_weighted_tardiness(sum(len(row.values) for row in rows)):
        return "wt"
    if not rows or len(rows[0].values) != 2:
        number = rows[0].number if rows else 1
        raise InputError(
            f"{where}:{number}: this is none of the formats that are known ({', '.join(FORMATS)}); a shop begins with a line of the numbers "
            "of jobs and machines"
        )
    return "jobshop"


def _headed(text: str) -> bool:
    first = next((line for line in text.splitlines() if line.strip()), "").lower()
    return "jobs" in first and "machines" in first and first.lstrip()[0].isalpha() and "seed" in first


def _json(text: str, where: str, objective: Objective | None) -> Problem:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}:{error.lineno}: is not JSON ({error.msg})") from None
    if _is_cell(data):
        problem = plan_problem(cell_from(data, where))
        return problem if objective is None else replace(problem, objective=objective)
    if isinstance(data, dict) and "tasks" not in data:
        return read_set(json.dumps(data), where, None, blocking="none", objective=objective)
    problem = problem_from(data, where)
    return problem if objective is None else replace(problem, objective=objective)
