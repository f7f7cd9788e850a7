"""A robot cell in simulated time: work ends, robots come free, and at each such event a rule says what idle robots do.

Everything that a decision leads to is known when it is taken, as nobody waits on the way: sheets and places are promised to one robot only.
The log of picks and places is all that comes out; whether it keeps the rules of the cell is for the checker to say.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from rota.contracts.cell import (
    Action,
    CellRule,
    Decision,
    Move,
    Pick,
    Place,
    RobotState,
    SheetState,
    StationState,
    Swap,
    Transfer,
    Wait,
)
from rota.errors import UnsupportedPolicy
from rota.mechanisms.shop.cell_log import CellRun, Handling
from rota.workload.shop.cell import Cell, Robot, work_times

#: Moves without anything picked or placed after which a rule is taken to go nowhere.
_IDLE_MOVES = 10_000
#: Kinds of events.
_PICKED, _PLACED, _DONE, _IDLE = range(4)


@dataclass(slots=True)
class _Slot:
    sheet: int
    done_at: int
    done: bool = False
    promised: bool = False


@dataclass(slots=True)
class _Hand:
    """A robot: `stage` is where the sheet in its hands goes next, 0 if it holds none, as it does as soon as it `empties`."""

    robot: Robot
    at: str
    busy_until: int = 0
    stage: int = 0
    sheet: int = -1
    empties: bool = False


@dataclass(slots=True)
class _Station:
    stage: int
    places: int
    slots: list[_Slot] = field(default_factory=list)
    incoming: int = 0

    @property
    def room(self) -> int:
        return self.places - len(self.slots) - self.incoming

    def next(self) -> _Slot | None:
        """The sheet that has been done longest and is nobody's yet."""
        return min((slot for slot in self.slots if slot.done and not slot.promised), key=lambda slot: slot.done_at, default=None)


class CellSimulator:
    """One run of a rule.

    Parameters
    ----------
    cell : Cell
    work : lists of ticks by sheet and stage, or None
        What work really takes; None: what is expected.
    """

    def __init__(self, cell: Cell, work: Sequence[Sequence[int]] | None = None) -> None:
        self.cell = cell
        self.now = 0
        self._work = work_times(cell) if work is None else work
        self._last = len(cell.stages) + 1
        self._stations = {name: _Station(k, cell.stages[k - 1].places) for k in range(1, self._last) for name in cell.stations(k)}
        self._stations[cell.unload] = _Station(self._last, cell.sheets + 1)
        self._stations[cell.load] = _Station(0, cell.sheets + 1, [_Slot(0, 0, True)])
        self._hands = {robot.name: _Hand(robot, robot.at) for robot in cell.robots}
        self._given = 1
        self._out = 0
        self._events = [(0, k, _IDLE, name, -1) for k, name in enumerate(self._hands)]
        self._number = len(self._events)
        self._log: list[Handling] = []

    def run(self, rule: CellRule) -> CellRun:
        """Go on until every sheet is out.

        Raises
        ------
        UnsupportedPolicy
            If the rule needs arms that there are not, decides what cannot be done, or leaves sheets inside while nothing will happen.
        """
        if all(robot.arms < rule.arms for robot in self.cell.robots):
            raise UnsupportedPolicy(f"{rule.name} needs a robot with {rule.arms} arms and {self.cell.name} has none; choose another rule")
        decisions = moves = 0
        while self._out < self.cell.sheets:
            if not self._events:
                raise UnsupportedPolicy(f"{rule.name} {self._stuck()}")
            self._happen()
            for name, hand in self._hands.items():
                if hand.busy_until > self.now or self._out == self.cell.sheets:
                    continue
                view = _View(self, hand)
                decision = rule.choose(view)
                decisions += 1
                moves = moves + 1 if isinstance(decision, Move) else 0 if isinstance(decision, Action) else moves
                if moves > _IDLE_MOVES:
                    raise UnsupportedPolicy(f"{rule.name} moves robots of {self.cell.name} to and fro at {self.now} and carries nothing")
                if not self._is_possible(decision, hand, view.options):
                    raise UnsupportedPolicy(f"{rule.name} has {name} do {decision} at {self.now}, which it cannot")
                self._do(decision, hand)
        return CellRun(tuple(self._log), decisions)

    def _stuck(self) -> str:
        held = [f"{hand.robot.name} holds sheet {hand.sheet + 1}" for hand in self._hands.values() if hand.stage]
        full = [f"{name} has no room" for name, station in self._stations.items() if station.slots and station.room <= 0]
        left = self.cell.sheets - self._out
        return f"leaves {left} sheets of {self.cell.name} inside at {self.now} and nothing will happen: {', '.join([*held, *full]) or 'all wait'}"

    def _at(self, time: int, kind: int, name: str, sheet: int = -1) -> None:
        heapq.heappush(self._events, (time, self._number, kind, name, sheet))
        self._number += 1

    def _happen(self) -> None:
        """Move to the next event and let all of that instant happen."""
        self.now = self._events[0][0]
        while self._events and self._events[0][0] == self.now:
            _, _, kind, name, sheet = heapq.heappop(self._events)
            if kind == _IDLE:
                hand = self._hands[name]
                hand.stage, hand.empties = 0 if hand.empties else hand.stage, False
                continue
            station = self._stations[name]
            if kind == _PLACED:
                self._placed(name, station, sheet)
                continue
            slot = next(slot for slot in station.slots if slot.sheet == sheet)
            if kind == _DONE:
                slot.done, slot.done_at = True, self.now
            else:
                station.slots.remove(slot)

    def _placed(self, name: str, station: _Station, sheet: int) -> None:
        station.incoming -= 1
        if name == self.cell.unload:
            self._out += 1
            return
        station.slots.append(_Slot(sheet, self.now + self.cell.stages[station.stage - 1].ticks))
        self._at(self.now + self._work[sheet][station.stage - 1], _DONE, name, sheet)

    def options(self, hand: _Hand) -> list[Action]:
        """What the robot can do besides waiting and moving."""
        reach, cell = hand.robot.reach, self.cell
        found: list[Action] = []
        if hand.stage:
            for name in cell.stations(hand.stage):
                if name in reach and self._stations[name].room > 0:
                    found.append(Place(name))
                if name in reach and self._stations[name].next() and self._onward(name, reach):
                    found.append(Swap(name))
            return found
        for name, station in self._stations.items():
            if name not in reach or not station.next():
                continue
            onward = self._onward(name, reach)
            found += [Transfer(name, target) for target in onward if self._stations[target].room > 0]
            if hand.robot.arms > 1 and onward:
                found.append(Pick(name))
        return found

    def _onward(self, name: str, reach: Sequence[str]) -> list[str]:
        """Where a robot of that reach can bring what it picks there."""
        return [target for target in self.cell.stations(self._stations[name].stage + 1) if target in reach]

    def _is_possible(self, decision: Decision, hand: _Hand, options: Sequence[Action]) -> bool:
        if isinstance(decision, Move):
            return decision.position in hand.robot.reach and decision.position != hand.at
        return isinstance(decision, Wait) or decision in options

    def _do(self, decision: Decision, hand: _Hand) -> None:
        """Carry it out: all of it is in the log at once, and happens when its time comes."""
        if isinstance(decision, Wait):
            return
        cell, time = self.cell, self.now
        if isinstance(decision, Transfer):
            time = self._pick(hand, decision.source, time, False)
            time = self._place(hand, hand.stage, hand.sheet, decision.target, time + cell.ticks(decision.source, decision.target), False)
            hand.empties, hand.at = True, decision.target
        elif isinstance(decision, Swap):
            stage, sheet = hand.stage, hand.sheet
            time = self._pick(hand, decision.station, time, True)
            time = self._place(hand, stage, sheet, decision.station, time + cell.turn, True)
        elif isinstance(decision, Pick):
            time = self._pick(hand, decision.source, time, False)
        elif isinstance(decision, Place):
            time += cell.ticks(hand.at, decision.target)
            time = self._place(hand, hand.stage, hand.sheet, decision.target, time, False)
            hand.empties, hand.at = True, decision.target
        else:
            time += cell.ticks(hand.at, decision.position)
            hand.at = decision.position
        hand.busy_until = time
        self._at(time, _IDLE, hand.robot.name)

    def _pick(self, hand: _Hand, name: str, time: int, swap: bool) -> int:
        """Go there and pick the next sheet; when that is over."""
        station, slot = self._stations[name], self._stations[name].next()
        assert slot is not None
        slot.promised = True
        start = time + self.cell.ticks(hand.at, name)
        end = start + self.cell.pick
        hand.at, hand.sheet, hand.stage = name, slot.sheet, station.stage + 1
        self._log.append(Handling("pick", hand.robot.name, slot.sheet, station.stage, name, start, end, swap))
        if station.stage:
            self._at(end, _PICKED, name, slot.sheet)
        else:
            station.slots = [_Slot(self._given, self.now, True)] if self._given < self.cell.sheets else []
            self._given += 1
        return end

    def _place(self, hand: _Hand, stage: int, sheet: int, name: str, start: int, swap: bool) -> int:
        """Place a sheet there from that time on; when that is over."""
        end = start + self.cell.place
        self._stations[name].incoming += 1
        self._log.append(Handling("place", hand.robot.name, sheet, stage, name, start, end, swap))
        self._at(end, _PLACED, name, sheet)
        return end

    def station_states(self) -> Mapping[str, StationState]:
        """For views."""
        return MappingProxyType({
            name: StationState(
                station.stage, station.room, tuple(SheetState(slot.sheet, slot.done, slot.done_at, slot.promised) for slot in station.slots)
            )
            for name, station in self._stations.items()
        })  # fmt: skip

    def robot_states(self) -> Mapping[str, RobotState]:
        """For views."""
        return MappingProxyType({name: RobotState(hand.at, hand.stage or None, hand.busy_until) for name, hand in self._hands.items()})

    @property
    def left(self) -> int:
        """Sheets in the load port that no robot fetches."""
        return max(0, self.cell.sheets - self._given + 1)


class _View:
    """What a rule sees; states are worked out when it looks."""

    def __init__(self, simulator: CellSimulator, hand: _Hand) -> None:
        self._simulator = simulator
        self.now = simulator.now
        self.cell = simulator.cell
        self.robot = hand.robot.name
        self.left = simulator.left
        self.options = tuple(simulator.options(hand))

    @cached_property
    def robots(self) -> Mapping[str, RobotState]:
        return self._simulator.robot_states()

    @cached_property
    def stations(self) -> Mapping[str, StationState]:
        return self._simulator.station_states()


def simulate_cell(cell: Cell, rule: CellRule, work: Sequence[Sequence[int]] | None = None) -> CellRun:
    """One run of `rule` from the beginning to the end."""
    return CellSimulator(cell, work).run(rule)
