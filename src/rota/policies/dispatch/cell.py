"""Rules for robots of a cell: what an idle robot carries next, and where it waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from rota.contracts.cell import CellRule, Decision, Move, Pick, Place, Swap, Transfer, View, Wait
from rota.errors import InputError

#: Whose transfer comes first, among those of sheets that are done.
_NUMBER: dict[str, Callable[[View, Transfer], float]] = {
    "push": lambda view, one: view.stations[one.source].stage,
    "downstream": lambda view, one: -view.stations[one.source].stage,
    "longest-waiting": lambda view, one: _first_done(view, [one.source]),
    "nearest": lambda view, one: view.cell.ticks(view.robots[view.robot].at, one.source),
}


def _first_done(view: View, names: Iterable[str]) -> float:
    """When the first sheet there that nobody fetches is or will be done; inf: there is none."""
    return min((sheet.done_at for name in names for sheet in view.stations[name].sheets if not sheet.promised), default=np.inf)


def _last(view: View) -> int:
    """The stage of the unload port."""
    return len(view.cell.stages) + 1


def _reach(view: View) -> tuple[str, ...]:
    return next(robot.reach for robot in view.cell.robots if robot.name == view.robot)


def _has_onward(view: View, stage: int) -> bool:
    """Whether a sheet of that stage could be brought to the next one."""
    return any(view.stations[name].room > 0 for name in view.cell.stations(stage + 1) if name in _reach(view))


def _goes_on(view: View, stage: int) -> bool:
    """Whether the robot can place a sheet there now, or swap it in and out."""
    reach = _reach(view)
    can_swap = all(any(name in reach for name in view.cell.stations(k)) for k in (stage, stage + 1))
    return can_swap or stage == _last(view) or _has_onward(view, stage - 1)


def _wait_at(view: View, names: Iterable[str]) -> Decision:
    """Be where the first of the sheets there will be done."""
    reach = _reach(view)
    there = [name for name in names if name in reach and _first_done(view, [name]) < np.inf]
    if not there:
        return Wait()
    first = min(there, key=lambda name: _first_done(view, [name]))
    return Wait() if first == view.robots[view.robot].at else Move(first)


def _transfers(view: View) -> list[Transfer]:
    return [one for one in view.options if isinstance(one, Transfer)]


@dataclass(frozen=True, slots=True)
class Greedy:
    """The transfer with the smallest number, then the shortest way; if there is none, it waits where the first one will be."""

    name: str
    arms: int = 1

    def choose(self, view: View) -> Decision:
        """One of the transfers, or where to wait."""
        number, at = _NUMBER[self.name], view.robots[view.robot].at
        found = _transfers(view)
        if found:
            return min(found, key=lambda one: (number(view, one), view.cell.ticks(at, one.source) + view.cell.ticks(*one)))
        return _next_one(view)


def _next_one(view: View) -> Decision:
    """Wait where the first sheet will be done that can then be carried on."""
    return _wait_at(view, [name for name, station in view.stations.items() if _has_onward(view, station.stage)])


@dataclass(slots=True)
class Random:
    """Any transfer, each as likely."""

    seed: int = 0
    name: str = "random"
    arms: int = 1
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def choose(self, view: View) -> Decision:
        """One of the transfers, or where to wait."""
        found = _transfers(view)
        return found[int(self._rng.integers(len(found)))] if found else _next_one(view)


@dataclass(slots=True)
class Pull:
    """The backward sequence: from the last stage to the load port, again and again, each stage handing on one sheet.

    A stage is waited for if it is full, or will not get fuller; otherwise one that has nothing ready, or nowhere to bring it, is passed over.
    """

    name: str = "pull"
    arms: int = 1
    _turn: dict[str, int] = field(default_factory=dict)

    def choose(self, view: View) -> Decision:
        """The transfer of the stage whose turn it is."""
        last = len(view.cell.stages)
        turn = self._turn.get(view.robot, last)
        found, reach = _transfers(view), _reach(view)
        for step in range(last + 1):
            stage = (turn - step) % (last + 1)
            names = [name for name in view.cell.stations(stage) if name in reach]
            mine = [one for one in found if one.source in names]
            if mine:
                self._turn[view.robot] = (stage - 1) % (last + 1)
                return min(mine, key=lambda one: _first_done(view, [one.source]))
            if self._is_due(view, stage) and _has_onward(view, stage) and _first_done(view, names) < np.inf:
                self._turn[view.robot] = stage
                return _wait_at(view, names)
        return Wait()

    def _is_due(self, view: View, stage: int) -> bool:
        stations = view.stations
        full = all(stations[name].room <= 0 for name in view.cell.stations(stage))
        return full or not (
            view.left
            or any(0 < station.stage < stage and station.sheets for station in stations.values())
            or any((robot.holds_for or _last(view)) <= stage for robot in view.robots.values())
        )


@dataclass(slots=True)
class SwapRule:
    """With two arms: bring a sheet to the next stage, swap it for the one that is done there, and go on with that one.

    Empty-handed it fetches from the stage that is farthest upstream. Robots with one arm pull.
    """

    name: str = "swap"
    arms: int = 2
    _pull: Pull = field(default_factory=Pull)

    def choose(self, view: View) -> Decision:
        """Place, swap or pick; or wait for that."""
        if next(robot.arms for robot in view.cell.robots if robot.name == view.robot) == 1:
            return self._pull.choose(view)
        stage = view.robots[view.robot].holds_for
        if stage is None:
            picks = [one for one in view.options if isinstance(one, Pick) and _goes_on(view, view.stations[one.source].stage + 1)]
            if picks:
                return min(picks, key=lambda one: (view.stations[one.source].stage, _first_done(view, [one.source])))
            inside = [name for name, station in view.stations.items() if station.stage < _last(view)]
            return _wait_at(view, inside)
        swaps = [one for one in view.options if isinstance(one, Swap) and _goes_on(view, view.stations[one.station].stage + 1)]
        places = [one for one in view.options if isinstance(one, Place)]
        if places and not (swaps and stage == _last(view)):
            at = view.robots[view.robot].at
            return min(places, key=lambda one: view.cell.ticks(at, one.target))
        if swaps:
            return min(swaps, key=lambda one: _first_done(view, [one.station]))
        return _wait_at(view, view.cell.stations(stage))


def cell_rule_names() -> list[str]:
    """All names that `make_cell_rule` knows."""
    return ["pull", *_NUMBER, "random", "swap"]


def make_cell_rule(name: str, seed: int = 0) -> CellRule:
    """A rule by name, in any case.

    Raises
    ------
    InputError
        If there is none.
    """
    known = name.lower()
    if known in _NUMBER:
        return Greedy(known)
    if known == "random":
        return Random(seed)
    if known == "pull":
        return Pull()
    if known == "swap":
        return SwapRule()
    raise InputError(f"unknown rule for robots {name!r}; choose from {', '.join(cell_rule_names())}")
