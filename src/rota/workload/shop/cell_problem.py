"""Robot cells in the one problem model: what is to be planned, and what a run has to keep.

Every pick, every place and the work between them is a task. A station is held from the place to the end of the next pick. A robot is a
machine, with its moves as setup times: one with one arm is held from the pick to the end of the place, one with two while it picks or
places, and its arms meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from rota.errors import InputError
from rota.workload.shop.cell import Cell
from rota.workload.shop.problem import Event, Job, Lag, Mode, Problem, Resource, Task, Use


def task_name(kind: str, sheet: int, position: str) -> str:
    """Of the pick (``from``) or place (``to``) of a sheet, or of the work on it (``in``), at a stage or port."""
    return f"{sheet + 1} {kind} {position}"


def stage_name(cell: Cell, stage: int) -> str:
    """The stage's, or that of the port before or after all of them."""
    return cell.stages[stage - 1].name if 0 < stage <= len(cell.stages) else cell.unload if stage else cell.load


class Handled(NamedTuple):
    """Which robot picks or places a sheet, and where."""

    robot: str
    position: str


@dataclass(frozen=True, slots=True)
class _Plan:
    """Who does what; `ticks` of the work by sheet and stage."""

    cell: Cell
    picks: Callable[[int, int], Handled]
    places: Callable[[int, int], Handled]
    ticks: Callable[[int, int], int]

    def tasks(self, sheet: int) -> Iterable[Task]:
        cell = self.cell
        last = len(cell.stages) + 1
        arms = {robot.name: robot.arms for robot in cell.robots}

        def task(kind: str, stage: int, ticks: int, uses: Iterable[Use], family: str = "") -> Task:
            return Task(task_name(kind, sheet, stage_name(cell, stage)), (Mode(ticks, tuple(uses)),), family=family)

        for stage in range(last):
            pick, place = self.picks(sheet, stage), self.places(sheet, stage + 1)
            to = stage_name(cell, stage + 1)
            carried = Event(task_name("to", sheet, to), "end")
            held = () if stage + 1 == last else (Use(place.position),)
            if arms[pick.robot] == 1:
                yield task("from", stage, cell.pick, (Use(pick.robot, until=carried),), _transfer(pick.position, place.position))
                yield task("to", stage + 1, cell.place, held)
            else:
                yield task("from", stage, cell.pick, (Use(pick.robot), Use(_arms(pick.robot), until=carried)), pick.position)
                yield task("to", stage + 1, cell.place, (Use(place.robot), *held), place.position)
            if stage + 1 < last:
                gone = Event(task_name("from", sheet, to), "end")
                yield task("in", stage + 1, self.ticks(sheet, stage + 1), (Use(place.position, until=gone),))

    def lags(self, sheet: int) -> Iterable[Lag]:
        cell = self.cell
        for stage in range(len(cell.stages) + 1):
            here, to = (stage_name(cell, k) for k in (stage, stage + 1))
            move = cell.ticks(self.picks(sheet, stage).position, self.places(sheet, stage + 1).position)
            yield Lag(Event(task_name("from", sheet, here), "end"), Event(task_name("to", sheet, to), "start"), move)
            if stage < len(cell.stages):
                work = task_name("in", sheet, to)
                yield Lag(Event(task_name("to", sheet, to), "end"), Event(work, "start"), 0, 0)
                yield Lag(Event(work, "end"), Event(task_name("from", sheet, to), "start"), 0, cell.stages[stage].residency)


def _transfer(source: str, target: str) -> str:
    return f"{source} to {target}"


def _arms(robot: str) -> str:
    return f"{robot}'s arms"


def _resources(cell: Cell) -> Iterable[Resource]:
    """Of every robot."""
    transfers = [
        (a, b) for stage in range(len(cell.stages) + 1) for a in cell.stations(stage) for b in cell.stations(stage + 1)
    ]
    for robot in cell.robots:
        if robot.arms == 1:
            setup = {(_transfer(a, b), _transfer(c, d)): cell.ticks(b, c) for a, b in transfers for c, d in transfers}
            setup |= {("", _transfer(a, b)): cell.ticks(robot.at, a) for a, b in transfers}
        else:
            setup = dict(cell.move) | {("", name): cell.ticks(robot.at, name) for name in cell.positions}
            yield Resource(_arms(robot.name), robot.arms)
        yield Resource(robot.name, setup={pair: ticks for pair, ticks in setup.items() if ticks} or None)


def _problem(plan: _Plan, stations: Iterable[Resource], further: Iterable[Lag]) -> Problem:
    cell = plan.cell
    groups = [tuple(plan.tasks(sheet)) for sheet in range(cell.sheets)]
    jobs = tuple(Job(f"sheet {sheet + 1}", tuple(task.id for task in group)) for sheet, group in enumerate(groups))
    lags = [lag for sheet in range(cell.sheets) for lag in plan.lags(sheet)]
    tasks = tuple(task for group in groups for task in group)
    return Problem(tasks, (*stations, *_resources(cell)), (*lags, *further), jobs, name=cell.name)


def plan_problem(cell: Cell) -> Problem:
    """The cell as something to be planned: the fastest way of bringing all sheets through, in order, as they are alike.

    Raises
    ------
    InputError
        If it has several robots, arms that take time to turn, or stages with stations that are not equally far from all others: there is no
        word for these in the model.
    """
    robot = cell.robots[0]
    if len(cell.robots) > 1 or (robot.arms > 1 and cell.turn):
        what = "several robots" if len(cell.robots) > 1 else "two arms that take time to turn"
        raise InputError(f"{cell.name}: has {what}, which solvers cannot plan; rota dispatch runs it")
    for stage in cell.stages:
        for a, b in pairwise(stage.stations):
            others = [name for name in cell.positions if name not in stage.stations]
            if any(cell.ticks(a, x) != cell.ticks(b, x) or cell.ticks(x, a) != cell.ticks(x, b) for x in others):
                raise InputError(f"{cell.name}: {a} and {b} of {stage.name} are not equally far from all others; rota dispatch runs it")

    def handled(sheet: int, stage: int) -> Handled:
        return Handled(robot.name, cell.stations(stage)[0])

    def again(stage: int) -> int:
        """Least ticks between two picks there."""
        a, b = (cell.stations(k)[0] for k in (stage, stage + 1))
        return cell.pick + (cell.ticks(a, b) + cell.place + cell.ticks(b, a) if robot.arms == 1 else 0)

    def picked(sheet: int, stage: int) -> Event:
        return Event(task_name("from", sheet, stage_name(cell, stage)), "start")

    in_order = [
        Lag(picked(sheet, stage), picked(sheet + 1, stage), again(stage))
        for sheet in range(cell.sheets - 1)
        for stage in range(len(cell.stages) + 1)
    ]
    stations = [Resource(stage.stations[0], stage.room) for stage in cell.stages]
    return _problem(_Plan(cell, handled, handled, lambda _, stage: cell.stages[stage - 1].ticks), stations, in_order)


def in_order(cell: Cell, start: Mapping[str, int]) -> dict[str, int]:
    """The starts of a run for a plan: sheets that overtook each other, in parallel stations, take each other's part."""
    found: dict[str, int] = {}
    for stage in range(len(cell.stages) + 2):
        for kind in ("from", "in", "to"):
            names = [task_name(kind, sheet, stage_name(cell, stage)) for sheet in range(cell.sheets)]
            if names[0] in start:
                found |= zip(names, sorted(start[name] for name in names), strict=True)
    return found


class Assigned(NamedTuple):
    """What a run decided about one pick or place, but for its time."""

    kind: str
    robot: str
    sheet: int
    stage: int
    station: str


def run_problem(cell: Cell, assigned: Iterable[Assigned], swaps: Iterable[tuple[str, str]], work: Sequence[Sequence[int]]) -> Problem:
    """What a run has to keep, given who picked and placed what where: no times of the run are in it.

    Parameters
    ----------
    assigned : one per pick and place
    swaps : pairs of the tasks, pick and place, of every swap
    work : ticks by sheet and stage
        What the work really took.

    Raises
    ------
    InputError
        If a robot places what it did not pick, or is where it does not reach or the route does not go.
    """
    who = {(one.kind, one.sheet, one.stage): Handled(one.robot, one.station) for one in assigned}
    reach = {robot.name: robot.reach for robot in cell.robots}
    for (kind, sheet, stage), (robot, station) in who.items():
        if station not in cell.stations(stage) or station not in reach[robot]:
            raise InputError(f"{cell.name}: {robot} cannot {kind} sheet {sheet + 1} after {stage} stages at {station}")
        if kind == "place" and who["pick", sheet, stage - 1].robot != robot:
            raise InputError(f"{cell.name}: {robot} places sheet {sheet + 1} at {station}, which it did not pick")
    plan = _Plan(
        cell, lambda sheet, stage: who["pick", sheet, stage], lambda sheet, stage: who["place", sheet, stage],
        lambda sheet, stage: work[sheet][stage - 1],
    )  # fmt: skip
    stations = [Resource(name, stage.places) for stage in cell.stages for name in stage.stations]
    return _problem(plan, stations, [Lag(Event(a, "end"), Event(b, "start"), cell.turn) for a, b in swaps])
