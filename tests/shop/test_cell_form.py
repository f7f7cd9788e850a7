"""Robot cells that are not one, are refused in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rota.errors import InputError
from rota.policies.dispatch.cell import make_cell_rule
from rota.workload.shop.cell import Cell, Robot, Stage, everywhere, work_times
from rota.workload.shop.cell_problem import plan_problem
from tests.shop.test_robot_cell import serial


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
