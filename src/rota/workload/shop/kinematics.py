"""How long a robot moves: every axis speeds up, runs at its top speed if the way is long enough, and slows down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from rota.errors import InputError


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a robot: rotation, lift, extension, track.

    Parameters
    ----------
    speed, acceleration : float
        At most, in any unit of way per second and second squared; it slows down as it speeds up.
    at : mapping of position to float
        Where it is when the robot is there.
    alone : bool
        It moves while no other axis does, instead of at the same time.

    Raises
    ------
    InputError
        If a limit is not positive, or something is not a number.
    """

    speed: float
    acceleration: float
    at: Mapping[str, float]
    alone: bool = False

    def __post_init__(self) -> None:
        for name, value in (("speed", self.speed), ("acceleration", self.acceleration), *self.at.items()):
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{name} must be a number, not {value!r}")
        if not (self.speed > 0 and self.acceleration > 0):
            raise InputError(f"speed and acceleration must be positive, not {self.speed:g} and {self.acceleration:g}")


def move_seconds(distance: float, speed: float, acceleration: float) -> float:
    """Seconds from rest to rest: a trapezium of speed over time, or on short ways a triangle that does not reach the top speed."""
    way = abs(distance)
    if way >= speed**2 / acceleration:
        return way / speed + speed / acceleration
    return 2 * math.sqrt(way / acceleration)


def move_ticks(axes: Sequence[Axis], positions: Sequence[str], tick: float = 1.0, settle: float = 0.0) -> dict[tuple[str, str], int]:
    """Ticks of every move, rounded up: the slowest of the axes that move together, then those that move alone, then settling.

    Parameters
    ----------
    positions : names, each of which every axis has
    tick : float
        Seconds.
    settle : float
        Seconds until the robot is still, after any move.

    Raises
    ------
    InputError
        If there is no axis, an axis lacks a position, or a number is out of its range.
    """
    if not axes or not tick > 0 or not settle >= 0:
        raise InputError("moves need at least one axis, ticks of more than 0 seconds, and no negative time to settle")
    for name in positions:
        if any(name not in axis.at for axis in axes):
            raise InputError(f"an axis does not say where it is at {name}")
    found = {}
    for a, b in permutations(positions, 2):
        seconds = [(move_seconds(axis.at[b] - axis.at[a], axis.speed, axis.acceleration), axis.alone) for axis in axes]
        total = max((s for s, alone in seconds if not alone), default=0.0) + sum(s for s, alone in seconds if alone)
        found[a, b] = math.ceil((total + settle) / tick - 1e-9) if total else 0
    return found
