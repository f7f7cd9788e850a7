"""Robot cells: sheets go from a load port through stages of stations and out again, and robots carry them.

Times are whole ticks, positions are the names of stations and ports. A station keeps a sheet from when the robot begins to place it until
it has been picked. A buffer is a stage of no work with room for several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from statistics import fmean

import numpy as np

from rota.errors import InputError


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the route: every sheet is worked on by one of its stations.

    Parameters
    ----------
    name : str
    ticks : int
        Of work, from when a sheet has been placed.
    stations : tuple of str
        Those in parallel; by default one that is called as the stage.
    places : int
        Sheets that each of them takes at once.
    residency : int or None
        Ticks after its work within which the pick of a sheet must begin.
    """

    name: str
    ticks: int
    stations: tuple[str, ...] = ()
    places: int = 1
    residency: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stations", tuple(self.stations) or (self.name,))

    @property
    def room(self) -> int:
        """Sheets that all its stations take at once."""
        return self.places * len(self.stations)


@dataclass(frozen=True, slots=True)
class Robot:
    """A robot with one or two arms.

    Parameters
    ----------
    name : str
    arms : int
    at : str
        Where it begins; by default the load port.
    reach : tuple of str
        Stations and ports that it serves; by default all.
    """

    name: str = "robot"
    arms: int = 1
    at: str = ""
    reach: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """A robot cell. Checked whole when it is made. Robots do not get in each other's way.

    Parameters
    ----------
    stages : tuple of Stage
        In the order in which every sheet goes through them.
    move : mapping of (position, position) to ticks
        Of the quickest way; staying takes none.
    pick, place, turn : int
        Ticks to take a sheet, to put one down, and between the two when a robot with two arms swaps them.
    robots : tuple of Robot
    sheets : int
    load, unload : str
        Ports, which may be the same.
    name : str

    Raises
    ------
    InputError
        If something is missing, named twice, negative or out of reach; the message says what and where.
    """

    stages: tuple[Stage, ...]
    move: Mapping[tuple[str, str], int]
    pick: int = 1
    place: int = 1
    turn: int = 0
    robots: tuple[Robot, ...] = (Robot(),)
    sheets: int = 20
    load: str = "port"
    unload: str = "port"
    name: str = "cell"

    def __post_init__(self) -> None:
        robots = tuple(Robot(r.name, r.arms, r.at or self.load, r.reach or self.positions) for r in self.robots)
        object.__setattr__(self, "robots", robots)
        try:
            self._check()
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None

    @property
    def positions(self) -> tuple[str, ...]:
        """Ports and stations."""
        return tuple(dict.fromkeys((self.load, *(name for stage in self.stages for name in stage.stations), self.unload)))

    def stations(self, stage: int) -> tuple[str, ...]:
        """Where sheets are after so many stages: 0 is the load port, one more than there are stages the unload port."""
        if 0 < stage <= len(self.stages):
            return self.stages[stage - 1].stations
        return (self.unload if stage else self.load,)

    def ticks(self, a: str, b: str) -> int:
        """Of the move from a to b."""
        return 0 if a == b else self.move[a, b]

    def _check(self) -> None:
        if not self.stages or not self.robots:
            raise InputError("there must be at least one stage and one robot")
        for what, least, value in (("pick", 1, self.pick), ("place", 1, self.place), ("turn", 0, self.turn), ("sheets", 1, self.sheets)):
            whole(value, least, what)
        for stage in self.stages:
            whole(stage.ticks, 0, f"stage {stage.name}: ticks")
            whole(stage.places, 1, f"stage {stage.name}: places")
            whole(0 if stage.residency is None else stage.residency, 0, f"stage {stage.name}: residency")
        stations = [name for stage in self.stages for name in stage.stations]
        ports = {self.load, self.unload}
        for names in ([*ports, *(stage.name for stage in self.stages)], [*ports, *stations, *(robot.name for robot in self.robots)]):
            for name in names:
                if not isinstance(name, str) or not name:
                    raise InputError(f"a name must be a text that is not empty, not {name!r}")
            for name, count in Counter(names).items():
                if count > 1:
                    raise InputError(f"{name} is there twice; give every stage, station, robot and port a name of its own")
        self._check_moves()
        self._check_robots()

    def _check_moves(self) -> None:
        positions = self.positions
        for a, b in permutations(positions, 2):
            if (a, b) not in self.move:
                raise InputError(f"the move from {a} to {b} is missing")
            whole(self.move[a, b], 0, f"the move from {a} to {b}")
        for a, b, c in permutations(positions, 3):
            if self.move[a, c] + self.move[c, b] < self.move[a, b]:
                raise InputError(f"a move from {a} to {b} takes {self.move[a, b]}, but less by way of {c}; give the time of the quickest way")

    def _check_robots(self) -> None:
        for robot in self.robots:
            if robot.arms not in (1, 2):
                raise InputError(f"robot {robot.name} has {robot.arms} arms; it can have 1 or 2")
            for name in (robot.at, *robot.reach):
                if name not in self.positions:
                    raise InputError(f"robot {robot.name}: there is no position {name}; choose from {', '.join(self.positions)}")
        for stage in range(len(self.stages) + 1):
            for name in self.stations(stage):
                takes_out = any(name in robot.reach and set(self.stations(stage + 1)) & set(robot.reach) for robot in self.robots)
                if not takes_out:
                    raise InputError(f"no robot reaches both {name} and where its sheets go next ({', '.join(self.stations(stage + 1))})")


def whole(value: object, least: int, what: str) -> int:
    """The value, if it is a whole number and not too small.

    Raises
    ------
    InputError
        Names `what`.
    """
    if type(value) is not int or value < least:
        raise InputError(f"{what} must be a whole number of at least {least}, not {value!r}")
    return value


def everywhere(positions: tuple[str, ...], ticks: int) -> dict[tuple[str, str], int]:
    """Moves that all take the same time."""
    return dict.fromkeys(permutations(positions, 2), ticks)


def work_times(cell: Cell, seed: int = 0, noise: float = 0.0) -> list[list[int]]:
    """What the work on each sheet really takes, by sheet and stage: ticks times U(1 - noise, 1 + noise), rounded.

    The same seed gives every rule the same times.

    Raises
    ------
    InputError
        If the noise is not in [0, 1).
    """
    if not 0 <= noise < 1:
        raise InputError(f"noise must be in [0, 1), not {noise:g}")
    expected = np.array([stage.ticks for stage in cell.stages])
    stretch = np.random.default_rng(seed).uniform(1 - noise, 1 + noise, (cell.sheets, len(expected)))
    times: list[list[int]] = np.rint(expected * stretch).astype(int).tolist()
    return times


def least_ticks(cell: Cell, work: Sequence[Sequence[int]] | None = None) -> float:
    """Ticks per sheet that no rule gets below: the most work per sheet that a stage, or all robots together, have.

    Parameters
    ----------
    work : lists of ticks by sheet and stage, or None
        What work really takes; None: what is expected.
    """
    times = work_times(cell) if work is None else work
    loads = [
        (cell.place + fmean(row[k] for row in times) + cell.pick) / stage.room for k, stage in enumerate(cell.stages)
    ]
    carried = sum(
        cell.pick + min(cell.ticks(a, b) for a, b in product(cell.stations(k), cell.stations(k + 1))) + cell.place
        for k in range(len(cell.stages) + 1)
    )
    return max(*loads, carried / len(cell.robots))
