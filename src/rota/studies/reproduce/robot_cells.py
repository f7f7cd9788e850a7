"""Robot cells for claims about them: stations on an arc around the robot, as busy beside the robot as is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np

from rota.workload.shop.cell import Cell, Robot, Stage, everywhere
from rota.workload.shop.kinematics import Axis, move_ticks

#: Ticks of 0.1 s: a pick or a place, and turning from one arm to the other.
HANDLING, TURN = 20, 10
#: Cycle of the busiest station over that of the robot.
BOTTLENECKS = {"robot": 0.7, "alternating": 1.0, "station": 1.4}
#: Degrees from the first port to the last station.
ARC = 300.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a cell is drawn for; `parallel`: every second stage has two stations with twice the work."""

    stages: int
    parallel: bool
    arms: int
    bottleneck: str

    @property
    def layout(self) -> str:
        """In a word."""
        return "parallel" if self.parallel else "serial"


def robot_work(stages: int, move: float, handling: int, turn: int, arms: int) -> float:
    """Ticks that the robot is busy with a sheet, by the backward sequence or, with two arms, the swap sequence."""
    return (stages + 1) * (2 * handling + (2 * move if arms == 1 else turn + move))


def station_work(ticks: float, move: float, handling: int, turn: int, arms: int) -> float:
    """Ticks between two sheets of a station that the robot waits for."""
    return ticks + (4 * handling + 3 * move if arms == 1 else 2 * handling + turn)


def drawn(what: Drawn, seed: int, sheets: int = 60, *, limits: bool = True) -> Cell:
    """A cell whose robot turns at most 120 degrees per second and speeds up in half a second.

    One stage has the most work per station, the others half to nine tenths of it, or eight tenths to all where the bottleneck alternates.
    Limits on the stay are those of one transfer.
    """
    rng = np.random.default_rng([seed, what.stages, what.parallel, what.arms, list(BOTTLENECKS).index(what.bottleneck)])
    names = [(f"s{k}.1", f"s{k}.2") if what.parallel and k % 2 == 0 else (f"s{k}",) for k in range(1, what.stages + 1)]
    positions = ["port", *(name for group in names for name in group)]
    angle = {name: ARC * i / (len(positions) - 1) for i, name in enumerate(positions)}
    move = move_ticks([Axis(120.0, 240.0, angle)], positions, tick=0.1)
    chain = [positions[0], *(group[0] for group in names), positions[0]]
    mean = fmean(move[a, b] for a, b in pairwise(chain))
    robot = robot_work(what.stages, mean, HANDLING, TURN, what.arms)
    most = BOTTLENECKS[what.bottleneck] * robot - station_work(0, mean, HANDLING, TURN, what.arms)
    share = rng.uniform(*((0.8, 1.0) if what.bottleneck == "alternating" else (0.5, 0.9)), what.stages)
    share[rng.integers(what.stages)] = 1
    limit = round(2 * HANDLING + mean) if limits else None
    stages = tuple(
        Stage(f"stage {k + 1}", max(1, round(share[k] * (most if len(group) == 1 else most + robot))), group, residency=limit)
        for k, group in enumerate(names)
    )
    name = f"{what.stages} {what.layout} {what.arms} {what.bottleneck}"
    return Cell(stages, move, HANDLING, HANDLING, TURN, (Robot(arms=what.arms),), sheets, name=name)


def serial(ticks: list[int], move: int, handling: int, turn: int, arms: int, sheets: int) -> Cell:
    """Stages of one station each, everything equally far from everything else."""
    stages = tuple(Stage(f"s{k}", work) for k, work in enumerate(ticks, 1))
    positions = ("port", *(stage.name for stage in stages))
    return Cell(stages, everywhere(positions, move), handling, handling, turn, (Robot(arms=arms),), sheets, name="serial")
