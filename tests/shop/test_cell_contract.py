"""Rules for robots and the cell simulator: what cannot be done is refused, who gets nowhere is told, and views are read-only."""

from __future__ import annotations

import pytest

from rota.contracts.cell import CellRule, Decision, Move, Pick, Place, Swap, Transfer, View, Wait
from rota.errors import UnsupportedPolicy
from rota.mechanisms.shop.cell import simulate_cell
from rota.policies.dispatch.cell import make_cell_rule
from tests.shop.test_robot_cell import serial


class Scripted:
    """Decides by a function of the view."""

    def __init__(self, choose: object, arms: int = 1) -> None:
        self.name = "scripted"
        self.arms = arms
        self.choose = choose


def always(decision: Decision) -> CellRule:
    rule = Scripted(lambda view: decision)
    assert isinstance(rule, CellRule)
    return rule


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        (Wait(), "leaves 20 sheets of cell inside at 0 and nothing will happen: all wait"),
        (Transfer("s1", "s2"), "has robot do Transfer(source='s1', target='s2') at 0, which it cannot"),
        (Transfer("port", "s2"), "which it cannot"),
        (Pick("port"), "which it cannot"),
        (Place("s1"), "which it cannot"),
        (Swap("s1"), "which it cannot"),
        (Move("s3"), "which it cannot"),
        (Move("port"), "which it cannot"),
    ],
)
def test_what_cannot_be_done_is_refused(decision: Decision, said: str) -> None:
    with pytest.raises(UnsupportedPolicy) as error:
        simulate_cell(serial([10, 20], 3, 2), always(decision))
    assert said in str(error.value)


def test_who_goes_nowhere_or_gets_stuck_is_told() -> None:
    cell = serial([10, 20], 3, 2, arms=2)
    to_and_fro = Scripted(lambda view: Move("s1" if view.robots["robot"].at == "s2" else "s2"))
    with pytest.raises(UnsupportedPolicy, match=r"to and fro at \d+ and carries nothing"):
        simulate_cell(cell, to_and_fro)

    def never_swaps(view: View) -> Decision:
        usable = [one for one in view.options if not isinstance(one, Swap | Transfer)]
        return usable[0] if usable else Wait()

    with pytest.raises(UnsupportedPolicy, match=r"inside at 17 and nothing will happen: robot holds sheet 2, s1 has no room"):
        simulate_cell(cell, Scripted(never_swaps))
    with pytest.raises(UnsupportedPolicy, match=r"swap needs a robot with 2 arms and cell has none"):
        simulate_cell(serial([10, 20], 3, 2), make_cell_rule("swap"))


def test_a_view_cannot_be_written_to() -> None:
    def meddles(view: View) -> Decision:
        with pytest.raises(TypeError):
            view.stations["port"] = None  # type: ignore[index]
        with pytest.raises(TypeError):
            view.robots["robot"] = None  # type: ignore[index]
        assert isinstance(view.options, tuple)
        return view.options[0] if view.options else Wait()

    assert len(simulate_cell(serial([10, 20], 3, 2, sheets=3), Scripted(meddles)).out) == 3
