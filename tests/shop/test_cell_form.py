"""Robot cells out of JSON, times of moves out of kinematics, and what is refused in one line."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.errors import InputError
from rota.policies.dispatch.cell import make_cell_rule
from rota.workload.shop.cell import Cell, Robot, Stage, everywhere, work_times
from rota.workload.shop.cell_form import cell_from
from rota.workload.shop.cell_problem import plan_problem
from rota.workload.shop.kinematics import Axis, move_seconds, move_ticks
from rota.workload.shop.load import load_cell, load_problem
from tests.shop.test_robot_cell import serial

COATER: dict[str, Any] = {
    "name": "coater", "sheets": 4, "pick": 3, "place": 2, "turn": 1, "load": "in", "unload": "out",
    "stages": [{"name": "coat", "ticks": 40, "residency": 9}, {"name": "bake", "ticks": 80, "stations": ["bake 1", "bake 2"], "places": 2}],
    "robots": [{"name": "R1", "arms": 2, "reach": ["in", "coat", "bake 1", "bake 2"]}, {"name": "R2", "at": "out"}],
    "move": 5,
}  # fmt: skip


def test_every_part_of_the_form() -> None:
    cell = cell_from(COATER)
    positions = ("in", "coat", "bake 1", "bake 2", "out")
    assert cell == Cell(
        (Stage("coat", 40, residency=9), Stage("bake", 80, ("bake 1", "bake 2"), 2)), everywhere(positions, 5), 3, 2, 1,
        (Robot("R1", 2, "in", positions[:-1]), Robot("R2", 1, "out", positions)), 4, "in", "out", "coater",
    )  # fmt: skip
    plain = cell_from({"stages": [{"name": "s", "ticks": 3}], "move": [["port", "s", 7]]})
    assert (plain.move, plain.robots, plain.unload) == ({("port", "s"): 7, ("s", "port"): 7}, (Robot("robot", 1, "port", ("port", "s")),), "port")
    one_way = cell_from({"stages": [{"name": "s", "ticks": 3}], "move": [["port", "s", 7], ["s", "port", 4]]})
    assert one_way.move == {("port", "s"): 7, ("s", "port"): 4}


def test_axes_that_overlap_and_one_that_moves_alone() -> None:
    turns = {"speed": 90, "acceleration": 90, "at": {"port": 0, "s": 180}}  # 180/90 + 90/90 = 3 s
    lifts = {"speed": 1, "acceleration": 1, "at": {"port": 0, "s": 0.25}}  # 2 sqrt(0.25) = 1 s
    form = {"stages": [{"name": "s", "ticks": 3}], "move": {"tick": 0.5, "settle": 0.2, "axes": [turns, lifts]}}
    assert cell_from(form).ticks("port", "s") == math.ceil(3.2 / 0.5)
    lifts["alone"] = True
    assert cell_from(form).ticks("s", "port") == math.ceil(4.2 / 0.5)


finite = st.floats(0.01, 100)


@given(finite, finite, finite)
def test_seconds_of_a_move_are_those_of_its_speed_added_up(distance: float, speed: float, acceleration: float) -> None:
    seconds = move_seconds(distance, speed, acceleration)
    assert move_seconds(-distance, speed, acceleration) == seconds
    # the way is twice that of speeding up to the peak, and between the two at the peak
    peak = min(speed, acceleration * seconds / 2)
    way = peak**2 / acceleration + peak * (seconds - 2 * peak / acceleration)
    assert way == pytest.approx(distance, rel=1e-9)
    assert move_seconds(speed**2 / acceleration, speed, acceleration) == pytest.approx(2 * speed / acceleration)


@given(st.lists(st.tuples(finite, finite, st.booleans(), st.lists(st.floats(-9, 9), min_size=4, max_size=4)), min_size=1, max_size=3), finite)
def test_moves_out_of_axes_make_a_cell(axes: list[tuple[float, float, bool, list[float]]], settle: float) -> None:
    positions = ("port", "a", "b", "c")
    parts = [Axis(speed, acceleration, dict(zip(positions, at, strict=True)), alone) for speed, acceleration, alone, at in axes]
    move = move_ticks(parts, positions, 0.1, settle)
    Cell(tuple(Stage(name, 3) for name in "abc"), move)  # no way is quicker than the direct one
    assert all(move[a, b] == move[b, a] for a, b in move)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("stages",), None, "cell: stages is missing"),
        (("stages",), {}, "cell: stages: should be a list, not {}"),
        (("stages", 0, "ticks"), None, "cell: stages[0]: ticks is missing"),
        (("stages", 0, "ticks"), "40", "stage coat: ticks must be a whole number of at least 0, not '40'"),
        (("stages", 1, "stations"), "bake", "cell: stages[1]: stations: 'bake' should be a list of names"),
        (("stages", 0, "time"), 3, "cell: stages[0]: a stage has no 'time'; it may have name, ticks, stations"),
        (("stages", 0, "name"), 3, "should be a list of names"),
        (("robots", 0), "R1", "cell: robots[0]: a robot is an object, not 'R1'"),
        (("robots", 0, "name"), [1], "a name must be a text that is not empty, not [1]"),
        (("robots", 1), {"name": "R2", "reach": ["out"]}, "no robot reaches both bake 1 and where its sheets go next (out)"),
        (("move",), [["in", "oven", 3]], "cell: move: ['in', 'oven', 3] should be [position, position, ticks]; positions are in, coat"),
        (("move",), [["in", "coat", 3]], "the move from in to bake 1 is missing"),
        (("move",), 2.5, "cell: move: a move is an object, not 2.5"),
        (("move",), {"axes": []}, "cell: move: moves need at least one axis"),
        (("move",), {"axes": [{"speed": 1, "acceleration": 1}]}, "cell: move: axes[0]: at is missing"),
        (("move",), {"axes": [{"speed": 0, "acceleration": 1, "at": {}}]}, "cell: move: speed and acceleration must be positive"),
        (("move",), {"axes": [{"speed": 1, "acceleration": 1, "at": {"in": "x"}}]}, "cell: move: in must be a number, not 'x'"),
        (("move",), {"axes": [{"speed": 1, "acceleration": 1, "at": {"in": 0}}]}, "cell: move: an axis does not say where it is at coat"),
        (("move",), {"axes": [{"speed": 1, "acceleration": 1, "at": {}}], "tick": "1"}, "cell: move: tick should be a number of seconds"),
        (("turn",), True, "turn must be a whole number"),
        (("arms",), 2, "cell: a cell has no 'arms'; it may have name, stages"),
    ],
)
def test_what_is_wrong_with_the_form_is_one_line(path: tuple[str | int, ...], value: object, said: str) -> None:
    given_ = copy.deepcopy(COATER)
    part: Any = given_
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    with pytest.raises(InputError) as error:
        cell_from(given_)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_files_tell_cells_from_problems(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    small = {"stages": [{"name": "a", "ticks": 9}], "move": 2, "sheets": 2}
    path.write_text(json.dumps(small))
    assert load_cell(path) == cell_from(small, str(path))
    assert load_problem(path) == plan_problem(cell_from(small, str(path)))
    path.write_text(json.dumps({"tasks": [{"id": "a", "duration": 3}]}))
    assert load_cell(path) is None
    path.write_text("{")
    assert load_cell(path) is None
    path.write_text(json.dumps(small | {"pick": 0}))
    with pytest.raises(InputError, match=r"cell\.json: pick must be a whole number"):
        load_problem(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pick": 0}, "cell: pick must be a whole number of at least 1, not 0"),
        ({"turn": 1.5}, "cell: turn must be a whole number of at least 0, not 1.5"),
        ({"stages": ()}, "at least one stage and one robot"),
        ({"stages": (Stage("s1", -1), Stage("s2", 2))}, "stage s1: ticks must be"),
        ({"stages": (Stage("s1", 1), Stage("s2", 2, ("s1",)))}, "s1 is there twice"),
        ({"stages": (Stage("port", 1, ("s1",)), Stage("s2", 2))}, "port is there twice"),
        ({"robots": (Robot("s1"),)}, "s1 is there twice"),
        ({"robots": (Robot(arms=3),)}, "robot robot has 3 arms; it can have 1 or 2"),
        ({"robots": (Robot(at="s9"),)}, "robot robot: there is no position s9; choose from port, s1, s2"),
        ({"robots": (Robot("a", reach=("port", "s1")), Robot("b", reach=("s2", "port")))}, "no robot reaches both s1 and where its sheets go next"),
        ({"move": {("port", "s1"): 3}}, "the move from port to s2 is missing"),
        ({"move": {**everywhere(("port", "s1", "s2"), 2), ("port", "s2"): 5}}, "from port to s2 takes 5, but less by way of s1"),
    ],
)
def test_what_is_wrong_with_a_cell_is_one_line(change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as error:
        replace(serial([10, 20], 3, 2), **change)  # type: ignore[arg-type]
    assert said in str(error.value)


def test_what_solvers_cannot_plan_is_refused() -> None:
    cell = serial([10, 20], 3, 2, turn=1, arms=2)
    with pytest.raises(InputError, match="two arms that take time to turn"):
        plan_problem(cell)
    with pytest.raises(InputError, match="several robots"):
        plan_problem(replace(cell, robots=(Robot("a"), Robot("b"))))
    apart = {("port", "a"): 1, ("a", "port"): 1, ("port", "b"): 2, ("b", "port"): 2, ("a", "b"): 1, ("b", "a"): 1}
    with pytest.raises(InputError, match="a and b of s are not equally far"):
        plan_problem(Cell((Stage("s", 5, ("a", "b")),), apart))


def test_names_and_noise_that_do_not_exist() -> None:
    with pytest.raises(InputError, match="unknown rule for robots 'fast'; choose from pull, push"):
        make_cell_rule("fast")
    with pytest.raises(InputError, match=r"noise must be in \[0, 1\)"):
        work_times(serial([1], 1, 1), 0, 1.0)
