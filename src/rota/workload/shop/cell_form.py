"""Robot cells as JSON; docs/shop.md describes the form. What is left out has its default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rota.errors import InputError
from rota.workload.shop.cell import Cell, Robot, Stage, everywhere
from rota.workload.shop.kinematics import Axis, move_ticks

_KEYS = {
    "cell": ("name", "stages", "move", "pick", "place", "turn", "robots", "sheets", "load", "unload"),
    "stage": ("name", "ticks", "stations", "places", "residency"),
    "robot": ("name", "arms", "at", "reach"),
    "move": ("axes", "tick", "settle"),
    "axis": ("speed", "acceleration", "at", "alone"),
}


def cell_from(data: object, where: str = "cell") -> Cell:
    """A cell out of parsed JSON.

    Raises
    ------
    InputError
        If a key is unknown or missing, or a value cannot be; names the part.
    """
    given = _object(data, "cell", where, "stages", "move")
    stages = []
    for i, item in enumerate(_list(given["stages"], f"{where}: stages")):
        part = f"{where}: stages[{i}]"
        stage = _object(item, "stage", part, "name", "ticks")
        stages.append(Stage(**stage | {"stations": _names(stage.get("stations", []), f"{part}: stations")}))
    robots = []
    for i, item in enumerate(_list(given.get("robots", [{}]), f"{where}: robots")):
        part = f"{where}: robots[{i}]"
        robot = _object(item, "robot", part)
        robots.append(Robot(**robot | {"reach": _names(robot.get("reach", []), f"{part}: reach")}))
    load, unload = given.get("load", "port"), given.get("unload", given.get("load", "port"))
    positions = tuple(dict.fromkeys(_names([load, *(name for stage in stages for name in stage.stations), unload], f"{where}: positions")))
    parts = {"name": where, **given, "load": load, "unload": unload, "stages": tuple(stages), "robots": tuple(robots)}
    return Cell(**parts | {"move": _moves(given["move"], positions, f"{where}: move")})


def _moves(data: object, positions: tuple[str, ...], where: str) -> Mapping[tuple[str, str], int]:
    """A number for all; rows of [a, b, ticks], which hold for the way back too unless it has its own; or axes."""
    if type(data) is int:
        return everywhere(positions, data)
    if isinstance(data, list):
        rows: dict[tuple[str, str], int] = {}
        for row in data:
            if not isinstance(row, list) or len(row) != 3 or not all(name in positions for name in row[:2]):
                raise InputError(f"{where}: {row!r:.60} should be [position, position, ticks]; positions are {', '.join(positions)}")
            rows[row[0], row[1]] = row[2]
        return {(b, a): ticks for (a, b), ticks in rows.items()} | rows
    given = _object(data, "move", where, "axes")
    try:
        axes = []
        for i, item in enumerate(_list(given["axes"], f"{where}: axes")):
            axis = _object(item, "axis", f"{where}: axes[{i}]", "speed", "acceleration", "at")
            if not isinstance(axis["at"], dict):
                raise InputError(f"{where}: axes[{i}]: at is an object of positions, not {axis['at']!r:.40}")
            axes.append(Axis(**axis))
        return move_ticks(axes, positions, _number(given, "tick", 1.0, where), _number(given, "settle", 0.0, where))
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None


def _object(data: object, kind: str, where: str, *needed: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"{where}: a {kind} is an object, not {data!r:.40}")
    for key in data:
        if key not in _KEYS[kind]:
            raise InputError(f"{where}: a {kind} has no {key!r}; it may have {', '.join(_KEYS[kind])}")
    for key in needed:
        if key not in data:
            raise InputError(f"{where}: {key} is missing")
    return data


def _list(data: object, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise InputError(f"{where}: should be a list, not {data!r:.40}")
    return data


def _names(data: object, where: str) -> tuple[str, ...]:
    if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
        raise InputError(f"{where}: {data!r:.60} should be a list of names")
    return tuple(data)


def _number(given: Mapping[str, Any], key: str, default: float, where: str) -> float:
    value = given.get(key, default)
    if type(value) not in (int, float):
        raise InputError(f"{where}: {key} should be a number of seconds, not {value!r:.40}")
    return float(value)
