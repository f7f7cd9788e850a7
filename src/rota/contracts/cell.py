"""Where rules for robots and robot cells meet: whenever a robot is idle and something has happened, a rule says what it does next.

A rule sees where sheets and robots are and when work is expected to end, not how long it will really take. What it decides can be done
without waiting at a station: sheets are picked when their work is done, and into places that are free or that the robot itself clears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from rota.workload.shop.cell import Cell


class Transfer(NamedTuple):
    """Go to `source`, pick the sheet that has been done longest, carry it to `target` and place it, for which a place is kept."""

    source: str
    target: str


class Pick(NamedTuple):
    """Go to `source` and pick a sheet, with no place kept for it: for robots with two arms, which may swap it in later."""

    source: str


class Place(NamedTuple):
    """Go to `target` and place the sheet that the robot holds."""

    target: str


class Swap(NamedTuple):
    """Go to `station`, pick a sheet with the free arm, turn, and place the one that the robot holds."""

    station: str


class Move(NamedTuple):
    """Go to `position` and do nothing there yet."""

    position: str


class Wait(NamedTuple):
    """Stay until something happens."""


Action = Transfer | Pick | Place | Swap
Decision = Action | Move | Wait


class SheetState(NamedTuple):
    """A sheet in a station, or the next one in the load port.

    Attributes
    ----------
    sheet : int
    done : bool
        Whether its work is.
    done_at : int
        Since when it is done or, if it is not, when it is expected to be, which may have passed.
    promised : bool
        Whether a robot is on its way to it.
    """

    sheet: int
    done: bool
    done_at: int
    promised: bool


class StationState(NamedTuple):
    """How many stages its sheets have been through with it, places that are neither taken nor promised, and its sheets."""

    stage: int
    room: int
    sheets: tuple[SheetState, ...]


class RobotState(NamedTuple):
    """Where it is or goes to, the stage that the sheet it holds or fetches goes to next (None: it holds none), until when it is busy."""

    at: str
    holds_for: int | None
    busy_until: int


class View(Protocol):
    """The cell at one instant; valid during the call only."""

    @property
    def now(self) -> int: ...

    @property
    def cell(self) -> Cell: ...

    @property
    def robot(self) -> str:
        """The one that is asked for."""

    @property
    def robots(self) -> Mapping[str, RobotState]: ...

    @property
    def stations(self) -> Mapping[str, StationState]:
        """By name; the load port is among them, with at most one sheet, and the unload port if it is another."""

    @property
    def left(self) -> int:
        """Sheets in the load port."""

    @property
    def options(self) -> Sequence[Action]:
        """What the robot can do now besides waiting, and moving to any other position within its reach; may be empty."""


@runtime_checkable
class CellRule(Protocol):
    """Decides for every robot; it is made anew for every run, so that it may remember."""

    @property
    def name(self) -> str: ...

    @property
    def arms(self) -> int:
        """Arms that some robot must have."""

    def choose(self, view: View) -> Decision: ...
