"""Reads agent traces: programs whose turns follow each other after a tool has run (see `rota.workload.formats` for the layout).

Such a trace says how many tokens a turn adds and how long a tool took; here that becomes requests which wait for one another, with
content identities by which every turn shares what was said before it. Wrong values are named by line and turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rota.errors import InputError
from rota.workload.formats import AGENT_NAMES, normalised
from rota.workload.generators import HASH_BLOCK
from rota.workload.jsonl import json_rows
from rota.workload.trace import Trace

#: Numeric arrival times above this are seconds since 1970; longest prompt or output that is taken for real.
EPOCH, MAX_TOKENS = 1e8, 10**9
#: A call whose tool has no name.
TOOL = "tool"
Line = dict[str, Any]


class _Turn(NamedTuple):
    prompt: int
    output: int
    keeps: int
    tool: str
    gap: float


class _Record(NamedTuple):
    """A turn as it stands in the file."""

    place: str
    values: Line


@dataclass(slots=True)
class _Program:
    place: str
    arrival: float | None
    system: int
    turns: list[_Turn]


def read_agents(path: Path, text: bytes, *, rate: float | None, seed: int, sort: bool, drop_invalid: bool) -> Trace:
    """The requests of an agent trace.

    Parameters
    ----------
    path : Path
        For messages and names.
    text : bytes
        UTF-8.
    rate, seed, sort, drop_invalid
        As in `rota.workload.readers.read_trace`, of programs; a program with a wrong turn is left out as a whole.

    Raises
    ------
    InputError
        If a line or value is wrong.
    """
    records = _records(path, text)
    programs: list[_Program] = []
    for turns in records:
        try:
            programs.append(_program(turns))
        except InputError:
            if not drop_invalid:
                raise
    if not programs:
        raise InputError(f"{path}: every program has a wrong turn; nothing is left of the trace")
    notes = {"format": "agents"}
    if len(programs) < len(records):
        notes["dropped"] = f"{len(records) - len(programs)} of {len(records)} programs with invalid values"
    begin = _arrivals(path, programs, rate, seed)
    falls = np.flatnonzero(np.diff(begin) < 0)
    if len(falls) and not sort:
        raise InputError(f"{programs[falls[0] + 1].place}: begins before the program above it; sort programs by arrival, or use --sort")
    if len(falls):
        notes["sorted"] = "by arrival"
    order = np.argsort(begin, kind="stable")
    name = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    return _trace([programs[i] for i in order], begin[order], name, f"agent trace {path}", notes)


def _trace(programs: list[_Program], begin: np.ndarray[Any, Any], name: str, source: str, notes: dict[str, str]) -> Trace:
    turns = [turn for program in programs for turn in program.turns]
    count = np.array([len(program.turns) for program in programs])
    first = np.zeros(len(turns), np.bool_)
    first[np.cumsum(count) - count] = True
    last = np.append(first[1:], True)
    rows = np.arange(len(turns))
    tools = sorted({turn.tool for turn, ends in zip(turns, last, strict=True) if not ends})
    index = {tool: i for i, tool in enumerate(tools)}
    gaps = np.array([turn.gap for turn in turns])
    ids, start = _hash_runs(programs)
    return Trace(
        arrival=np.repeat(begin, count), prompt=np.array([turn.prompt for turn in turns], np.int64),
        output=np.array([turn.output for turn in turns], np.int64), program=np.repeat(np.arange(len(programs)), count),
        tool=np.array([-1 if ends else index[turn.tool] for turn, ends in zip(turns, last, strict=True)], np.int64),
        after=np.where(first, -1, rows - 1), delay=np.where(first, 0.0, np.roll(gaps, 1)), hash_ids=ids, hash_start=start,
        hash_block=HASH_BLOCK, tools=tuple(tools), name=name, source=source, notes=notes,
    )  # fmt: skip


def _hash_runs(programs: list[_Program]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Identities of the runs of all turns: those of the turn before as far as it is kept, and then new ones."""
    fresh = max(program.system for program in programs) // HASH_BLOCK
    rows: list[list[int]] = []
    for program in programs:
        said = list(range(program.system // HASH_BLOCK))
        for turn in program.turns:
            if turn.keeps >= 0:
                del said[turn.keeps // HASH_BLOCK :]
            missing = -(-(turn.prompt + turn.output) // HASH_BLOCK) - len(said)
            said += range(fresh, fresh + missing)
            fresh += max(0, missing)
            rows.append(said.copy())
    return np.concatenate([np.array(row, np.int64) for row in rows]), np.cumsum([0, *map(len, rows)])


def _records(path: Path, text: bytes) -> list[list[_Record]]:
    """The turns of each program, in the order in which programs begin in the file. Beginnings go with the first turn."""
    programs: dict[str, list[_Record]] = {}
    for number, given in json_rows(path, text):
        place = f"{path}:{number}"
        row = {normalised(key): value for key, value in given.items()}
        if "turns" in row:
            programs[f"{number}"] = _nested(place, row)
        elif row.get("program") is None:
            raise InputError(f"{place}: has neither turns nor program; write a program or a turn per line")
        else:
            programs.setdefault(f"program {row['program']}", []).append(_Record(place, row))
    return list(programs.values())


def _nested(place: str, row: Line) -> list[_Record]:
    turns = row["turns"]
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise InputError(f"{place}: turns must be a list of objects, at least one")
    found = [_Record(f"{place}: turn {i + 1}", {normalised(key): value for key, value in turn.items()}) for i, turn in enumerate(turns)]
    beginning = {key: row[key] for key in (*AGENT_NAMES["arrival"], *AGENT_NAMES["system"]) if key in row}
    return [_Record(found[0].place, beginning | found[0].values), *found[1:]]


def _program(records: list[_Record]) -> _Program:
    place, first = records[0]
    arrival = _get(first, "arrival")
    system = 0 if _get(first, "system") is None else _count(place, first, "system", 0)
    program = _Program(place, None if arrival is None else _seconds(place, first, "arrival"), system, [])
    said = before = 0
    for i, (where, values) in enumerate(records):
        prompt, keeps = _prompt(where, values, said, before, system)
        if i == 0 and system > prompt:
            raise InputError(f"{where}: system is above the prompt of {prompt} tokens, which begins with it")
        output = _count(where, values, "output", 1)
        gap = _seconds(where, values, "gap") if i < len(records) - 1 else 0.0
        tool = _get(values, "tool")
        program.turns.append(_Turn(prompt, output, keeps, TOOL if tool in (None, "") else str(tool), gap))
        said, before = prompt + output, prompt
    return program


def _prompt(place: str, values: Line, said: int, before: int, system: int) -> tuple[int, int]:
    """Tokens of the prompt, and how many leading ones it has in common with the turn before; -1 for all that was said."""
    whole, new = _get(values, "prompt"), _get(values, "new")
    if (whole is None) == (new is None):
        raise InputError(f"{place}: give either new (tokens added to what was said before) or prompt (all tokens)")
    if new is not None:
        return said + _count(place, values, "new", 0 if said else 1), -1
    prompt = _count(place, values, "prompt", 1)
    if prompt >= said:
        return prompt, -1
    return prompt, before if prompt >= before else min(system, prompt)


def _arrivals(path: Path, programs: list[_Program], rate: float | None, seed: int) -> np.ndarray[Any, Any]:
    given = [program.arrival for program in programs]
    if all(arrival is None for arrival in given):
        if rate is None:
            raise InputError(f"{path}: has no arrival times; give a rate of programs (such as --rate 0.1) to draw Poisson arrivals")
        if not 0 < rate < math.inf:
            raise InputError(f"rate must be a positive number of programs per second, not {rate:g}")
        return np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate, len(programs)))
    for program in programs:
        if program.arrival is None:
            raise InputError(f"{program.place}: arrival is missing, though other programs have one")
    begin = np.array(given, np.float64)
    return begin - begin.min() if begin.min() > EPOCH else begin


def _get(values: Line, what: str) -> Any:
    return next((values[name] for name in AGENT_NAMES[what] if values.get(name) is not None), None)


def _number(place: str, values: Line, what: str) -> float:
    value = _get(values, what)
    if value is None:
        raise InputError(f"{place}: {what} is missing")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{place}: {what} is not a finite number (found {_shown(value)})")
    return value


def _seconds(place: str, values: Line, what: str) -> float:
    value = float(_number(place, values, what))
    if value < 0:
        raise InputError(f"{place}: {what} is negative; times are seconds from 0 on (found {value:g})")
    return value


def _count(place: str, values: Line, what: str, low: int) -> int:
    value = _number(place, values, what)
    if value != int(value):
        raise InputError(f"{place}: {what} is not a whole number (found {value:g})")
    if not low <= value <= MAX_TOKENS:
        raise InputError(f"{place}: {what} is not from {low} to {MAX_TOKENS:,} (found {value:g})")
    return int(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
